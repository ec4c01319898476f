"""Figure B.2: images of one class by how confident either network is of them."""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes
from logit_distributions.read import distribution, pictures, ranking
from paper import selection, style
from paper.figure3 import CLASS

ROWS, COLUMNS = 3, 5
CORNERS = {
    "A": ("ST confident, AT not", 0, 1),
    "B": ("both confident", 1, 1),
    "C": ("neither confident", 0, 0),
    "D": ("AT confident, ST not", 1, 0),
}
"""Title, and the corner of the plane of ranks in AT and ST, by panel."""


def make() -> Figure:
    """Return the figure."""
    runs = selection.select("logits", recipes.TEACHERS)
    labels = selection.labels_of(runs["st"] + runs["at"])
    sheet = selection.pictures()
    members = np.flatnonzero(labels == list(runs["at"][0]["class"].values).index(CLASS))
    confidence = {
        name: [distribution.log_confidence(each["logits"].values[members]) for each in runs[name]]
        for name in ("st", "at")
    }
    ranks = {name: distribution.relative_ranks(each[0]) for name, each in confidence.items()}
    pool = members < len(sheet)
    shown = members[pool]
    at, st = ranks["at"][pool], ranks["st"][pool]
    plain = -pictures.background_variation(sheet[shown])
    within = {name: _within_classes(runs[name], labels, sheet) for name in ("st", "at")}
    text = _text(runs, confidence, within, pool, plain, at, st, len(sheet))
    figure = style.canvas(7.2, 5.4, f"{text} {style.ORIGIN}")
    for axes, (letter, (title, x, y)) in zip(
        figure.subplots(2, 2).flat, CORNERS.items(), strict=True
    ):
        inside = np.flatnonzero(quadrant(at, st, x, y))
        order = inside[np.argsort(np.abs(at - x)[inside] + np.abs(st - y)[inside], kind="stable")]
        for place, chosen in enumerate(order[: ROWS * COLUMNS]):
            row, column = divmod(place, COLUMNS)
            ranked = f"{100 * at[chosen]:.0f} | {100 * st[chosen]:.0f}"
            style.tile(axes, sheet[shown[chosen]], 1.15 * column, 1.3 * row, ranked)
        style.album(axes, 1.15 * COLUMNS - 0.15, 1.3 * ROWS - 0.3)
        style.panel(axes, letter, title)
    return figure


def quadrant(at: NDArray[np.float64], st: NDArray[np.float64], x: int, y: int) -> NDArray[np.bool_]:
    """Return which ranks lie in the quadrant of a corner."""
    inside: NDArray[np.bool_] = ((at > 0.5) == bool(x)) & ((st > 0.5) == bool(y))
    return inside


def _within_classes(
    datasets: list[xr.Dataset], labels: NDArray[np.int64], sheet: NDArray[np.uint8]
) -> float:
    """Return the rank correlation of confidence with plainness, mean over classes and seeds."""
    plain, labels = -pictures.background_variation(sheet), labels[: len(sheet)]
    return float(
        np.mean(
            [
                ranking.rank_correlation(confidence[labels == label], plain[labels == label])
                for each in datasets
                for confidence in [distribution.log_confidence(each["logits"].values[: len(sheet)])]
                for label in np.unique(labels)
            ]
        )
    )


def _text(
    runs: selection.Selection,
    confidence: dict[str, list[NDArray[np.float64]]],
    within: dict[str, float],
    pool: NDArray[np.bool_],
    plain: NDArray[np.float64],
    at: NDArray[np.float64],
    st: NDArray[np.float64],
    sheet: int,
) -> str:
    correlations = {
        name: np.mean([ranking.rank_correlation(values[pool], plain) for values in each])
        for name, each in confidence.items()
    }
    share = {letter: int(quadrant(at, st, x, y).sum()) for letter, (_, x, y) in CORNERS.items()}
    counts = ", ".join(f"{letter} {count}" for letter, count in share.items())
    return f"""
        Figure B.2. The {CLASS}s nearest to the corners of the four quadrants of Figure 3A; above
        each, its rank in AT | ST in percent (100: the most confident). Ranks are among all
        {len(pool):,} {CLASS}s of the test set, images from the {int(pool.sum())} among the first
        {sheet:,} test images, of which the quadrants hold {counts}. The paper sees AT confident
        of plain backgrounds, ST of a more diverse set. Measured: the rank correlation of confidence
        with plainness (minus the standard deviation of colour in the outer 4 pixels) is
        {correlations["at"]:+.2f} for AT and {correlations["st"]:+.2f} for ST, mean over seeds, over
        these {int(pool.sum())} {CLASS}s (standard error about {1 / np.sqrt(pool.sum() - 1):.2f}),
        and {within["at"]:+.2f} and {within["st"]:+.2f} within all {len(runs["at"][0]["class"])}
        classes (about {1 / np.sqrt(sheet - 1):.2f}).
        Ranks of the first seed. {runs.about()} AT of
        {selection.evaluated_epochs(runs["at"])}, ST of {selection.evaluated_epochs(runs["st"])}.
    """


if __name__ == "__main__":
    sys.exit(style.main("figureB2", make, sys.argv[1:]))
