"""What the figures of manifold capacity share: their datasets, colours and words."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import recipes
from paper import selection, style

COLOURS = {
    "st": style.BLUE, "at": style.ORANGE, "normal": style.GREEN, "fix-1-average": "#e69f00",
    "correct-fix-1": "#56b4e9", "hybrid": style.PURPLE,
}  # fmt: skip
NAMES = {"fix-1-average": "fix-1 (avg)"}


def networks() -> selection.Selection:
    """Return the capacities of Figure 5's networks, all of one scale; each of its own seeds."""
    return selection.select("capacity", recipes.FIGURE5, paired=False)


def name(network: str) -> str:
    """Return how figures call a network."""
    return NAMES.get(network, selection.label(network))


def by_seed(datasets: list[xr.Dataset], quantity: str) -> NDArray[np.float64]:
    """Return a quantity of every layer, averaged over manifolds, shape (seeds, layers)."""
    values = [dataset[quantity] for dataset in datasets]
    means = [each.mean("manifold") if "manifold" in each.dims else each for each in values]
    return np.array([each.values for each in means], np.float64)


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
