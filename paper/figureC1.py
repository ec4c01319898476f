"""Figure C.1: which β leave the surrogates inside S, in three variants."""

from __future__ import annotations

import sys

import numpy as np
from matplotlib.figure import Figure

from paper import style
from paper.appendix_c import surrogate
from paper.appendix_c.drawing import COLOURS, TITLES, thresholds

LIMIT = 20.0


def make() -> Figure:
    """Return the figure."""
    marks, beta = thresholds(), np.linspace(0.01, 12, 1200)
    figure = Figure(figsize=(11, 7.4))
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for variant in surrogate.VARIANTS:
        f = surrogate.correct_roots(beta, surrogate.CLASSES, variant)
        g = surrogate.wrong_roots(beta, surrogate.CLASSES, variant)
        rows = (
            (f.f_plus, g.g_plus, g.psi_plus),
            (f.f_minus, g.g_minus, g.psi_minus),
        )
        for row, values in zip(panels, rows, strict=True):
            for axes, value in zip(row, values, strict=True):
                shown = np.where(np.abs(beta - value) < LIMIT, beta - value, np.nan)
                axes.plot(
                    beta,
                    shown,
                    color=COLOURS[variant],
                    linestyle=":" if variant == "printed" else "-",
                    linewidth=2.2 if variant == "printed" else 1.3,
                    zorder=3 if variant == "printed" else 2,
                    label=TITLES[variant],
                )
    for row, sign in zip(panels, "₊₋", strict=True):
        for axes, name in zip(row, "fgψ", strict=True):
            axes.set_title(f"β - {name}{sign}")
            axes.axhspan(0, LIMIT, color="#f0e9d2", zorder=0)
            axes.axhline(0, color="#888888", linewidth=0.6)
            for mark in marks.values():
                axes.axvline(mark, color="#999999", linewidth=0.6, linestyle="--", zorder=1)
            axes.set(xlim=(0, 12), ylim=(-LIMIT, LIMIT))
    # Three thresholds lie within 0.9 of each other: their names go below one another.
    for height, (label, mark) in zip((-19, -17, -15, -13), marks.items(), strict=True):
        text = label if label.startswith("ln") else f"{mark:.3f}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        for axes in panels.flat:
            axes.text(mark + 0.12, height, text, fontsize=7, color="#555555", zorder=4, bbox=box)
    for axes in panels[1]:
        axes.set_xlabel("β, largest logit")
    for axes in panels[:, 0]:
        axes.set_ylabel("distance to the largest logit")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=3)
    figure.subplots_adjust(left=0.06, right=0.99, top=0.91, bottom=0.2, hspace=0.17, wspace=0.06)
    style.caption(figure, _text(), 165)
    return figure


def _text() -> str:
    """Return the caption."""
    marks = thresholds()
    return (
        f"Constraints on β for N = {surrogate.CLASSES} (paper: figure C.1, whose axes and variant "
        "are not stated). A surrogate is admissible where β exceeds all its other logits (shaded). "
        "As printed, g₊ is admissible from its pole at ln 9 on; β > 3.5 appears only if g₊ loses "
        f"its minus (flip, {marks['flip g₊']:.3f}; another misreading gives "
        f"{surrogate.other_threshold(surrogate.CLASSES):.3f}), and {marks['printed g₋']:.3f} "
        f"belongs to the printed g₋. The corrected f₊ and f₋ end at ln 18 = {np.log(18):.3f}. "
        f"Values beyond {LIMIT:g}, as near the poles, are masked. None of this concerns the exact "
        "cross-entropy, which has no stationary point on S; of the corrected points in S, only f₊ "
        "below ln 9 is a minimum of eq. (3)."
    )


if __name__ == "__main__":
    sys.exit(style.main("figureC1", make, sys.argv[1:]))
