"""What every kernel checks of the manifolds that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Manifolds = Sequence[NDArray[Any]] | NDArray[Any]


def as_manifolds(manifolds: Manifolds) -> list[NDArray[Any]]:
    """Return the manifolds as a list of arrays (N, M_i), without copying them.

    Raises
    ------
    ValueError
        Naming the manifold, if shapes do not fit; values are checked by `center`.
    """
    found = [np.asanyarray(manifold) for manifold in manifolds]
    if len(found) < 2:
        raise ValueError(
            f"expected at least 2 manifolds, got {len(found)}; pass a sequence of arrays "
            "(N features, M_i points) or one array (P, N, M)"
        )
    for i, manifold in enumerate(found):
        if manifold.ndim != 2 or 0 in manifold.shape:
            raise ValueError(
                f"manifold {i}: expected an array (N features, M points) with at least one "
                f"feature and point, got shape {manifold.shape}"
            )
        if manifold.dtype.kind not in "fiu":
            raise ValueError(f"manifold {i}: expected real numbers, got dtype {manifold.dtype}")
        if len(manifold) != len(found[0]):
            raise ValueError(
                f"manifold {i}: expected {len(found[0])} features as in manifold 0, got "
                f"{len(manifold)}; rows are features, columns points (transpose it?)"
            )
    return found


def center(manifold: NDArray[Any], i: int) -> Array:
    """Return the mean of the points, shape (N,), in float64.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        mean: Array = manifold.mean(axis=1, dtype=np.float64)
    if not np.isfinite(mean).all():
        row, column = np.argwhere(~np.isfinite(manifold))[0]
        raise ValueError(
            f"manifold {i}: expected finite values, got {manifold[row, column]} at feature "
            f"{row}, point {column}; drop such points or features"
        )
    return mean


def joined(manifolds: Manifolds) -> tuple[Array, NDArray[np.intp]]:
    """Return all points side by side, shape (N, ΣM), in float64, and the manifold of each.

    Raises
    ------
    ValueError
        As `as_manifolds` and `center`.
    """
    points = as_manifolds(manifolds)
    for i, manifold in enumerate(points):
        center(manifold, i)  # checks the values
    owner = np.repeat(np.arange(len(points)), [manifold.shape[1] for manifold in points])
    return np.concatenate([np.asarray(m, np.float64) for m in points], axis=1), owner


def generator(seed: int, *place: int) -> np.random.Generator:
    """Return the generator of a seed and a place, such as a manifold's number."""
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: expected a whole number from 0, got {seed!r}")
    return np.random.default_rng([int(seed), *place])
