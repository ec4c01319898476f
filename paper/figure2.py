"""Figure 2: logit gaps, and how adversarial accuracy depends on them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import distribution
from paper import networks, selection, style

FEWEST = 20
"""Images of a seed that a bin of gaps must hold for its accuracy to be drawn."""

WIDTH, DENSITY_WIDTH = 0.25, 0.125
"""Width of a bin of gaps, in logits, for accuracies and for densities."""


def make(artefact: str = "figure2", dataset: str = "cifar10", one_epoch: bool = False) -> Figure:
    """Return the figure; figure B.5 is the same for CIFAR-100.

    With `one_epoch` ST is that of the epoch at which AT is evaluated, as B.2 says; attacked it
    was only if that is the epoch at which ST is evaluated too.
    """
    runs = selection.select("logits", recipes.TEACHERS, dataset)
    gaps = {
        name: [distribution.logit_gap(each["logits"].values) for each in runs[name]]
        for name in ("st", "at")
    }
    robust = {name: [each["robust"].values[-1] for each in runs[name]] for name in gaps}
    if one_epoch and _epochs(runs["st"]) != _epochs(runs["at"]):
        gaps["st"] = _gaps_at("st", dataset, runs.scale, _epochs(runs["at"]))
        del robust["st"]
    highest = max(float(np.quantile(values, 0.999)) for each in gaps.values() for values in each)
    edges = np.arange(0, highest + WIDTH, WIDTH)
    curves = {
        name: np.array(
            [accuracy(g, hits, edges) for g, hits in zip(gaps[name], robust[name], strict=True)]
        )
        for name in robust
    }
    figure = style.canvas(7.2, 2.9, _text(artefact, dataset, runs, gaps, curves, edges))
    left, right = figure.subplots(1, 2)
    _densities(left, gaps, np.arange(0, highest, DENSITY_WIDTH), style.COLOURS)
    _accuracies(right, curves, edges, style.COLOURS)
    style.panel(left, "A", "logit gaps of test images")
    style.panel(right, "B", "robustness at each gap")
    return figure


def of_files(paths: Sequence[str]) -> Figure:
    """Return the figure of any networks; of those that were not attacked, their gaps."""
    shown = networks.of_files(paths, ("logits",))
    gaps = {
        label: [distribution.logit_gap(each["logits"].values) for each in datasets]
        for label, datasets in shown.items()
    }
    highest = max(float(np.quantile(values, 0.999)) for each in gaps.values() for values in each)
    if highest == 0:
        raise ReproError("expected logits with gaps, got none above 0; likely all logits equal")
    width = _width(highest)
    edges = np.arange(0, highest + width, width)
    curves = {
        label: np.array(
            [
                accuracy(values, each["robust"].values[-1], edges)
                for values, each in zip(gaps[label], datasets, strict=True)
            ]
        )
        for label, datasets in shown.items()
        if "robust" in datasets[0]
    }
    curves = {label: each for label, each in curves.items() if np.isfinite(each).all(0).any()}
    figure = style.canvas(7.2, 2.9, _text_of_files(shown, gaps, curves, width))
    left, right = figure.subplots(1, 2)
    colours = networks.colours(shown)
    _densities(left, gaps, np.arange(0, highest + width / 2, width / 2), colours)
    _accuracies(right, curves, edges, colours)
    if not curves:
        right.text(0.5, 0.5, "not known", transform=right.transAxes, ha="center", color=style.GREY)
    style.panel(left, "A", "logit gaps of natural images")
    style.panel(right, "B", "robustness at each gap")
    return figure


def _width(highest: float) -> float:
    """Return the paper's width of a bin, doubled or halved until 12 to 48 bins hold all gaps."""
    width = WIDTH
    while highest > 48 * width:
        width *= 2
    while highest < 12 * width:
        width /= 2
    return width


def _text_of_files(
    shown: networks.Networks,
    gaps: Mapping[str, list[NDArray[np.floating]]],
    curves: Mapping[str, NDArray[np.float64]],
    width: float,
) -> str:
    """Return the caption of any networks: what is measured, nothing of what the paper found."""
    clauses = []
    for label, values in gaps.items():
        clause = f"{label}: mean gap {np.mean([each.mean() for each in values]):.2f}"
        if label in curves:
            known = curves[label][:, np.isfinite(curves[label]).all(0)].mean(0)
            clause += f", robustness {known[0]:.0f} % in its first full bin"
            clause += f" and {known[-1]:.0f} % in its last" if len(known) > 1 else ", its only one"
        elif "robust" in shown[label][0]:
            clause += f", no bin holds {FEWEST} images"
        clauses.append(clause)
    return f"""
        (A) Gaps between the two largest logits of natural images; dotted: means. (B) Accuracy under
        attack of the images of each gap, in bins of {width:g} with at least {FEWEST} images of
        every seed. Mean ± sd over seeds. {"; ".join(clauses)}. {networks.about(shown)} As Figure 2
        of the paper.
    """


def _epochs(datasets: list[xr.Dataset]) -> dict[int, int]:
    """Return the epoch at which each seed is evaluated."""
    return {int(d.attrs["seed"]): int(d.attrs["checkpoint_epoch"]) for d in datasets}


