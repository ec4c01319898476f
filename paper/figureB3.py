"""Figure B.3: nearest images by cosine similarity of logits, and how similar they look."""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes
from logit_distributions.read import pictures, ranking
from paper import selection, style

CLASSES = ("airplane", "automobile", "deer", "frog", "ship")
COUNT = 5
"""Neighbours of each image."""


def make() -> Figure:
    """Return the figure."""
    runs = selection.select("logits", recipes.TEACHERS)
    labels = selection.labels_of(runs["st"] + runs["at"])
    sheet = selection.pictures()
    pool = len(sheet)
    labels = labels[:pool]
    seeds = _seeds([runs["st"][0], runs["at"][0]], labels)
    everyone = np.arange(pool)
    measured = {
        name: np.array(
            [
                similarity(sheet, labels, ranking.nearest(_logits(each, pool), everyone, COUNT))
                for each in runs[name]
            ]
        )
        for name in ("st", "at")
    }
    figure = style.canvas(7.2, 3.35, _text(runs, measured, sheet, labels))
    axes = figure.subplots()
    begins = {"st": 1.5, "at": 1.5 + 1.1 * COUNT + 0.4}
    for row, seed in enumerate(seeds):
        style.tile(axes, sheet[seed], 0, 1.1 * row)
        for name, x in begins.items():
            logits = _logits(runs[name][0], pool)
            (neighbours,) = ranking.nearest(logits, np.array([seed]), COUNT)
            for column, neighbour in enumerate(neighbours):
                other = labels[neighbour] != labels[seed]
                style.tile(axes, sheet[neighbour], x + 1.1 * column, 1.1 * row, framed=other)
    axes.text(0, 0.12, "seed", va="bottom")
    for name, x in begins.items():
        text = f"nearest in {selection.label(name)}"
        axes.text(x, 0.12, text, va="bottom", color=style.COLOURS[name], weight="bold")
    style.album(axes, begins["at"] + 1.1 * COUNT - 0.1, 1.1 * len(seeds) - 0.1)
    return figure


def _logits(dataset: xr.Dataset, count: int) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = dataset["logits"].values[:count]
    return logits


def _seeds(networks: list[xr.Dataset], labels: NDArray[np.int64]) -> list[int]:
    """Return the first image of each class of `CLASSES` that all networks get right."""
    right = np.all([_logits(n, len(labels)).argmax(1) == labels for n in networks], axis=0)
    names = list(networks[0]["class"].values)
    numbers = [names.index(name) for name in CLASSES]
    return [int(np.flatnonzero(right & (labels == number))[0]) for number in numbers]


def similarity(
    sheet: NDArray[np.uint8], labels: NDArray[np.int64], others: NDArray[np.intp]
) -> tuple[float, float, float]:
    """Return mean colour distance, shape distance and share of the same class of pairs of images.

    Each image with all in its row of `others`.
    """
    apart = []
    for describe, distance in (pictures.COMPARED[by] for by in ("colour", "shape")):
        looks = describe(sheet)
        apart.append(float(distance(looks[:, None], looks[others]).mean()))
    return apart[0], apart[1], float((labels[others] == labels[:, None]).mean())


def _text(
    runs: selection.Selection,
    measured: dict[str, NDArray[np.float64]],
    sheet: NDArray[np.uint8],
    labels: NDArray[np.int64],
) -> str:
    count = len(sheet)
    order = ranking.deranged_within(np.zeros(count, int), 0)
    chance = similarity(sheet, labels, order[:, None])
    means = {name: values.mean(0) for name, values in measured.items()}
    at, st = means["at"], means["st"]
    return f"""
        Figure B.3. For five images, the {COUNT} most similar by cosine of the logits in ST and AT
        of the first seed; framed: of another class. Seed images: the first of their class that both
        networks get right; pool: the first {count:,} test images. With each of the {count:,} as the
        seed (mean over networks): distance of mean colours AT {at[0]:.3f}, ST {st[0]:.3f}, random
        pairs {chance[0]:.3f}; shape distance (1 - correlation of 8 x 8 edge maps) AT {at[1]:.3f},
        ST {st[1]:.3f}, random {chance[1]:.3f}; neighbours of the same class AT {100 * at[2]:.0f} %,
        ST {100 * st[2]:.0f} %, random {100 * chance[2]:.0f} % (paper: AT favours similar colours
        and shapes at the expense of the class). {runs.about()} AT of
        {selection.evaluated_epochs(runs["at"])}, ST of {selection.evaluated_epochs(runs["st"])}.
        {style.ORIGIN}
    """


if __name__ == "__main__":
    sys.exit(style.main("figureB3", make, sys.argv[1:]))
