"""Controls: students that the paper does not have, and the 2 × 2 of errors and rest."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from logit_distributions import choice, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import distribution
from paper import selection, style, tables
from paper.beyond.questions import command
from paper.claims import terms

CELLS = ("normal", "correct", "fix-1-permute", "correct-fix-1")
"""Of the 2 × 2: rest kept, then permuted; in each, errors kept, then corrected."""

COSTS = {
    "correcting errors": (("normal", "correct"), ("fix-1-permute", "correct-fix-1")),
    "permuting the rest": (("normal", "fix-1-permute"), ("correct", "correct-fix-1")),
}
INTERACTION = '({0}("correct") - {0}("correct-fix-1")) - ({0}("normal") - {0}("fix-1-permute"))'

TARGETS = {
    "st": "labels",
    "at": "labels, adversarial images",
    "normal": "AT's logits",
    "correct": "errors corrected",
    "fix-1-permute": "rest permuted",
    "correct-fix-1": "errors corrected, rest permuted",
    "random-errors": "errors towards random classes",
    "drop-errors": "images with errors left out",
    "hybrid": "AT's values on ST's ranking",
    "hybrid-reversed": "ST's values on AT's ranking",
}

CHANGES = (
    ("at", "normal"), ("normal", "correct"), ("normal", "fix-1-permute"),
    ("correct", "correct-fix-1"), ("fix-1-permute", "correct-fix-1"),
    ("normal", "random-errors"), ("normal", "drop-errors"), ("normal", "hybrid"),
    ("normal", "hybrid-reversed"),
)  # fmt: skip
"""Arrows of the figure, between networks that differ in one thing."""

COLOURS = {"st": style.BLUE, "at": style.ORANGE}


def targets(name: str) -> str:
    """Return what a network was trained towards, in words."""
    regularizer = _regularizer(name)
    if regularizer is None:
        return TARGETS[name]
    strength = name.removeprefix(f"{regularizer}-")
    return f"labels; {regularizer.replace('-', ' ')}, strength {strength}"


def _regularizer(name: str) -> str | None:
    return next((each for each in recipes.REGULARIZERS if name.startswith(f"{each}-")), None)


def networks() -> selection.Selection:
    """Return the networks of Table 2, the controls and the chosen regularizers of one scale.

    The scale has most of the controls, of equal ones it is the preferred.

    Raises
    ------
    Missing
        If the normal student is stored at none.
    """
    names = {scale: _names(scale) for scale in selection.scales()}
    by_scale = {}
    for scale in names:
        stored = {name: store.find("logits", name, scale=scale) for name in names[scale]}
        if stored["normal"]:
            by_scale[scale] = {name: some for name, some in stored.items() if some}
    if not by_scale:
        store.need("logits", "normal", scale=selection.scales()[-1])
    scale = max(by_scale, key=lambda each: len(by_scale[each].keys() - {*recipes.TABLE2}))
    absent = tuple(name for name in names[scale] if name not in by_scale[scale])
    return selection.Selection(scale, by_scale[scale], absent)


def _names(scale: str) -> tuple[str, ...]:
    """Return what is shown; a regularizer without its strength until that is chosen."""
    chosen = {_regularizer(name): name for name in choice.regularizers(scale)}
    regularizers = [chosen.get(name, name) for name in recipes.REGULARIZERS]
    return (*recipes.TABLE2, *recipes.CONTROLS, *regularizers)


def table() -> tables.Table:
    """Return accuracies of every control, and of the 2 × 2 both main effects and interaction."""
    runs = networks()
    rows: list[tuple[str, ...]] = []
    for name in (*TARGETS, *choice.regularizers(runs.scale)):
        if name in runs.by_name:
            ours = tables.accuracies(name, runs[name])
            rows.append(
                (
                    selection.label(name),
                    targets(name),
                    ", ".join(map(str, ours.seeds)),
                    tables.in_percent(ours.natural),
                    tables.interval(ours.natural, ours.samples),
                    tables.in_percent(ours.adversarial),
                    tables.interval(ours.adversarial, ours.samples),
                )
            )
    notes = [tables.method_note(), f"{runs.setting()}.", *_choices(runs.scale)]
    try:
        rows += _effects(runs.scale, notes)
    except (store.Missing, terms.Unsuitable) as error:
        notes.append(f"The 2 × 2 waits: {error}.")
    if runs.absent:
        notes.append(f"Not stored yet: {', '.join(runs.absent)}; make them with '{command()}'.")
    header = (
        "network", "trained towards", "seeds", "natural", "95 % interval", "adversarial",
        "95 % interval",
    )  # fmt: skip
    return tables.Table("beyond.controls", header, rows, notes)


def _choices(scale: str) -> Iterator[str]:
    """Yield a sentence on each regularizer: what its strength was chosen by."""
    for regularizer in recipes.REGULARIZERS:
        with contextlib.suppress(store.Missing):
            tried = ", ".join(
                f"{name.removeprefix(regularizer + '-')}: {robust:.1%} ({natural:.1%})"
                for name, (robust, natural) in choice.validated(regularizer, scale).items()
            )
            yield (
                f"Strengths of {regularizer.replace('-', ' ')}, by accuracy under PGD (natural) on "
                f"validation images, seed 0: {tried}; the largest is chosen, then attacked."
            )


def _effects(scale: str, notes: list[str]) -> list[tuple[str, ...]]:
    """Return rows of what correcting and permuting cost, and say where their noise comes from."""
    formulas = {
        f"cost of {name}": "average([{}])".format(
            ", ".join(f'{{0}}("{before}") - {{0}}("{after}")' for before, after in pairs)
        )
        for name, pairs in COSTS.items()
    }
    formulas["interaction"] = INTERACTION
    rows = []
    for name, formula in formulas.items():
        cells = []
        for kind in ("natural", "robust"):
            effect = terms.evaluate(formula.format(kind), "cifar10", scale)
            both = terms.evaluate(f"retrained({formula.format(kind)})", "cifar10", scale)
            low, high = both.interval
            cells += [f"{effect.mean:+.2f}", f"[{low:+.2f}, {high:+.2f}]"]
            notes.append(f"{name.capitalize()}, {kind}: {_noise(effect)}.")
        rows.append((name, "points", ", ".join(map(str, effect.seeds)), *cells))
    notes.append(
        "Costs are averaged over both levels of the other factor; the interaction is the cost of "
        "permuting after correcting minus that before. Their intervals hold both kinds of noise."
    )
    return rows


def _noise(effect: terms.Estimate) -> str:
    """Return the standard errors of an effect from the sample of images and from trainings."""
    draws = np.mean(list(effect.units.values()), 0)[1:]
    values = np.array(list(effect.values.values()))
    if len(values) < 2:
        return f"one seed; standard error {draws.std():.2f}, another training of each included"
    trainings = values.std(ddof=1) / np.sqrt(len(values))
    return f"standard error {draws.std():.2f} from images, {trainings:.2f} from trainings"


def figure() -> Figure:
    """Return every network in the plane of natural and adversarial accuracy, and the 2 × 2."""
    runs = networks()
    complete = all(name in runs.by_name for name in CELLS)
    waits = f"Not stored yet: {', '.join(runs.absent)}." if runs.absent else ""
    second = (
        "B: the 2 × 2; thick: mean over the seeds that all four have, thin: each of them, bars: "
        "95 % Wilson intervals for the images. Without an interaction the lines are parallel."
        if complete
        else ""
    )
    drawing = style.canvas(
        7.2,
        3.6,
        f"""
        Controls. A: natural and adversarial accuracy of every network of CIFAR-10 at this scale;
        points: seeds; a name stands at their mean; arrows lead to the network in which one thing
        was changed; grey: students of sweeps, on their first images. {second} {runs.setting()};
        seeds as stored. Of a regularizer the strength that validation chooses under PGD. {waits}
        """,
    )
    if complete:
        plane, cells = drawing.subplots(1, 2, width_ratios=(2.2, 1))
        _interaction(cells, runs)
    else:
        plane = drawing.subplots()
    _write_names(plane, _plane(plane, runs))
    return drawing


def _plane(axes: Any, runs: selection.Selection) -> dict[str, NDArray[np.float64]]:
    """Draw every network and return the mean of each."""
    shown = {
        name: np.array([_accuracies(each) for each in some]) for name, some in runs.by_name.items()
    }
    others = [
        _accuracies(each)
        for each in store.find("logits", scale=runs.scale)
        if store.recipe_of(each)["name"] not in runs.by_name
    ]
    if others:
        axes.scatter(*np.array(others).T, color=style.GREY, s=9, alpha=0.4, lw=0, zorder=1)
    means = {name: points.mean(0) for name, points in shown.items()}
    for name, points in shown.items():
        axes.scatter(*points.T, color=_colour(name), s=20, alpha=0.85, lw=0, zorder=3)
    for before, after in (*CHANGES, *(("st", name) for name in shown if _regularizer(name))):
        if before in means and after in means:
            arrow = {"arrowstyle": "->", "color": style.GREY, "lw": 0.8, "shrinkA": 4, "shrinkB": 4}
            axes.annotate("", means[after], means[before], arrowprops=arrow, zorder=2)
    axes.set(xlabel="natural accuracy (%)", ylabel="adversarial accuracy (%)")
    axes.margins(0.2)
    style.panel(axes, "A", "what each change does")
    return means


def _colour(name: str) -> str:
    return COLOURS.get(name, style.PURPLE if _regularizer(name) else style.GREEN)


def _write_names(axes: Any, places: Mapping[str, NDArray[np.float64]]) -> None:
    """Write a name beside each point, where neither a name nor another point is."""
    axes.figure.draw_without_rendering()  # from here on the panel has its size
    panel = axes.get_window_extent()
    points = axes.transData.transform(list(places.values()))
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in points]
    for name, place in sorted(places.items(), key=lambda each: tuple(each[1])):
        text = axes.annotate(
            selection.label(name), place, (0, 0), color=_colour(name), textcoords="offset points",
            fontsize=7,
        )  # fmt: skip
        text.set_in_layout(False)
        for up, side in itertools.product((-2, 8, -12, -22, 18, 28), ("left", "right")):
            text.xyann = (6 if side == "left" else -6, up)
            text.set_horizontalalignment(side)
            box = text.get_window_extent()
            inside = box.x1 <= panel.x1 and box.y0 >= panel.y0
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _accuracies(data: xr.Dataset) -> tuple[float, float]:
    hits = data["logits"].values.argmax(1) == data["label"].values
    return 100 * float(hits.mean()), 100 * float(data["robust"].values[-1].mean())


def _interaction(axes: Any, runs: selection.Selection) -> None:
    seeds = sorted(selection.common_seeds({name: runs[name] for name in CELLS}))
    for names, words, colour in (
        (CELLS[:2], "rest kept", style.GREEN),
        (CELLS[2:], "rest permuted", style.PURPLE),
    ):
        cells = [
            tables.accuracies(name, [d for d in runs[name] if int(d.attrs["seed"]) in seeds])
            for name in names
        ]
        if not seeds:
            raise ReproError("the networks of the 2 × 2 have no seed in common")
        each = np.array([cell.adversarial for cell in cells])
        axes.plot((0, 1), each, color=colour, lw=0.6, alpha=0.6)
        means = each.mean(1)
        bounds = [
            distribution.wilson_interval(mean / 100, cell.samples)
            for mean, cell in zip(means, cells, strict=True)
        ]
        bars = np.abs(100 * np.array(bounds).T - means)
        axes.errorbar((0, 1), means, bars, color=colour, lw=2, capsize=3, label=words)
    axes.set_xticks((0, 1), ("errors kept", "corrected"))
    axes.set(xlim=(-0.3, 1.3), ylim=(0, None))
    axes.legend(fontsize=7)
    style.panel(axes, "B", "interaction")
