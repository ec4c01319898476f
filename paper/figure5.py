"""Figure 5: capacity, radius, dimension and centre correlation of manifolds, layer by layer."""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from logit_distributions import recipes, store
from logit_distributions.read import capacity
from manifold_capacity.capacity import KEPT
from paper import capacities, selection, style

PAPERS_RULE = {
    "theory": ("capacity", "manifolds per feature"),
    "radius": ("radius", "norms of the centre"),
    "dimension": ("dimension", ""),
    "center_correlation": ("centre correlation", "mean |cosine|"),
}
OURS = {
    "guarded": ("capacity, our rule", "manifolds per feature"),
    "guarded_radius": ("radius, our rule", "norms of the centre"),
    "guarded_dimension": ("dimension, our rule", ""),
    "left_out": ("left out of A to C", "manifolds"),
}
PANELS = tuple(zip("ABCDEFGH", (PAPERS_RULE | OURS).items(), strict=True))


def make() -> Figure:
    """Return the figure."""
    runs = capacities.networks()
    first = runs["at"][0]
    layers = [str(layer) for layer in first["layer"].values]
    features = dict(zip(layers, first["features"].values, strict=True))
    drawn = {name: [*runs[name], *capacities.other_exemplars(runs, name)] for name in runs.by_name}
    untrained = store.find("capacity", recipes.UNTRAINED, scale=runs.scale)
    text = f"""
        Figure 5. Manifolds of adversarially perturbed images through the networks: (A)
        mean-field capacity, (B) radius and (C) dimension of the anchor points, mean over
        manifolds, (D) correlation of the centres. Solid: networks that the paper finds robust;
        dashed: those that it finds without adversarial accuracy{_measured(runs.scale)}.
        {_untrained(untrained)}Mean over seeds{_sets(drawn, runs)}, band: sd where there are two or
        more. A to C: the centres' low-rank structure is removed by the rule of the package that the
        paper used, by which its sentences are judged; (H) manifolds that it leaves less than
        {KEPT:g} of their centre, which are left out. (E to G) by our rule, which guards
        every centre. Few features: pool {features["pool"]}, logits {features["logits"]}.
        {first.attrs["manifold_n_t"]} Gaussian vectors per manifold. {capacities.about(runs)}
        {_anew(drawn)} {_beside_others(runs["st"], layers)}
    """
    figure = style.canvas(8.2, 9.6, text)
    panels = np.asarray(figure.subplots(4, 2, sharex=True))
    places = np.arange(len(layers))
    for axes, (letter, (quantity, (title, unit))) in zip(panels.T.flat, PANELS, strict=True):
        for network, datasets in drawn.items():
            values = capacities.by_layer(datasets, quantity)
            values = values[np.isfinite(values).any(axis=1)]
            if not len(values):
                continue
            mean, spread = style.mean_and_spread(values)
            colour = capacities.COLOURS[network]
            axes.plot(
                places, mean, "-" if network in capacity.ROBUST else "--", color=colour,
                marker="o", markersize=3, linewidth=1.4, label=capacities.name(network),
            )  # fmt: skip
            axes.fill_between(
                places, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0
            )
        if untrained:
            values = capacities.by_layer(untrained, quantity)
            axes.plot(places, values.mean(axis=0), ":", color=style.GREY, label="untrained")
        style.panel(axes, letter, title)
        axes.set_ylabel(unit)
        axes.set_xticks(places, layers, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.grid(axis="x", color="#eeeeee", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes in panels[1:].flat:
        axes.set_ylim(bottom=0)
    for row in panels[:3]:  # the two rules on one scale
        low = min(axes.get_ylim()[0] for axes in row)
        high = max(axes.get_ylim()[1] for axes in row)
        for axes in row:
            axes.set_ylim(low, high)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=7, handlelength=2.4)
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


def _untrained(datasets: list[xr.Dataset]) -> str:
    return "Dotted: a network as it is initialised. " if datasets else ""


def _sets(drawn: dict[str, list[xr.Dataset]], runs: selection.Selection) -> str:
    more = any(len(datasets) > len(runs[name]) for name, datasets in drawn.items())
    return " and disjoint sets of exemplars" if more else ""


def _anew(drawn: dict[str, list[xr.Dataset]]) -> str:
    """Return how many networks were measured before E to H were recorded, if any were."""
    before = sum("center_kept" not in each for datasets in drawn.values() for each in datasets)
    return f"E to H are not recorded of {before} measurements." if before else ""


def _beside_others(datasets: list[xr.Dataset], layers: list[str]) -> str:
    """Return where capacity falls most in ST, beside public results for such a network.

    Of Dapello, Feather, Le et al., "Neural population geometry reveals the role of stochasticity in
    robust perception" (2021): chung-neuroai-lab/adversarial-manifolds, ``results/``, exemplar
    manifolds of CIFAR_ResNet18, one step of 8/255; capacity 1.01 at the pixels, 0.06 after the
    first convolution, 0.09, 0.33, 0.42 and 0.38 after the four stages.
    """
    capacity_of = capacities.by_layer(datasets, "theory").mean(axis=0)[: len(capacity.BLOCKS) + 2]
    steepest = int(np.argmin(np.diff(np.log(capacity_of))))
    fall = capacity_of[steepest] / capacity_of[steepest + 1]
    return (
        "In public results for a standard ResNet-18 (Dapello et al. 2021) capacity falls 16-fold "
        "at the first convolution and rises 6-fold by the last stage; in ST here it falls most "
        f"from {layers[steepest]} to {layers[steepest + 1]}, by a factor of {fall:.1f}, and ends "
        f"at {capacity_of[-1] / capacity_of.min():.1f} times its least."
    )


if __name__ == "__main__":
    sys.exit(style.main("figure5", make, sys.argv[1:]))
