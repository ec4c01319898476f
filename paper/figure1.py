"""Figure 1: the distribution of the largest logit over the epochs of training."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes
from logit_distributions.read import distribution
from paper import networks, selection, style

ROW = 0.62
"""Height of an epoch's row, inches."""

PAPER = {
    "cifar10": (
        "Paper: ST quickly shifts to a symmetric distribution of high mean, AT stays positively "
        "skewed with a low mean until very late."
    ),
    "cifar100": (
        "Paper: ST is less skewed and of a significantly larger mean, AT more positively skewed "
        "until very late; ST is less symmetric than on CIFAR-10, and both means are larger."
    ),
}


@dataclass(frozen=True)
class Evolution:
    """A statistic of the logits by epoch, for every seed of a network.

    Attributes
    ----------
    epochs : list of int or str
        Those that every seed has; of a network that was recorded once, what stands for it.
    values : list of ndarray, shape (epochs, n)
        One per seed.
    """

    epochs: list[int] | list[str]
    values: list[NDArray[np.floating]]

    def moments(self, row: int) -> tuple[float, float]:
        """Return mean and skewness after an epoch, averaged over seeds."""
        return (
            float(np.mean([values[row].mean() for values in self.values])),
            float(np.mean([distribution.skewness(values[row]) for values in self.values])),
        )

    def summary(self, name: str) -> str:
        """Return a clause on how mean and skewness change from the first to the last epoch."""
        (mean, skew), (last_mean, last_skew) = self.moments(0), self.moments(-1)
        if len(self.epochs) == 1:
            return f"{name}: mean {mean:.2f}, skewness {skew:+.2f}"
        return (
            f"{name}: mean {mean:.2f} to {last_mean:.2f}, skewness {skew:+.2f} to {last_skew:+.2f}"
        )


def evolution(datasets: Sequence[xr.Dataset], gap: bool = False, test: bool = False) -> Evolution:
    """Return the largest logit, or the logit gap, of training or test images by epoch."""
    epochs = sorted(set.intersection(*(set(each["epoch"].values.tolist()) for each in datasets)))
    values = []
    for each in datasets:
        some = each.sel(epoch=epochs).isel(sample=each["test"].values == test)
        value = some["largest"] - some["second"] if gap else some["largest"]
        values.append(value.values)
    return Evolution(epochs, values)


def ridges(axes: Any, shown: Evolution, edges: NDArray[np.floating], colour: str) -> None:
    """Draw one density per epoch below the other, with its mean, and skewness at the right."""
    density = np.mean(
        [
            [np.histogram(row, edges)[0] / row.size / np.diff(edges) for row in values]
            for values in shown.values
        ],
        axis=0,
    )
    height = 1.25 / density.max()
    middle = (edges[1:] + edges[:-1]) / 2
    for row, curve in enumerate(density):
        z = row + 1
        axes.fill_between(
            middle, -row, height * curve - row, color=colour, alpha=0.35, zorder=z, lw=0
        )
        axes.plot(middle, height * curve - row, color=colour, linewidth=1, zorder=z)
        axes.axhline(-row, color="#cccccc", linewidth=0.5, zorder=0)
        mean, skew = shown.moments(row)
        axes.plot([mean, mean], [-row, -row + 0.22], color="black", linewidth=1.2, zorder=z + 0.5)
        axes.text(
            0.995, -row + 0.22, f"mean {mean:.2f}\nskew {skew:+.2f}", fontsize=7.5, ha="right",
            va="bottom", transform=axes.get_yaxis_transform(), zorder=90, linespacing=1.1,
        )  # fmt: skip
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0.85 - len(density), 1.3))
    axes.set_yticks(-np.arange(len(density)), [f"{epoch}" for epoch in shown.epochs])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def common_edges(
    shown: Sequence[Evolution], rounding: float | None, count: int = 90
) -> NDArray[np.float64]:
    """Return the edges of bins that hold all but the most extreme 0.05 % on either side.

    A whole number of roundings wide; of values that are not rounded, as it comes.
    """
    every = [values for each in shown for values in each.values]
    low = min(float(np.quantile(values, 0.0005)) for values in every)
    high = max(float(np.quantile(values, 0.9995)) for values in every)
    if rounding is None:
        rounding = max(high - low, 1e-6) / (8 * count)
    return style.edges_between(low, high, count, rounding)