def _gaps_at(
    name: str, dataset: str, scale: str, epochs: dict[int, int]
) -> list[NDArray[np.floating]]:
    """Return the gaps of test images, of every seed after an epoch of its training."""
    recorded = store.need("epochs", name, dataset, scale)
    gaps = []
    for seed, epoch in epochs.items():
        of_seed = [d for d in recorded if d.attrs["seed"] == seed and epoch in d["epoch"].values]
        if not of_seed:
            raise store.Missing(
                store.path_of("epochs", f"{dataset}-{scale}-{name}-seed{seed}"),
                recipes.command("epochs", name, scale, dataset),
            )
        at = of_seed[0].sel(epoch=epoch).isel(sample=of_seed[0]["test"].values)
        gaps.append((at["largest"] - at["second"]).values)
    return gaps


def accuracy(
    gaps: NDArray[np.floating], hits: NDArray[np.bool_], edges: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return accuracy by bin of gaps in percent, NaN where the bin holds too few images."""
    share, counts = distribution.accuracy_by_gap(gaps, hits, edges)
    return np.where(counts >= FEWEST, 100 * share, np.nan)


def _densities(
    axes: Any,
    gaps: Mapping[str, list[NDArray[np.floating]]],
    edges: NDArray[np.floating],
    colours: Mapping[str, str],
) -> None:
    step = min(0.12, 0.9 / len(gaps))
    for name, values in gaps.items():
        densities = [np.histogram(g, edges)[0] / len(g) / edges[1] for g in values]
        mean, spread = style.mean_and_spread(np.array(densities))
        colour = colours[name]
        axes.stairs(mean, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(mean, edges, color=colour, linewidth=1.3)
        axes.stairs(
            mean + spread, edges, baseline=mean - spread, fill=True, color=colour, alpha=0.4
        )
        middle = float(np.mean([g.mean() for g in values]))
        axes.axvline(middle, color=colour, linewidth=1, linestyle=":")
        axes.text(
            0.97, 0.9 - step * list(gaps).index(name),
            f"{selection.label(name)}: mean {middle:.2f}", color=colour,
            transform=axes.transAxes, ha="right", weight="bold",
        )  # fmt: skip
    axes.set(xlim=(0, edges[-1]), ylim=(0, None), xlabel="logit gap", ylabel="density")


def _accuracies(
    axes: Any,
    curves: Mapping[str, NDArray[np.float64]],
    edges: NDArray[np.floating],
    colours: Mapping[str, str],
) -> None:
    middle = (edges[1:] + edges[:-1]) / 2
    for name in curves:
        colour = colours[name]
        drawn = np.isfinite(curves[name]).all(0)
        mean, spread = style.mean_and_spread(curves[name][:, drawn])
        axes.fill_between(
            middle[drawn], mean - spread, mean + spread, color=colour, alpha=0.25, lw=0
        )
        single = "o" if drawn.sum() == 1 else None
        axes.plot(middle[drawn], mean, color=colour, linewidth=1.6, marker=single)
        if name in style.COLOURS:  # other names are too long, and stand in the panel beside
            at = len(mean) // 2 if name == "st" else -1
            axes.annotate(
                selection.label(name), (middle[drawn][at], mean[at]), xytext=(6, 4),
                textcoords="offset points", color=colour, weight="bold", clip_on=False,
            )  # fmt: skip
    axes.set(xlim=(0, edges[-1]), ylim=(-3, 103), xlabel="logit gap")
    axes.set_ylabel("adversarial accuracy (%)")


def _text(
    artefact: str,
    dataset: str,
    runs: selection.Selection,
    gaps: dict[str, list[NDArray[np.floating]]],
    curves: dict[str, NDArray[np.float64]],
    edges: NDArray[np.floating],
) -> str:
    large = 100 * np.mean([(g > 5).mean() for g in gaps["at"]])
    peak = edges[np.argmax(np.sum([np.histogram(g, edges)[0] for g in gaps["at"]], 0))]
    drawn = np.isfinite(curves["at"]).all(0)
    at = curves["at"][:, drawn].mean(0)
    last = edges[:-1][drawn][-1]
    standard, epoch_of_st = (
        "ST of this epoch was not attacked",
        selection.evaluated_epochs(runs["at"]),
    )
    if "st" in curves:
        standard = f"ST's is at most {np.nanmax(curves['st']):.1f} %"
        epoch_of_st = selection.evaluated_epochs(runs["st"])
    return f"""
        {style.printed(artefact)}. (A) Gaps between the two largest logits, {style.printed(dataset)}
        test images; dotted: means. (B) Accuracy under APGD-CE, then APGD-DLR (Linf 8/255), of the
        images of each gap, in bins of {WIDTH:g} with at least {FEWEST} images of every seed.
        Mean ± sd over seeds. AT's density peaks in the bin from {peak:g} and {large:.1f} % of its
        gaps exceed 5 (paper: a peak at zero, few above five). AT's robustness goes from
        {at[0]:.0f} % in the first bin to {at[-1]:.0f} % in the last that is full enough, from
        {last:g} to {last + WIDTH:g}; {standard} (paper: a large gap is a strong sign of robustness
        in AT, not in ST). {runs.about()} {runs["at"][0].sizes["sample"]:,} test images each; AT of
        {selection.evaluated_epochs(runs["at"])}, ST of {epoch_of_st}.
    """


if __name__ == "__main__":
    sys.exit(style.main("figure2", make, sys.argv[1:], of_files))
