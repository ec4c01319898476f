"""Figure 3: on which images and classes standard and adversarially trained networks differ."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes
from logit_distributions.errors import ReproError
from logit_distributions.read import distribution, ranking
from paper import networks, selection, style

CLASS = "frog"
PAIRS = {"AT-AT": style.ORANGE, "ST-ST": style.BLUE, "AT-ST": style.PURPLE}


def make() -> Figure:
    """Return the figure."""
    runs = selection.select("logits", recipes.TEACHERS)
    everyone = runs["st"] + runs["at"]
    labels = selection.labels_of(everyone)
    confidence = np.array([distribution.log_confidence(each["logits"].values) for each in everyone])
    matrix = 100 * ranking.disagreement_matrix(confidence, labels)
    names = [selection.label(name) for name in ("st", "at") for _ in runs[name]]
    seeds = [int(each.attrs["seed"]) for each in everyone]
    errors = {name: _errors(runs[name], labels) for name in ("st", "at")}
    overlaps = overlap_of_pairs(runs, labels)
    frog = list(everyone[0]["class"].values).index(CLASS)
    ranks = [
        distribution.relative_ranks(confidence[row][labels == frog]) for row in (0, len(runs["st"]))
    ]
    far = 100 * float(np.mean(np.abs(ranks[0] - ranks[1]) > 0.5))
    text = _text(runs, matrix, names, far, errors, overlaps)
    figure = style.canvas(7.2, 6.0, text)
    ((a, b), (c, d)) = figure.subplots(2, 2)
    _scatter(a, ranks[0], ranks[1])
    style.panel(a, "A", f"confidence ranks of {len(ranks[0]):,} {CLASS}s")
    _matrix(b, matrix, [f"{name} {seed}" for name, seed in zip(names, seeds, strict=True)])
    style.panel(b, "B", "images ranked far apart (%)")
    _error_curves(c, errors, style.COLOURS)
    style.panel(c, "C", "errors by rank of the average logit")
    overlap_curves(d, overlaps)
    style.panel(d, "D", "average overlap of class rankings")
    return figure


MOST = 4
"""Networks whose pairs can be told apart by colour."""


def of_files(paths: Sequence[str]) -> Figure:
    """Return the figure of any two to four networks, on the images that they have in common."""
    shown = networks.of_files(paths, ("logits",))
    if not 2 <= len(shown) <= MOST:
        raise ReproError(
            f"compares networks: expected files of two to {MOST}, got {len(shown)}; seeds of one "
            "recipe are one network"
        )
    shown = networks.on_common_images(shown)
    everyone = [each for datasets in shown.values() for each in datasets]
    labels = everyone[0]["label"].values.astype(np.int64)
    numbered = {label: f"{i}" for i, label in enumerate(shown, start=1)}
    ticks = [
        numbered[label] + (f" ({each.attrs['seed']})" if len(datasets) > 1 else "")
        for label, datasets in shown.items()
        for each in datasets
    ]
    confidence = np.array([distribution.log_confidence(each["logits"].values) for each in everyone])
    overlaps = _overlaps(_pairs(shown, numbered), labels)
    members, name = _one_class(shown, labels)
    first, second = (
        distribution.relative_ranks(confidence[row][members])
        for row in (0, len(next(iter(shown.values()))))
    )
    errors = {label: _errors(datasets, labels) for label, datasets in shown.items()}
    keys = "; ".join(f"{number} is {label}" for label, number in numbered.items())
    text = f"""
        (A) Every image of class {name} ranked by its largest softmax value in networks 1 and 2; in
        colour, the {100 * np.mean(np.abs(first - second) > 0.5):.1f} % whose ranks differ by more
        than half of the largest possible difference. (B) That share for every pair (seed in
        brackets), mean of all classes; 25 % for unrelated rankings. (C) Wrong predictions by their
        rank in the true class's mean logit vector over correct answers; adversarial: errors that
        the attack adds, where it is known. (D) Average overlap of the class rankings, solid for the
        same image, dashed for a random other of its class; AO@2: {overlap_text(overlaps, 2)}.
        Mean ± sd over seeds (C) or pairs (D). {keys}. On the {len(labels):,} images that all have
        in common. {networks.about(shown)} As Figure 3 of the paper.
    """
    figure = style.canvas(7.2, 6.0, text)
    ((a, b), (c, d)) = figure.subplots(2, 2)
    _scatter(a, second, first, ("2", "1"))
    style.panel(a, "A", f"confidence ranks, class {name}")
    _matrix(b, 100 * ranking.disagreement_matrix(confidence, labels), ticks)
    style.panel(b, "B", "images ranked far apart (%)")
    _error_curves(c, {numbered[k]: v for k, v in errors.items()}, {
        numbered[label]: colour for label, colour in networks.colours(shown).items()
    })  # fmt: skip
    style.panel(c, "C", "errors by rank of the average logit")
    overlap_curves(d, overlaps, dict(zip(overlaps, mpl.colormaps["tab10"].colors, strict=False)))  # type: ignore[attr-defined]
    style.panel(d, "D", "average overlap of class rankings")
    return figure


def _pairs(
    shown: networks.Networks, numbered: Mapping[str, str]
) -> dict[str, list[tuple[xr.Dataset, xr.Dataset]]]:
    """Return every pair of datasets, by the numbers of the two networks that they are of."""
    return {
        f"{numbered[one]}-{numbered[two]}": list(
            itertools.combinations(shown[one], 2)
            if one == two
            else itertools.product(shown[one], shown[two])
        )
        for one, two in itertools.combinations_with_replacement(shown, 2)
    }


def _one_class(
    shown: networks.Networks, labels: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], str]:
    """Return which images are of the paper's class, else of the most frequent one, and its name."""
    named = [list(map(str, d["class"].values)) for some in shown.values() for d in some]
    names = next((each for each in named if CLASS in each), named[0])
    number = names.index(CLASS) if CLASS in names else int(np.bincount(labels).argmax())
    if (labels == number).sum() < 2:
        number = int(np.bincount(labels).argmax())
    return labels == number, names[number]


