"""Figure B.1: the distribution of the logit gap over the epochs of training."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from logit_distributions import recipes
from paper import selection, style
from paper.figure1 import ROW, common_edges, evolution, images_note, overfitting, ridges


def make() -> Figure:
    """Return the figure."""
    runs = selection.select("epochs", recipes.TEACHERS)
    shown = {
        "ST, training images": evolution(runs["st"], gap=True),
        "AT, training images": evolution(runs["at"], gap=True),
        "AT, test images": evolution(runs["at"], gap=True, test=True),
    }
    text = f"""
        Figure B.1. Gap between the two largest logits by epoch (rows), CIFAR-10: density averaged
        over seeds, tick: mean. {"; ".join(each.summary(name) for name, each in shown.items())}.
        Paper: ST and AT become very similar on the training set after epoch 100, AT stays skewed on
        the test set. {overfitting(runs)} {runs.about()} {images_note(runs, test=True)}
    """
    rows = max(len(each.epochs) for each in shown.values())
    figure = style.canvas(7.2, ROW * rows + 0.9, text)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    edges = common_edges(list(shown.values()), runs["at"][0].attrs["rounded_to"])
    for axes, letter, (name, each) in zip(panels, "ABC", shown.items(), strict=True):
        ridges(axes, each, edges, style.COLOURS[name[:2].lower()])
        style.panel(axes, letter, name)
        axes.set_xlabel("logit gap")
    panels[0].set_ylabel("epoch")
    return figure


if __name__ == "__main__":
    sys.exit(style.main("figureB1", make, sys.argv[1:]))
