"""What the figures of manifold capacity share: their datasets, colours and words."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import recipes, store
from logit_distributions.read import capacity
from paper import selection, style

COLOURS = {
    "st": style.BLUE, "at": style.ORANGE, "normal": style.GREEN, "fix-1-average": "#e69f00",
    "correct-fix-1": "#56b4e9", "hybrid": style.PURPLE,
}  # fmt: skip
NAMES = {"fix-1-average": "fix-1 (avg)"}


def networks() -> selection.Selection:
    """Return the capacities of Figure 5's networks, all of one scale; each of its own seeds."""
    return selection.select("capacity", recipes.FIGURE5, paired=False)


def other_exemplars(runs: selection.Selection, network: str) -> list[xr.Dataset]:
    """Return the capacities of a network on further sets of exemplars, where they are stored."""
    return [
        each
        for number in recipes.EXEMPLAR_SETS
        for each in store.find(f"capacity/set-{number}", network, scale=runs.scale)
    ]


def name(network: str) -> str:
    """Return how figures call a network."""
    return NAMES.get(network, selection.label(network))


def by_layer(datasets: list[xr.Dataset], quantity: str) -> NDArray[np.float64]:
    """Return a quantity of every layer, shape (datasets, layers); NaN where it was not recorded.

    ``theory`` and other names of `capacity.ESTIMATORS`, ``left_out``, the manifolds that are left
    out, or a variable, averaged over manifolds; radius and dimension over those of `is_kept`.
    """
    return np.array([_of_layers(dataset, quantity) for dataset in datasets], np.float64)


def _of_layers(dataset: xr.Dataset, quantity: str) -> NDArray[np.float64]:
    kept = capacity.is_kept(dataset)
    if quantity in capacity.ESTIMATORS:
        layers = [dataset.isel(layer=i) for i in range(dataset.sizes["layer"])]
        return np.array([capacity.estimates(layer)[quantity].value for layer in layers])
    if quantity == "left_out" and "center_kept" in dataset:
        return np.asarray((~kept).sum(axis=1), np.float64)
    if quantity not in dataset:
        return np.full(dataset.sizes["layer"], np.nan)
    values = dataset[quantity].values.astype(np.float64)
    if quantity in ("radius", "dimension"):
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(kept, values, 0.0).sum(axis=1) / kept.sum(axis=1))
    return np.asarray(values.mean(axis=1) if values.ndim == 2 else values)


def about(runs: selection.Selection) -> str:
    """Return a sentence on the manifolds and those of `Selection.about`."""
    first = runs["at"][0]
    how = first.attrs
    projected = int((first["features"] > how["manifold_largest"]).sum())
    return (
        f"P = {first.sizes['manifold']} test images, the first of each class, as many of all, M = "
        f"{how['manifold_points']} points of each: ends of {how['manifold_steps']} steps of PGD "
        f"from random starts in the Linf ball of {255 * how['manifold_eps']:.0f}/255. "
        f"{projected} layers of more than {how['manifold_largest']:,} features are seen through a "
        f"Gaussian projection. {runs.about()}"
    )