def _scatter(
    axes: Any,
    standard: NDArray[np.float64],
    adversarial: NDArray[np.float64],
    names: tuple[str, str] = ("ST", "AT"),
) -> None:
    difference = standard - adversarial
    for chosen, colour, size in (
        (np.abs(difference) <= 0.5, "#bbbbbb", 5),
        (difference > 0.5, style.BLUE, 9),
        (difference < -0.5, style.ORANGE, 9),
    ):
        axes.scatter(100 * adversarial[chosen], 100 * standard[chosen], s=size, color=colour, lw=0)
    first, second = names
    axes.plot([0, 50], [50, 100], color="#888888", linewidth=0.7, linestyle="--")
    axes.plot([50, 100], [0, 50], color="#888888", linewidth=0.7, linestyle="--")
    axes.text(0, 104, f"{first} far more confident", color=style.BLUE, fontsize=8)
    axes.text(
        100, -4, f"{second} far more confident", color=style.ORANGE, ha="right", va="top",
        fontsize=8,
    )  # fmt: skip
    axes.set(xlim=(-12, 112), ylim=(-12, 112), aspect="equal")
    axes.set(xticks=range(0, 101, 20), yticks=range(0, 101, 20))
    axes.set(xlabel=f"rank in {second} (%)", ylabel=f"rank in {first} (%)")