def overfitting(runs: selection.Selection) -> str:
    """Return how far AT overfits at the end, which is what the paper's late epochs show.

    Nothing for networks of the paper's width and schedule.
    """
    if runs.is_of_the_paper:
        return ""
    train, test = (
        evolution(runs["at"], gap=True, test=of_test).moments(-1)[0] for of_test in (False, True)
    )
    return (
        f"The rate fell to its end within these {runs.epochs} epochs too; at the end AT's mean gap "
        f"on training images is {train / test:.2f} times that on test images (paper: late AT has "
        "large gaps on the training images only, becomes symmetric there, and its students lose "
        "their robustness)."
    )


def images_note(runs: selection.Selection, test: bool = False) -> str:
    """Return a sentence on the images and the rounding behind the records by epoch."""
    each = runs["at"][0]
    count = int(each["test"].values.sum())
    tests = f"; {count:,} test images" if test else ""
    return (
        f"{each.sizes['sample'] - count:,} training images drawn at random, the same for every "
        f"network{tests}; natural, without augmentation; logits rounded to "
        f"1/{1 / each.attrs['rounded_to']:g}."
    )


def make(artefact: str = "figure1", dataset: str = "cifar10") -> Figure:
    """Return the figure; figure B.4 is the same for CIFAR-100."""
    runs = selection.select("epochs", recipes.TEACHERS, dataset)
    shown = {name: evolution(runs[name]) for name in ("st", "at")}
    text = f"""
        {style.printed(artefact)}. Largest logit of {style.printed(dataset)} training images by
        epoch (rows): density averaged over seeds, tick: mean. {shown["st"].summary("ST")};
        {shown["at"].summary("AT")}. {PAPER[dataset]} {overfitting(runs)} {runs.about()}
        {images_note(runs)}
    """
    rows = max(len(each.epochs) for each in shown.values())
    figure = style.canvas(7.2, ROW * rows + 0.9, text)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    edges = common_edges(list(shown.values()), runs["at"][0].attrs["rounded_to"])
    for axes, letter, name, title in zip(
        panels, "AB", shown, ("standard training", "adversarial training"), strict=True
    ):
        ridges(axes, shown[name], edges, style.COLOURS[name])
        style.panel(axes, letter, title)
        axes.set_xlabel("largest logit")
    panels[0].set_ylabel("epoch")
    return figure


def of_files(paths: Sequence[str]) -> Figure:
    """Return the figure of any networks: by epoch where that is recorded, else as they are."""
    shown = networks.of_files(paths, ("epochs", "logits"))
    evolutions = {label: _evolution(datasets) for label, datasets in shown.items()}
    text = f"""
        Largest logit of natural images: by epoch (rows) of training images where epochs are
        recorded, else as evaluated. Density averaged over seeds, tick: mean.
        {"; ".join(each.summary(label) for label, each in evolutions.items())}.
        {networks.about(shown)} As Figure 1 of the paper.
    """
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    rows = max(len(each.epochs) for each in evolutions.values())
    figure = style.canvas(max(4.8, 2.6 * columns), (ROW * rows + 1.0) * lines, text)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True)
    fewest = min(values.shape[1] for each in evolutions.values() for values in each.values)
    edges = common_edges(list(evolutions.values()), None, int(np.clip(fewest**0.5, 20, 90)))
    colours = networks.colours(shown)
    for axes, letter, (label, each) in zip(
        panels.flat, "ABCDEFGH", evolutions.items(), strict=False
    ):
        ridges(axes, each, edges, colours[label])
        style.panel(axes, letter, label)
        axes.set_xlabel("largest logit")
        axes.tick_params(labelbottom=True)
        axes.set_ylim(0.85 - rows, 1.3)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    return figure


def _evolution(datasets: Sequence[xr.Dataset]) -> Evolution:
    if datasets[0].attrs["kind"] == "epochs":
        return evolution(datasets)
    return Evolution(
        [""], [distribution.max_logit(each["logits"].values)[None] for each in datasets]
    )


if __name__ == "__main__":
    sys.exit(style.main("figure1", make, sys.argv[1:], of_files))
