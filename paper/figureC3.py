"""Figure C.3: the relative change of the gap under attack, over the two largest logits."""

from __future__ import annotations

import sys

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from paper import style
from paper.appendix_c.drawing import TITLES, grid, surface
from paper.appendix_c.response import (
    ERROR,
    Equation10,
    relative_gap_change,
    shielding_gap,
)
from paper.appendix_c.surrogate import CLASSES, VARIANTS

EPS = 0.1
LEVELS = [0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0]
ROWS: tuple[tuple[str, Equation10, bool], ...] = (
    ("eq. (10) as printed", "printed", False),
    ("eq. (10) corrected", "corrected", False),
    ("corrected, ζ kept", "corrected", True),
)


def make() -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(11, 9.8))
    panels = figure.subplots(len(ROWS), len(VARIANTS), sharex=True, sharey=True)
    norm = LogNorm(0.05, 50)
    b1, b2 = grid()
    for row, (name, equation, normalised) in zip(panels, ROWS, strict=True):
        for axes, variant in zip(row, VARIANTS, strict=True):
            change = relative_gap_change(
                b1[:, None],
                b2,
                error=ERROR,
                eps=EPS,
                classes=CLASSES,
                variant=variant,
                equation=equation,
                normalised=normalised,
            )
            shown = surface(axes, change, norm, LEVELS)
            axes.contour(b1, b2, change.T, levels=[EPS], colors="white", linewidths=2)
        row[0].set_ylabel(f"{name}\nβ✗")
    for axes, variant in zip(panels[0], VARIANTS, strict=True):
        axes.set_title(TITLES[variant])
    for axes in panels[-1]:
        axes.set_xlabel("β✓")
    figure.subplots_adjust(left=0.07, right=0.9, top=0.96, bottom=0.165, hspace=0.08, wspace=0.06)
    bar = figure.add_axes((0.92, 0.165, 0.015, 0.795))
    figure.colorbar(shown, cax=bar, label="|Δgap| / gap", extend="both")
    style.caption(figure, _text(), 165)
    return figure


def _text() -> str:
    """Return the caption."""
    shielding = shielding_gap(grid()[1], variant="flip", equation="corrected").min()
    return (
        f"|Δgap|/gap by eq. (10) (paper: figure C.3), N = 10, ε = {EPS:g}, training error "
        f"e = {ERROR:g}. The paper fixes neither Ω nor the variant nor e; here Ω✓(ε) = Ω✗(ε) = ε, "
        "so only shapes are comparable, not heights. Bottom row: with the factor ζ = 1/‖∇L‖ of "
        "eq. (12) kept, the response is linear in the scale of the logits, not quadratic "
        "(ε√Q/gap). The printed last term, (β✗-g)(g-ψ) instead of (β✗-ψ)(g-ψ), vanishes where β✗ "
        "meets g (flip, lower edge), which is where small-gap errors seem to shield the network; "
        "with the corrected term they do so only for correct gaps above "
        f"{shielding:.1f}. Thick line: |Δgap|/gap = ε, which a robust model should stay far below. "
        "Grey: no such surrogate. The surrogates are artefacts of the truncation of eq. (3)."
    )


if __name__ == "__main__":
    sys.exit(style.main("figureC3", make, sys.argv[1:]))