def _matrix(axes: Any, matrix: NDArray[np.float64], ticks: list[str]) -> None:
    hidden = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    axes.imshow(hidden, cmap="cividis_r", vmin=0, vmax=25)
    for i, j in itertools.permutations(range(len(matrix)), 2):
        colour = "white" if matrix[i, j] > 12 else "black"
        axes.text(j, i, f"{matrix[i, j]:.1f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
    axes.set_yticks(range(len(ticks)), ticks, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _errors(
    datasets: list[xr.Dataset], labels: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return errors by rank, natural ones and those that an attack adds; a row per seed."""
    natural, adversarial = [], []
    for each in datasets:
        logits = each["logits"].values
        means = ranking.mean_correct_logits(logits, labels)
        hits = distribution.is_correct(logits, labels)
        natural.append(100 * ranking.errors_by_rank(means, labels, logits.argmax(1)))
        if "adversarial_logits" in each:
            attacked = np.where(hits, each["adversarial_logits"].values.argmax(1), labels)
            adversarial.append(100 * ranking.errors_by_rank(means, labels, attacked))
    both = {"natural": natural, "adversarial": adversarial}
    return {kind: np.array(rows) for kind, rows in both.items() if rows}


def _error_curves(
    axes: Any,
    errors: Mapping[str, Mapping[str, NDArray[np.float64]]],
    colours: Mapping[str, str],
) -> None:
    for name, kinds in errors.items():
        for kind, line in (("natural", "-"), ("adversarial", "--")):
            if kind not in kinds:
                continue
            mean, spread = style.mean_and_spread(kinds[kind])
            k = np.arange(1, len(mean) + 1)
            axes.errorbar(
                k, mean, spread, color=colours[name], linestyle=line, marker="o",
                markersize=3, linewidth=1.3, markerfacecolor="white" if line == "--" else None,
                label=f"{selection.label(name)}, {kind}",
            )  # fmt: skip
    axes.legend(fontsize=8)
    axes.set(xlabel="rank k of the wrongly predicted class", ylabel="errors (%)", ylim=(0, None))
    axes.set_xticks(k)


def overlap_of_pairs(
    runs: selection.Selection, labels: NDArray[np.int64]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return AO@k in percent of every pair of networks, for the same image and for another one.

    A row per pair, averaged over images; keys as in `PAIRS`, empty where there is no pair.
    """
    return _overlaps(
        {
            "AT-AT": itertools.combinations(runs["at"], 2),
            "ST-ST": itertools.combinations(runs["st"], 2),
            "AT-ST": itertools.product(runs["at"], runs["st"]),
        },
        labels,
    )


def _overlaps(
    pairs: Mapping[str, Iterable[tuple[xr.Dataset, xr.Dataset]]], labels: NDArray[np.int64]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return the same of any pairs."""
    result = {}
    for name, both in pairs.items():
        same, permuted = [], []
        for one, two in both:
            first, second = one["logits"].values, two["logits"].values
            order = ranking.deranged_within(labels, seed=0)
            same.append(ranking.average_overlap(first, second).mean(0))
            permuted.append(ranking.average_overlap(first, second[order]).mean(0))
        result[name] = {"same": 100 * np.array(same), "permuted": 100 * np.array(permuted)}
    return {name: kinds for name, kinds in result.items() if len(kinds["same"])}


def overlap_curves(
    axes: Any,
    overlaps: dict[str, dict[str, NDArray[np.float64]]],
    colours: Mapping[str, Any] = PAIRS,
) -> None:
    """Draw AO@k, solid for the same image, dashed for another of its class."""
    for name, kinds in overlaps.items():
        for kind, line in (("same", "-"), ("permuted", "--")):
            mean, spread = style.mean_and_spread(kinds[kind])
            k = np.arange(1, len(mean) + 1)
            axes.fill_between(k, mean - spread, mean + spread, color=colours[name], alpha=0.2, lw=0)
            axes.plot(
                k, mean, color=colours[name], linestyle=line, linewidth=1.5,
                label=name if line == "-" else None,
            )  # fmt: skip
    axes.plot([], [], color="#555555", linestyle="--", label="another image\nof the class")
    axes.legend(fontsize=7, loc="lower right", ncols=2, handlelength=1.6)
    axes.set(xlabel="k", ylabel="AO@k (%)", ylim=(None, 101))
    if len(k) <= 10:
        axes.set_xticks(k)


def overlap_text(overlaps: dict[str, dict[str, NDArray[np.float64]]], k: int = 3) -> str:
    """Return a clause with AO@k of every kind of pair."""
    return ", ".join(
        f"{name} {kinds['same'].mean(0)[k - 1]:.1f} % ({kinds['permuted'].mean(0)[k - 1]:.1f} %)"
        for name, kinds in overlaps.items()
    )


def _text(
    runs: selection.Selection,
    matrix: NDArray[np.float64],
    names: list[str],
    far: float,
    errors: dict[str, dict[str, NDArray[np.float64]]],
    overlaps: dict[str, dict[str, NDArray[np.float64]]],
) -> str:
    kinds: dict[str, list[float]] = {}
    for i, j in itertools.combinations(range(len(names)), 2):
        kinds.setdefault("-".join(sorted((names[i], names[j]))), []).append(matrix[i, j])
    between = ", ".join(f"{name} {np.mean(values):.1f} %" for name, values in kinds.items())
    second = ", ".join(
        f"{selection.label(name)} {kinds['natural'].mean(0)[1]:.0f} % natural and "
        f"{kinds['adversarial'].mean(0)[1]:.0f} % adversarial"
        for name, kinds in errors.items()
    )
    return f"""
        Figure 3. (A) Every {CLASS} ranked by its largest softmax value in ST and AT of the first
        seed; in colour, the {far:.1f} % whose ranks differ by more than half of the largest
        possible difference. (B) That share for every pair of networks (name and seed), mean of all
        classes: {between} (paper: AT-ST 11.8 %, AT-AT 1.1 %; unrelated rankings: 25 %). (C) Wrong
        predictions by their rank in the true class's mean logit vector over correct answers;
        adversarial: errors that the attack adds. At rank 2: {second}. (D) Average overlap of the
        class rankings of pairs of networks, solid for the same image, dashed for a random other of
        its class; AO@3: {overlap_text(overlaps)}. Mean ± sd over seeds (C) or pairs (D).
        {runs.about()} {runs["at"][0].sizes["sample"]:,} test images; AT of
        {selection.evaluated_epochs(runs["at"])}, ST of {selection.evaluated_epochs(runs["st"])}.
    """


if __name__ == "__main__":
    sys.exit(style.main("figure3", make, sys.argv[1:], of_files))
