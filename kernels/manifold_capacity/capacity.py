"""Manifold capacity, radius and dimension by mean-field theory (MFTMA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack, qr

from manifold_capacity._input import (
    Array,
    Manifolds,
    as_manifolds,
    generator,
    magnitude,
    power_of_two,
)
from manifold_capacity._parallel import for_each, one_blas_thread
from manifold_capacity._result import Result
from manifold_capacity.anchors import barycentric, solve
from manifold_capacity.centers import center_correlation
from manifold_capacity.centers import low_rank as find_low_rank

Definition = Literal["paper", "package"]

COINCIDES = 1e-10
"""A centre this close to the global mean, in units of the largest distance of any, is on it."""


def mean_field_capacity(
    manifolds: Manifolds,
    kappa: float = 0.0,
    n_t: int = 300,
    t_vecs: Sequence[ArrayLike] | None = None,
    low_rank: bool = True,
    definition: Definition = "paper",
    seed: int = 0,
    n_reps: int = 2,
    threads: int | None = None,
) -> Result:
    """Return capacity, radius and dimension of manifolds by mean-field theory.

    As the public Python package does (Cohen, Chung, Lee, Sompolinsky 2020): the global mean
    is removed; if `low_rank`, so is the subspace of the centres that makes them correlated
    (`centers.low_rank`); each manifold is centred and divided by the norm of its
    centre. Then, for each, ``1/α = ⟨F(t)⟩`` over Gaussian t (Chung, Lee, Sompolinsky 2018;
    paper, A.4.1), with radius and dimension from the anchor points s̃, without their last
    coordinate:

    - ``"paper"`` (A.4.2): ``R² = ⟨|s̃|²⟩``, ``D = ⟨(t·ŝ)²⟩``, ŝ = s̃/|s̃|;
    - ``"package"``: ``R² = ⟨|s̃ - ⟨s̃⟩|²⟩``, ``D = d ⟨t̂·ŝ⟩²`` with d = min(N, M), which depends on
      padding by zeros and goes to 0 with R below 1e-6.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
        Features by points, float32 or float64, maybe memory-mapped. Read once with
        ``low_rank=False``, else twice. Memory: O(NP) for the centres, and per thread one
        manifold in float64 with its M x M Gram matrix and n_t x M multipliers.
    kappa : float
        Margin, in units of the norm of the centres.
    n_t : int
        Gaussian vectors per manifold.
    t_vecs : sequence of array_like, shapes (min(N, M_i) + 1, n_t), optional
        The Gaussian vectors. Where N > M_i they refer to the frame of
        ``scipy.linalg.qr(S, mode="economic")``, S the centred and scaled points. Default:
        drawn from `seed` and the manifold's number.
    low_rank : bool
        Remove the low-rank structure of the centres.
    definition : {"paper", "package"}
        Of radius and dimension.
    seed : int
        Of the Gaussian vectors and of the random starts of the low-rank search.
    n_reps : int
        Starts of the low-rank search per rank.
    threads : int, optional
        Default: all processors. Results do not depend on it.

    Returns
    -------
    Result
        Per manifold ``capacity`` (manifolds per feature), ``radius`` (in norms of the
        centre), ``dimension``, each with its Monte Carlo standard error over t (``..._se``),
        ``center_norm``, ``active`` (mean number of points in an anchor), and
        ``combined_capacity`` = 1 / mean(1/capacity) with its standard error,
        ``center_correlation``, ``low_rank_dimension``, ``kkt_residual`` (the worst),
        ``unsolved`` (number of anchors for which the solver gave up: 0).

    Raises
    ------
    ValueError
        For values that are not finite, fewer than two manifolds, an empty one, features that
        differ in number, a centre on the global mean, shapes of `t_vecs` that do not fit.
    """
    result, _ = _analyse(
        manifolds, kappa, n_t, t_vecs, low_rank, definition, seed, n_reps, threads, strict=True
    )
    return result


@one_blas_thread
def _analyse(
    manifolds: Manifolds,
    kappa: float,
    n_t: int,
    t_vecs: Sequence[ArrayLike] | None,
    remove: bool,
    definition: Definition,
    seed: int,
    n_reps: int,
    threads: int | None,
    strict: bool,
) -> tuple[Result, list[int]]:
    """Return what `manifold_capacity` does, and the manifolds without a scale unless `strict`."""
    points = as_manifolds(manifolds)
    _check(points, kappa, n_t, t_vecs, definition)
    generator(seed)  # checks it
    largest = max(
        for_each(lambda i: magnitude(f"manifold {i}", points[i]), range(len(points)), threads)
    )
    factor = power_of_two(largest)

    def scaled(i: int) -> Array:
        copy: Array = np.multiply(points[i], factor, dtype=np.float64)
        return copy

    centers = np.stack(for_each(lambda i: scaled(i).mean(axis=1), range(len(points)), threads), 1)
    counts = np.array([manifold.shape[1] for manifold in points], np.float64)
    origin = centers @ (counts / counts.sum())
    if remove:
        if len(centers) < 2:
            raise ValueError(
                "low_rank: expected at least 2 features, of which some can be removed, got 1; "
                "pass low_rank=False"
            )
        structure = find_low_rank(centers, n_reps, seed, threads)
        basis, correlation = structure.basis, structure.correlation
    else:
        basis, correlation = np.empty((len(centers), 0)), _correlation(centers)
    offsets = centers - origin[:, None]
    offsets -= basis @ (basis.T @ offsets)
    norms = np.linalg.norm(offsets, axis=0)
    degenerate = np.flatnonzero(norms <= COINCIDES * norms.max(initial=0.0)).tolist()
    if degenerate and strict:
        where = "after removing the low-rank structure, " if basis.shape[1] else ""
        raise ValueError(
            f"manifold {degenerate[0]}: {where}its centre coincides with the global mean, so it "
            "has no scale; drop the manifold"
            + (" or pass low_rank=False" if basis.shape[1] else "")
        )

    def one(i: int) -> _Moments:
        if i in degenerate:
            return _Moments.undefined()
        relative = scaled(i)
        relative -= centers[:, i : i + 1]
        if basis.shape[1]:
            relative -= basis @ (basis.T @ relative)
        relative /= norms[i]
        vectors = None if t_vecs is None else np.asarray(t_vecs[i], np.float64)
        return _moments(relative, kappa, n_t, vectors, definition, generator(seed, 1, i))

    moments = for_each(one, range(len(points)), threads)
    values = {
        name: np.array([getattr(m, name) for m in moments]) for name in _Moments.__annotations__
    }
    inverse = 1 / values["capacity"]
    inverse_se = values["capacity_se"] * inverse**2
    combined = 1 / inverse.mean()
    dims = ("manifold",)
    result: dict[str, tuple[tuple[str, ...], Any]] = {
        name: (dims, values[name])
        for name in (
            "capacity", "capacity_se", "radius", "radius_se", "dimension", "dimension_se", "active",
        )
    }  # fmt: skip
    result |= {
        "center_norm": (dims, norms / factor),
        "combined_capacity": ((), float(combined)),
        "combined_capacity_se": (
            (),
            float(combined**2 * np.sqrt((inverse_se**2).sum()) / len(inverse)),
        ),
        "center_correlation": ((), correlation),
        "low_rank_dimension": ((), basis.shape[1]),
        "kkt_residual": ((), float(np.nanmax(values["kkt_residual"], initial=0.0))),
        "unsolved": ((), int(values["unsolved"].sum())),
    }
    attributes = {
        "kappa": kappa, "n_t": n_t, "low_rank": int(remove), "definition": definition,
        "seed": seed, "n_reps": n_reps,
    }  # fmt: skip
    return Result(result, attributes), degenerate


def _correlation(centers: Array) -> float:
    try:
        return center_correlation(centers)
    except ValueError:
        return float("nan")


def _check(
    points: list[NDArray[Any]],
    kappa: float,
    n_t: int,
    t_vecs: Sequence[ArrayLike] | None,
    definition: str,
) -> None:
    if not np.isfinite(kappa):
        raise ValueError(f"kappa: expected a finite margin, got {kappa}")
    if n_t < 2:
        raise ValueError(f"n_t: expected at least 2 vectors, for a standard error, got {n_t}")
    if definition not in get_args(Definition):
        raise ValueError(f"definition: expected 'paper' or 'package', got {definition!r}")
    if t_vecs is None:
        return
    if len(t_vecs) != len(points):
        raise ValueError(f"t_vecs: expected {len(points)} arrays, one each, got {len(t_vecs)}")
    for i, (manifold, vectors) in enumerate(zip(points, t_vecs, strict=True)):
        expected = (min(manifold.shape) + 1, n_t)
        if np.shape(vectors) != expected:
            raise ValueError(
                f"t_vecs[{i}]: expected shape (min(N, M) + 1, n_t) = {expected}, got "
                f"{np.shape(vectors)}"
            )
        if not np.isfinite(vectors).all():
            raise ValueError(f"t_vecs[{i}]: expected finite values, got NaN or infinity")


@dataclass(frozen=True)
class _Moments:
    capacity: float
    capacity_se: float
    radius: float
    radius_se: float
    dimension: float
    dimension_se: float
    active: float
    kkt_residual: float
    unsolved: int

    @classmethod
    def undefined(cls) -> _Moments:
        nan = float("nan")
        return cls(nan, nan, nan, nan, nan, nan, nan, nan, 0)


def _moments(
    points: Array,
    kappa: float,
    n_t: int,
    vectors: Array | None,
    definition: Definition,
    rng: np.random.Generator,
) -> _Moments:
    """Average over t for one centred and scaled manifold, shape (N, M).

    With s̃ = Σ β_i s_i all that is needed of the points is their Gram matrix, and of t its
    projections on them.
    """
    dimensions = min(points.shape)
    gram = points.T @ points
    if vectors is None:
        vectors = rng.standard_normal((dimensions + 1, n_t))
        frame = points if len(points) <= points.shape[1] else _factor(gram)
    else:
        frame = points if len(points) <= points.shape[1] else qr(points, mode="r")[0][:dimensions]
    t, t0 = vectors[:-1], vectors[-1]
    along = t.T @ frame
    q = along + (t0 + kappa)[:, None]
    solutions = solve(
        np.vstack([frame, np.ones(frame.shape[1])]), np.vstack([t, t0 + kappa]), gram=gram + 1.0
    )
    weights = barycentric(solutions.multipliers, q)
    projected = np.einsum("ti,ti->t", along, weights)
    sq_norm = np.maximum(np.einsum("ti,ti->t", weights @ gram, weights), 0.0)
    sq_distance = np.maximum(projected + t0 + kappa, 0.0) ** 2 / (1.0 + sq_norm)
    mean_anchor = weights.mean(axis=0)
    root = np.sqrt(n_t)
    if definition == "paper":
        sq_radius = sq_norm
        length = np.sqrt(sq_norm)
        overlap = np.divide(projected, length, out=np.zeros(n_t), where=length > 0) ** 2
        dimension, dimension_se = overlap.mean(), overlap.std(ddof=1) / root
    else:
        common = mean_anchor @ gram
        sq_radius = np.maximum(sq_norm - 2 * weights @ common + common @ mean_anchor, 0.0)
        overlap = projected / np.linalg.norm(t, axis=0) / np.sqrt(sq_norm + 1e-12)
        dimension = dimensions * overlap.mean() ** 2
        dimension_se = 2 * dimensions * abs(overlap.mean()) * overlap.std(ddof=1) / root
    inverse, radius = sq_distance.mean(), float(np.sqrt(sq_radius.mean()))
    with np.errstate(divide="ignore", invalid="ignore"):
        capacity = 1 / inverse
        capacity_se = sq_distance.std(ddof=1) / root / inverse**2
        radius_se = sq_radius.std(ddof=1) / root / (2 * radius) if radius > 0 else 0.0
    return _Moments(
        float(capacity),
        float(capacity_se),
        radius,
        float(radius_se),
        float(dimension),
        float(dimension_se),
        float((solutions.multipliers > 0).sum(axis=1).mean()),
        float(solutions.kkt_residual.max()),
        int((~solutions.solved).sum()),
    )


def _factor(gram: Array) -> Array:
    """Return a square A with AᵀA = gram, by pivoted Cholesky; rows past the rank are zero."""
    packed, pivots, rank, _ = lapack.dpstrf(gram, lower=0)
    upper: Array = np.triu(packed)
    upper[rank:] = 0.0
    factor = np.empty_like(upper)
    factor[:, pivots - 1] = upper
    return factor
