"""What GLUE says of adversarially perturbed manifolds, layer by layer; beside Figure 5."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from logit_distributions import recipes, store
from logit_distributions.read import capacity
from paper import capacities, selection, style

PANELS = {"conic_capacity": "capacity", **{f"glue_{name}": w for name, w in capacity.GLUE.items()}}
FEW = ("pool", "logits")
"""Layers of fewer features than labellings of all exemplars can be separated in."""


def figure() -> Figure:
    """Return the figure.

    Raises
    ------
    Missing
        If the measures of no network are stored.
    """
    runs = capacities.networks()
    measured = {name: _measured(runs[name]) for name in runs.by_name}
    if not any(measured.values()):
        path = store.path_of("capacity", f"cifar10-{runs.scale}-at-seed0")
        raise store.Missing(path, recipes.command("capacity", "at", runs.scale))
    drawn = {
        capacities.name(name): (some, capacities.COLOURS[name], name in capacity.ROBUST)
        for name, some in measured.items()
        if some
    }
    untrained = _measured(store.find("capacity", recipes.UNTRAINED, scale=runs.scale))
    if untrained:
        drawn["untrained"] = (untrained, style.GREY, False)
    first = next(iter(drawn.values()))[0][0]
    layers = [str(each) for each in first["layer"].values if each not in FEW]
    text = f"""
        What GLUE says of the manifolds of Figure 5: capacity by conic geometry and the effective
        geometry behind it (kernels/NUMERICS.md), of points minus their global mean. Solid: networks
        that the paper finds robust. Pool and logits are left out: in so few features labellings
        cannot be separated, and anchors are not unique. The approximate capacity is (1 + R⁻²)/D,
        utility capacity over it. Band: sd over seeds where there are two or more; {_draws(first)}.
        {_about(runs, measured)}
    """
    drawing = style.canvas(8.2, 8.6, text)
    panels = np.asarray(drawing.subplots(4, 2, sharex=True))
    places = np.arange(len(layers))
    for axes, letter, (quantity, title) in zip(
        panels.flat, "ABCDEFGH", PANELS.items(), strict=True
    ):
        for label, (datasets, colour, solid) in drawn.items():
            some = [each.sel(layer=layers) for each in datasets]
            mean, spread = style.mean_and_spread(capacities.by_layer(some, quantity))
            axes.plot(
                places, mean, "-" if solid else "--", color=colour, marker="o", markersize=3,
                linewidth=1.4, label=label,
            )  # fmt: skip
            axes.fill_between(
                places, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0
            )
        style.panel(axes, letter, title)
        axes.set_xticks(places, layers, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
        axes.set_axisbelow(True)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside upper center", ncols=7, handlelength=2.4)
    return drawing


def _measured(datasets: list[xr.Dataset]) -> list[xr.Dataset]:
    return [each for each in datasets if "glue_radius" in each]


def _draws(dataset: xr.Dataset) -> str:
    largest = max(
        float((dataset[f"{name}_se"] / abs(dataset[name])).sel(layer=layer))
        for name in (f"glue_{each}" for each in capacity.GLUE)
        for layer in dataset["layer"].values
        if layer not in FEW
    )
    return (
        f"{dataset.sizes['draw']} draws of labels and Gaussian vectors, standard errors of at most "
        f"{largest:.0%}"
    )


def _about(runs: selection.Selection, measured: dict[str, list[xr.Dataset]]) -> str:
    seeds = "; ".join(
        f"{capacities.name(name)} {', '.join(str(int(each.attrs['seed'])) for each in some)}"
        for name, some in measured.items()
        if some
    )
    return f"{runs.setting()}; seeds: {seeds}."
