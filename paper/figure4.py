"""Figure 4: fixing the k largest logits, shown on an image, and what it leaves of robustness."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from logit_distributions import manipulations, recipes
from logit_distributions.read import distribution
from paper import selection, style, tables

SHOWN_K = 3
SHOWN_CLASS = "frog"
MANIPULATIONS = {"permute": (style.ORANGE, "o"), "average": (style.PURPLE, "s")}
UNMODIFIED_K = 9
"""From here on neither manipulation changes ten logits."""


def name(k: int, how: str) -> str:
    """Return the recipe of a student of fix-k."""
    return f"fix-{k}-{how}"


def make() -> Figure:
    """Return the figure."""
    names = [name(k, how) for k in sorted(recipes.SWEPT_K) for how in MANIPULATIONS]
    runs = selection.select("logits", ("at", "normal"), optional=lambda scale: names, paired=False)
    accuracies, about = selection.sweep(runs)
    teacher = runs["at"][0]
    pictures = selection.pictures()
    image = example(teacher, len(pictures))
    figure = style.canvas(7.2, 5.0, _text(runs, accuracies, about, image, teacher))
    parts = figure.subfigures(2, 1, height_ratios=[1, 1.25])
    above, below = np.asarray(parts).tolist()
    _manipulations(above, teacher, pictures, image)
    axes = below.subplots()
    _sweep(axes, runs, accuracies)
    style.panel(axes, "B", "robustness of students taught from k unmodified logits")
    return figure


def example(teacher: xr.Dataset, count: int) -> int:
    """Return the first image of `SHOWN_CLASS`, of `count`, that the teacher gets right."""
    labels = teacher["label"].values
    shown = list(teacher["class"].values).index(SHOWN_CLASS)
    hits = distribution.is_correct(teacher["logits"].values, labels)
    return int(np.flatnonzero((hits & (labels == shown))[:count])[0])


def _manipulations(
    figure: SubFigure, teacher: xr.Dataset, pictures: NDArray[np.uint8], image: int
) -> None:
    logits = teacher["logits"].values[[image]]
    forms = {
        "teacher's logits": logits,
        f"permute, k = {SHOWN_K}": manipulations.permute(logits, SHOWN_K, seed=0),
        f"average, k = {SHOWN_K}": manipulations.average(logits, SHOWN_K),
    }
    fixed = manipulations.ranking(logits)[0, :SHOWN_K]
    label = int(teacher["label"].values[image])
    panels = figure.subplots(1, 4, width_ratios=[0.8, 1, 1, 1])
    panels[0].imshow(pictures[image].transpose(1, 2, 0))
    panels[0].set_axis_off()
    style.panel(panels[0], "A", SHOWN_CLASS)
    classes = teacher["class"].values
    limit = float(np.abs(logits).max()) * 1.1
    for axes, (title, values) in zip(panels[1:], forms.items(), strict=True):
        manipulated = ~np.isin(np.arange(len(classes)), fixed) & (values is not logits)
        colours = np.where(manipulated, style.ORANGE, "#bbbbbb").tolist()
        colours[label] = style.BLUE
        axes.bar(range(len(classes)), values[0], color=colours)
        axes.axhline(0, color="#888888", linewidth=0.6)
        axes.set_title(title, loc="left")
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.tick_params(axis="x", length=0)
        axes.set(ylim=(-limit, limit))
        if axes is not panels[1]:
            axes.set_yticklabels([])
    panels[1].set_ylabel("logit")


def _sweep(axes: Any, runs: selection.Selection, accuracies: dict[str, selection.Accuracy]) -> None:
    normal = accuracies["normal"]
    low, high = normal.interval("adversarial")
    axes.axhspan(low, high, color="#eeeeee", zorder=0)
    axes.axhline(normal.adversarial, color="#888888", linewidth=0.8, zorder=0)
    for number, (how, (colour, marker)) in enumerate(MANIPULATIONS.items()):
        points = {
            k: accuracies[name(k, how)] for k in recipes.SWEPT_K if name(k, how) in accuracies
        }
        points[UNMODIFIED_K] = normal
        k = np.array(sorted(points))
        errorbars(
            axes, k + 0.1 * (number - 0.5), [points[i] for i in k], "adversarial", colour, marker
        )
        for i, point in points.items():
            for data in runs.by_name.get(name(i, how), runs["normal"]):
                resists = data["robust"].values[-1, : point.images]
                aside = 0.3 * (number - 0.5)
                axes.plot(i + aside, 100 * resists.mean(), marker, color=colour, markersize=2)
        axes.text(
            0.99, 0.08 + 0.11 * number, how, color=colour, weight="bold", ha="right",
            transform=axes.transAxes,
        )  # fmt: skip
    axes.set_xticks(range(1, UNMODIFIED_K + 1), [*map(str, range(1, UNMODIFIED_K)), "9\nnormal"])
    axes.set(xlabel="k, largest logits left as they are", ylabel="adversarial accuracy (%)")
    axes.set(ylim=(0, None), xlim=(0.6, UNMODIFIED_K + 0.4))
    share = axes.secondary_yaxis(
        "right",
        functions=(lambda y: 100 * y / normal.adversarial, lambda y: y * normal.adversarial / 100),
    )
    share.set_ylabel("of the normal student's (%)")
    share.spines["right"].set_visible(True)


def errorbars(
    axes: Any,
    x: NDArray[np.floating],
    points: list[selection.Accuracy],
    kind: str,
    colour: str,
    marker: str = "o",
    line: str = "-",
) -> None:
    """Draw accuracies with their intervals, joined by a line."""
    y = np.array([getattr(point, kind) for point in points])
    low, high = np.array([point.interval(kind) for point in points]).T
    axes.errorbar(
        x, y, (y - low, high - y), color=colour, marker=marker, linestyle=line, markersize=4,
        linewidth=1.3, elinewidth=0.9, capsize=2,
    )  # fmt: skip


def _noise(runs: selection.Selection) -> str:
    """Return a sentence on how much trainings of the same student differ, if several are stored."""
    spreads = [
        f"{100 * distribution.mean_and_sd(robust)[1]:.1f} points for {each} ({len(robust)} seeds)"
        for each, datasets in runs.by_name.items()
        if each not in recipes.TEACHERS
        and len(robust := np.array([d["robust"].values[-1].mean() for d in datasets])) > 1
    ]
    return f"Sd over all stored trainings: {', '.join(spreads)}." if spreads else ""


def _paper_at_1() -> str:
    """Return what the paper's fix-1 keeps, by each of the two numbers that it prints."""
    rows = tables.reported("table2")
    normal = rows["normal"]["adversarial"][0]
    printed: list[float] = [
        tables.reported("text")["fix-1"]["adversarial"],
        rows["fix-1-permute"]["adversarial"][0],
    ]
    kept = " or ".join(f"{100 * each / normal:.0f}" for each in printed)
    return f"{kept} %: it prints {' and '.join(f'{each:g}' for each in printed)}"


