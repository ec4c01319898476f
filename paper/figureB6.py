"""Figure B.6: Figure 3D for CIFAR-100."""

from __future__ import annotations

import sys

from matplotlib.figure import Figure

from logit_distributions import recipes
from paper import selection, style
from paper.figure3 import overlap_curves, overlap_of_pairs, overlap_text


def make() -> Figure:
    """Return the figure."""
    runs = selection.select("logits", recipes.TEACHERS, "cifar100")
    overlaps = overlap_of_pairs(runs, selection.labels_of(runs["st"] + runs["at"]))
    classes = runs["st"][0].sizes["class"]
    text = f"""
        Figure B.6. Average overlap of the class rankings of pairs of networks on CIFAR-100, solid
        for the same image, dashed for a random other of its class; AO@9:
        {overlap_text(overlaps, 9)}, AO@{classes}: {overlap_text(overlaps, classes)}. Paper: ST
        networks overlap more below k = 10, AT networks above. Mean ± sd over pairs. {runs.about()}
        {runs["at"][0].sizes["sample"]:,} test images; AT of
        {selection.evaluated_epochs(runs["at"])}, ST of {selection.evaluated_epochs(runs["st"])}.
    """
    figure = style.canvas(4.6, 3.2, text)
    overlap_curves(figure.subplots(), overlaps)
    return figure


if __name__ == "__main__":
    sys.exit(style.main("figureB6", make, sys.argv[1:]))
