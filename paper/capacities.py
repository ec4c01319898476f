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


def networks(artefact: str) -> selection.Runs:
    """Return the capacities of Figure 5's networks, all of one scale.

    Raises
    ------
    MissingDataset
        With the command that makes what is missing.
    """
    try:
        return selection.runs("capacity", artefact, recipes.FIGURE5)
    except selection.MissingDataset as error:
        told = str(error).replace(f"logitdist run {artefact}", "logitdist manifolds")
        raise selection.MissingDataset(told) from error


def name(network: str) -> str:
    """Return how figures call a network."""
    return NAMES.get(network, selection.label(network))


def by_seed(datasets: list[xr.Dataset], quantity: str) -> NDArray[np.float64]:
    """Return a quantity of every layer, averaged over manifolds, shape (seeds, layers)."""
    found = [dataset[quantity] for dataset in datasets]
    means = [each.mean("manifold") if "manifold" in each.dims else each for each in found]
    return np.array([each.values for each in means], np.float64)


def about(runs: selection.Runs) -> str:
    """Return a sentence on the manifolds and those of `selection.Runs.about`."""
    first = runs["at"][0]
    how = first.attrs
    projected = int((first["features"] > how["manifold_largest"]).sum())
    return (
        f"P = {first.sizes['manifold']} test images, the first of each class, M = "
        f"{how['manifold_points']} points of each: ends of {how['manifold_steps']} steps of PGD "
        f"from random starts in the Linf ball of {255 * how['manifold_eps']:.0f}/255. "
        f"{projected} layers of more than {how['manifold_largest']:,} features are seen through a "
        f"Gaussian projection. {runs.about()}"
    )
