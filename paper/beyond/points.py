"""Have capacities settled? Capacity against the number of points of a manifold, at two layers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from logit_distributions import recipes, store
from logit_distributions.read import capacity
from paper import capacities, style

ESTIMATORS = ("theory", "guarded", "simulated", "conic")


def figure() -> Figure:
    """Return the figure.

    Raises
    ------
    Missing
        If no network was measured with other numbers of points.
    """
    runs = capacities.networks()
    curves = {
        name: curve for name in recipes.FIGURE5 if len(curve := _by_points(name, runs.scale)) > 1
    }
    if not curves:
        path = store.path_of(
            f"capacity/points-{recipes.POINTS[0]}", f"cifar10-{runs.scale}-at-seed0"
        )
        raise store.Missing(path, f"logitdist make manifolds --scale {runs.scale}")
    text = f"""
        Have capacities settled? Capacity of manifolds of adversarially perturbed images against
        the number M of points of each, by four estimators: mean-field theory by the package's rule
        of the low rank and by ours, simulation with a bias, conic geometry. Bars: 95 % intervals
        of the estimators for these very manifolds. {_settled(curves)} {runs.setting()}; seed 0.
    """
    drawing = style.canvas(8.2, 4.6, text)
    panels = np.asarray(drawing.subplots(2, len(ESTIMATORS), sharex=True, sharey="row"))
    for row, layer in zip(panels, recipes.POINTS_LAYERS, strict=True):
        for axes, estimator in zip(row, ESTIMATORS, strict=True):
            for name, curve in curves.items():
                shown = {
                    count: value
                    for count, dataset in curve.items()
                    if np.isfinite((value := _value(dataset, layer, estimator)).value)
                }
                values = np.array([(v.value, v.low, v.high) for v in shown.values()]).reshape(-1, 3)
                bars = np.abs(values[:, 1:] - values[:, :1]).T
                axes.errorbar(
                    list(shown), values[:, 0], bars, marker="o", markersize=3, linewidth=1.2,
                    linestyle="-" if name in capacity.ROBUST else "--", elinewidth=0.7,
                    color=capacities.COLOURS[name], label=capacities.name(name),
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_xticks(_counts(curves), [str(count) for count in _counts(curves)])
            axes.minorticks_off()
    for axes, estimator in zip(panels[0], ESTIMATORS, strict=True):
        axes.set_title(capacity.ESTIMATORS[estimator], fontsize=8)
    for axes in panels[1]:
        axes.set_xlabel("points M")
    for axes, layer in zip(panels[:, 0], recipes.POINTS_LAYERS, strict=True):
        axes.set_ylabel(f"capacity after {layer}")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=6)
    return drawing


def _by_points(name: str, scale: str) -> dict[int, xr.Dataset]:
    """Return the capacities of a network's first seed by number of points, rising."""
    stages = ["capacity", *(f"capacity/points-{count}" for count in recipes.POINTS)]
    measured = [
        each
        for stage in stages
        for each in store.find(stage, name, scale=scale)
        if each.attrs["seed"] == recipes.SEEDS[0]
    ]
    return {int(d.attrs["manifold_points"]): d for d in sorted(measured, key=_points)}


def _points(dataset: xr.Dataset) -> int:
    return int(dataset.attrs["manifold_points"])


def _counts(curves: dict[str, dict[int, xr.Dataset]]) -> list[int]:
    return sorted({count for curve in curves.values() for count in curve})


def _value(dataset: xr.Dataset, layer: str, estimator: str) -> capacity.Interval:
    return capacity.estimates(dataset.sel(layer=layer))[estimator]


def _settled(curves: dict[str, dict[int, xr.Dataset]]) -> str:
    """Return how much the capacity still falls at the end of the curves, by layer."""
    last, before = _counts(curves)[-1], _counts(curves)[-2]
    clauses = []
    for layer in recipes.POINTS_LAYERS:
        falls = [
            1
            - _value(curve[last], layer, "conic").value
            / _value(curve[before], layer, "conic").value
            for curve in curves.values()
            if {last, before} <= curve.keys()
        ]
        if falls:
            clauses.append(f"{min(falls):.0%} to {max(falls):.0%} after {layer}")
    if not clauses:
        return ""
    return f"From M = {before} to {last} the conic capacity falls by {', '.join(clauses)}."
