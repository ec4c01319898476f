"""Figure 5: capacity, radius, dimension and centre correlation of manifolds, layer by layer."""

from __future__ import annotations

import sys

import numpy as np
from matplotlib.figure import Figure

from logit_distributions import recipes, store
from logit_distributions.read import capacity
from paper import capacities, style

PANELS = {
    "combined_capacity": ("capacity", "manifolds per feature"),
    "radius": ("radius", "norms of the centre"),
    "dimension": ("dimension", ""),
    "center_correlation": ("centre correlation", "mean |cosine|"),
}


def make() -> Figure:
    """Return the figure."""
    runs = capacities.networks()
    layers = [str(layer) for layer in runs["at"][0]["layer"].values]
    n_t = runs["at"][0].attrs["manifold_n_t"]
    features = dict(zip(layers, runs["at"][0]["features"].values, strict=True))
    text = f"""
        Figure 5. Manifolds of adversarially perturbed images through the networks: (A)
        mean-field capacity, (B) radius and (C) dimension of the anchor points, mean over
        manifolds, (D) correlation of the centres. Solid: networks that the paper finds robust;
        dashed: those that it finds without adversarial accuracy{_measured(runs.scale)}. Mean over
        seeds, band: sd where there are two or more. Where features are few (pool
        {features["pool"]}, logits {features["logits"]}), removing the low-rank structure of the
        centres leaves some manifolds hardly a centre.
        {n_t} Gaussian vectors per manifold. {capacities.about(runs)}
    """
    figure = style.canvas(8.2, 5.6, text)
    panels = np.asarray(figure.subplots(2, 2, sharex=True))
    places = np.arange(len(layers))
    for axes, letter, (quantity, (title, unit)) in zip(
        panels.flat, "ABCD", PANELS.items(), strict=True
    ):
        for network in recipes.FIGURE5:
            mean, spread = style.mean_and_spread(capacities.by_seed(runs[network], quantity))
            colour = capacities.COLOURS[network]
            axes.plot(
                places, mean, "-" if network in capacity.ROBUST else "--", color=colour,
                marker="o", markersize=3, linewidth=1.4, label=capacities.name(network),
            )  # fmt: skip
            axes.fill_between(
                places, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0
            )
        style.panel(axes, letter, title)
        axes.set_ylabel(unit)
        axes.set_xticks(places, layers, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in (panels[0, 1], panels[1, 0], panels[1, 1]):
        axes.set_ylim(bottom=0)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6, handlelength=2.4)
    return figure


def _measured(scale: str) -> str:
    """Return our adversarial accuracy of the networks drawn dashed, where it is stored."""
    robust = {
        name: [each["robust"].values[-1].mean() for each in store.find("logits", name, scale=scale)]
        for name in recipes.FIGURE5
        if name not in capacity.ROBUST
    }
    stored = [f"{capacities.name(n)} {100 * np.mean(v):.1f} %" for n, v in robust.items() if v]
    return f" (here {', '.join(stored)})" if stored else ""


if __name__ == "__main__":
    sys.exit(style.main("figure5", make, sys.argv[1:]))
