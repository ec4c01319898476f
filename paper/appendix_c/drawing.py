"""What the figures of Appendix C share: colours, thresholds, axes."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from paper.appendix_c.surrogate import CLASSES, Variant, threshold

COLOURS: dict[Variant, str] = {
    "printed": "#0072b2",
    "flip": "#d55e00",
    "corrected": "#222222",
}
TITLES: dict[Variant, str] = {
    "printed": "as printed",
    "flip": "flip: printed, g₊ without its minus",
    "corrected": "corrected: solves eq. (3)",
}


def thresholds() -> dict[str, float]:
    """Return the marked values of β for ten classes, by label."""
    return {
        "ln 7": float(np.log(7)),
        "ln 9": float(np.log(9)),
        "printed g₋": threshold(CLASSES, "printed", "-"),
        "flip g₊": threshold(CLASSES, "flip"),
    }


def grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return β✓ in (0.1, 10) and β✗ in (3.5, 10), the axes of figures C.2 and C.3."""
    return np.linspace(0.1, 10, 100), np.linspace(3.5, 10, 66)


def surface(
    axes: Any, values: NDArray[np.float64], norm: mpl.colors.Normalize, levels: list[float]
) -> Any:
    """Draw values over the grid, shape (β✓, β✗), with level lines; grey where there are none."""
    b1, b2 = grid()
    axes.set_facecolor("#dddddd")
    shown = axes.pcolormesh(b1, b2, values.T, norm=norm, cmap="viridis", rasterized=True)
    present = [x for x in levels if np.nanmin(values) < x < np.nanmax(values)]
    if present:
        lines = axes.contour(b1, b2, values.T, levels=present, colors="white", linewidths=0.7)
        axes.clabel(lines, fmt="%g", fontsize=7)
    axes.set(xlim=(b1[0], b1[-1]), ylim=(b2[0], b2[-1]))
    return shown
