"""Figure C.2: the exact loss at the surrogates, over the two largest logits."""

from __future__ import annotations

import sys

from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from paper import style
from paper.appendix_c.drawing import TITLES, grid, surface
from paper.appendix_c.response import ERROR, SENSITIVITIES, mean_field_loss
from paper.appendix_c.surrogate import CLASSES, VARIANTS

ERRORS = sorted((ERROR, *SENSITIVITIES))

LEVELS = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]

CAPTION = (
    "Exact cross-entropy in nats at the positive-root surrogates (paper: figure C.2), N = 10, "
    "β✓ and β✗ the largest logits of correctly classified and misclassified examples, e the "
    "training error. The paper states neither e nor the variant: 19.6 % is the training error of "
    "its AT teacher (section 4.2), the others are sensitivities. Grey: no such surrogate (the "
    "corrected f₊ ends at ln 18). Large β✓ gives a loss near zero only as e → 0, because the "
    "errors alone cost at least e ln 2. The surrogates are stationary points of a truncated "
    "series (corrected) or of nothing (printed, flip): the exact loss has none on S."
)


def make() -> Figure:
    """Return the figure."""
    figure = Figure(figsize=(11, 9.6))
    panels = figure.subplots(len(ERRORS), len(VARIANTS), sharex=True, sharey=True)
    norm = LogNorm(0.05, 50)
    b1, b2 = grid()
    for row, error in zip(panels, ERRORS, strict=True):
        for axes, variant in zip(row, VARIANTS, strict=True):
            loss = mean_field_loss(b1[:, None], b2, error=error, classes=CLASSES, variant=variant)
            shown = surface(axes, loss, norm, LEVELS)
        row[0].set_ylabel(f"e = {error:g}\nβ✗")
    for axes, variant in zip(panels[0], VARIANTS, strict=True):
        axes.set_title(TITLES[variant])
    for axes in panels[-1]:
        axes.set_xlabel("β✓")
    figure.subplots_adjust(left=0.07, right=0.9, top=0.96, bottom=0.15, hspace=0.08, wspace=0.06)
    bar = figure.add_axes((0.92, 0.15, 0.015, 0.81))
    figure.colorbar(shown, cax=bar, label="loss (nats)", extend="both")
    style.caption(figure, CAPTION, 165)
    return figure


if __name__ == "__main__":
    sys.exit(style.main("figureC2", make, sys.argv[1:]))
