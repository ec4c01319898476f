"""What goes with robustness: statistics of natural logits against adversarial accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from logit_distributions import recipes, store
from logit_distributions.read import capacity, distribution, ranking
from paper import selection, style, tables
from paper.beyond import distances

NAME = "robustness"
DEPTH = 5
"""Classes on top of the rankings whose overlap with the teacher's counts."""

LAYER = "layer4.1"
"""The last block, whose manifolds count."""

FEWEST = 5
"""Networks that a rank correlation needs."""

KINDS = {
    "standard": style.BLUE,
    "adversarial": style.ORANGE,
    "student of AT": style.GREEN,
    "hybrid": style.PURPLE,
}
MARKERS = "os^D"


@dataclass(frozen=True)
class Network:
    """A stored network: what it is, its adversarial accuracy (%), its statistics by name."""

    kind: str
    scale: str
    robust: float
    statistics: dict[str, float]


STATISTICS: dict[str, str] = {
    "skewness": "skewness of the largest logit",
    "gap": "mean logit gap",
    "largest": "mean largest logit",
    "overlap": f"AO@{DEPTH} with the AT of its seed",
    "capacity": f"capacity after {LAYER}",
    "radius": f"radius after {LAYER}",
    "ratio": "median gap / slope (/255)",
}


def networks() -> list[Network]:
    """Return every stored network of CIFAR-10, of all scales and seeds.

    Raises
    ------
    Missing
        If none is stored.
    """
    stored = [each for scale in selection.scales() for each in store.find("logits", scale=scale)]
    if not stored:
        store.need("logits", recipes.TEACHERS[0], scale=selection.scales()[-1])
    return [_network(data) for data in stored]


def _network(data: xr.Dataset) -> Network:
    name, scale = store.recipe_of(data)["name"], data.attrs["scale"]
    logits = data["logits"].values
    largest = distribution.max_logit(logits)
    statistics = {
        "skewness": distribution.skewness(largest),
        "gap": float(distribution.logit_gap(logits).mean()),
        "largest": float(largest.mean()),
    }
    teacher = _of_seed("logits", "at", data)
    if teacher is not None and name != "at":
        count = min(len(logits), teacher.sizes["sample"])
        overlap = ranking.average_overlap(logits[:count], teacher["logits"].values[:count])
        statistics["overlap"] = float(overlap[:, DEPTH - 1].mean())
    manifolds = _of_seed("capacity", name, data)
    if manifolds is not None:
        layer = manifolds.sel(layer=LAYER)
        statistics["capacity"] = capacity.estimates(layer)["theory"].value
        statistics["radius"] = float(layer["radius"].values[capacity.is_kept(layer)].mean())
    measured = _of_seed("distances", name, data)
    if measured is not None:
        statistics["ratio"] = float(np.median(distances.predicted(measured)))
    return Network(_kind(data), scale, 100 * float(data["robust"].values[-1].mean()), statistics)


def _of_seed(stage: str, name: str, data: xr.Dataset) -> xr.Dataset | None:
    """Return what is stored of a recipe, of the scale and seed of another network."""
    seed = data.attrs["seed"]
    datasets = store.find(stage, name, scale=data.attrs["scale"])
    return next((each for each in datasets if each.attrs["seed"] == seed), None)


def _kind(data: xr.Dataset) -> str:
    how = store.recipe_of(data)["distillation"]
    if how is None:
        return str(data.attrs["method"])
    return "hybrid" if how["partner"] else "student of AT"


GROUPS: dict[str, Callable[[Network], bool]] = {
    "all": lambda network: True,
    "students of AT": lambda network: network.kind == "student of AT",
}


def correlation(some: list[Network], statistic: str) -> tuple[float, int]:
    """Return Spearman's correlation of a statistic with robustness, and of how many networks."""
    pairs = [(n.statistics[statistic], n.robust) for n in some if statistic in n.statistics]
    if len(pairs) < FEWEST:
        return float("nan"), len(pairs)
    first, second = np.array(pairs).T
    return ranking.rank_correlation(first, second), len(pairs)


def table() -> tables.Table:
    """Return the rank correlations by scale and group of networks."""
    return correlations(networks())


def correlations(everyone: list[Network]) -> tables.Table:
    """Return the same of some networks."""
    groups = {
        f"{scale}, {group}": [n for n in everyone if n.scale == scale and member(n)]
        for scale in dict.fromkeys(n.scale for n in everyone)
        for group, member in GROUPS.items()
    }
    rows = []
    for statistic, words in STATISTICS.items():
        cells = []
        for some in groups.values():
            value, count = correlation(some, statistic)
            cells.append(f"{value:+.2f} ({count})" if np.isfinite(value) else f"– ({count})")
        rows.append((words, *cells))
    notes = [
        "Spearman's rank correlation with adversarial accuracy (number of networks), CIFAR-10. No "
        "interval: networks that share a teacher are not independent."
    ]
    return tables.Table(f"beyond.{NAME}", ("statistic of natural images", *groups), rows, notes)


def best(everyone: list[Network]) -> str:
    """Return which statistic goes with robustness most closely, in every scale and group."""
    clauses = []
    for scale in dict.fromkeys(n.scale for n in everyone):
        for group, member in GROUPS.items():
            some = [n for n in everyone if n.scale == scale and member(n)]
            values = {s: correlation(some, s)[0] for s in STATISTICS}
            known = {s: v for s, v in values.items() if np.isfinite(v)}
            if known:
                most = max(known, key=lambda s: abs(known[s]))
                clauses.append(f"{scale}, {group}: {STATISTICS[most]} ({known[most]:+.2f})")
    return "; ".join(clauses)


def figure() -> Figure:
    """Return a scatter of every statistic against robustness."""
    everyone = networks()
    scales = list(dict.fromkeys(n.scale for n in everyone))
    shapes = ", ".join(f"{scale} {MARKERS[i]}" for i, scale in enumerate(scales))
    text = f"""
        What goes with robustness. Every stored network of CIFAR-10 ({len(everyone)}, all seeds,
        students of sweeps on their first images): adversarial accuracy against statistics of its
        natural logits and of its manifolds; colour: kind of network; marker: scale ({shapes}).
        The statistic with the strongest rank correlation: {best(everyone)}. Networks that share a
        teacher are not independent, so no interval is given, and that two numbers go together does
        not say that one brings about the other.
    """
    drawing = style.canvas(7.2, 4.6, text)
    panels = drawing.subplots(2, 4, sharey=True)
    for axes, letter, (statistic, words) in zip(
        panels.flat, "ABCDEFG", STATISTICS.items(), strict=False
    ):
        for kind, colour in KINDS.items():
            for scale, marker in zip(scales, MARKERS, strict=False):
                some = [
                    n
                    for n in everyone
                    if (n.kind, n.scale) == (kind, scale) and statistic in n.statistics
                ]
                axes.scatter(
                    [n.statistics[statistic] for n in some], [n.robust for n in some],
                    color=colour, marker=marker, s=16, alpha=0.75, lw=0,
                    label=kind if scale == scales[0] else None,
                )  # fmt: skip
        axes.set_xlabel(words, fontsize=7.5)
        style.panel(axes, letter, "")
    panels.flat[-1].set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("adversarial accuracy (%)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=len(KINDS))
    return drawing