def _falls(accuracies: dict[str, selection.Accuracy]) -> str:
    """Return from which k to the next robustness falls, which the paper's does not up to 7."""
    falls = []
    for how in MANIPULATIONS:
        stored = [k for k in sorted(recipes.SWEPT_K) if k <= 7 and name(k, how) in accuracies]
        for k, following in pairwise(stored):
            before, after = accuracies[name(k, how)], accuracies[name(following, how)]
            fall = before.adversarial - after.adversarial
            if fall > 0:
                z = f", z = {_z(before.robust, after.robust):.1f}"
                falls.append(f"k = {k} to {following} by {fall:.1f} points ({how}{z})")
    if not falls:
        return ""
    return (
        f"It falls from {'; '.join(falls)} (z: paired by image, without the noise of trainings; "
        "paper: it rises up to 7)."
    )


def _z(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Return the fall of a mean over images in standard errors of the paired difference."""
    fall = before - after
    return float(fall.mean() / (fall.std(ddof=1) / len(fall) ** 0.5))


def _text(
    runs: selection.Selection,
    accuracies: dict[str, selection.Accuracy],
    about: str,
    image: int,
    teacher: xr.Dataset,
) -> str:
    normal = accuracies["normal"].adversarial
    paper = {1: _paper_at_1(), 3: "almost 80 %", 7: "at least 99 %"}
    kept = "; ".join(
        f"k = {k}: {', '.join(parts)} (paper: {said})"
        for k, said in paper.items()
        if (
            parts := [
                f"{how} {100 * accuracies[name(k, how)].adversarial / normal:.0f} %"
                for how in MANIPULATIONS
                if name(k, how) in accuracies
            ]
        )
    )
    return f"""
        Figure 4. (A) Test image {int(teacher["index"].values[image])}, the logits of AT (seed
        {teacher.attrs["seed"]}, {selection.evaluated_epochs([teacher])}) and two manipulations of
        them; blue: true class, orange: changed. (B) Accuracy under APGD-CE, then APGD-DLR (Linf
        8/255), of students taught from the logits that AT gives the training images, all but the k
        largest permuted or averaged; k = 9 changes nothing and is the normal student,
        {normal:.1f} % (band: its interval); small points: every stored seed. Kept of its
        robustness at {kept}.
        {_falls(accuracies)} {about} {_noise(runs)} {style.ORIGIN}
    """


if __name__ == "__main__":
    sys.exit(style.main("figure4", make, sys.argv[1:]))
