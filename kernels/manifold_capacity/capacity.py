"""Manifold capacity, radius and dimension by mean-field theory (MFTMA)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack, qr, solve_triangular

from manifold_capacity._input import (
    LARGEST,
    MANY,
    Array,
    Manifolds,
    as_manifolds,
    choice,
    flag,
    generator,
    magnitude,
    real_array,
    real_number,
    scaled,
    vanishing,
    whole_number,
)
from manifold_capacity._jit import compiled
from manifold_capacity._parallel import for_each, one_blas_thread
from manifold_capacity._result import Result
from manifold_capacity.anchors import barycentric, solve
from manifold_capacity.centers import GONE, Choice, Rule, center_correlation
from manifold_capacity.centers import low_rank as find_low_rank

Definition = Literal["paper", "package"]

KEPT = 1e-3
"""A manifold that keeps less of its centre is flagged and left out of the combined capacity."""


def mean_field_capacity(
    manifolds: Manifolds,
    kappa: float = 0.0,
    n_t: int = 300,
    t_vecs: Sequence[ArrayLike] | None = None,
    low_rank: Rule | Literal[False] = "guarded",
    definition: Definition = "paper",
    seed: int = 0,
    n_reps: int = 2,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """Return capacity, radius and dimension of manifolds by mean-field theory.

    As the public Python package does (Cohen, Chung, Lee, Sompolinsky 2020): the global mean
    is removed; with `low_rank`, so is the subspace of the centres that makes them correlated
    (`centers.low_rank`); each manifold is centred and divided by the norm of its
    centre. Then, for each, ``1/α = ⟨F(t)⟩`` over Gaussian t (Chung, Lee, Sompolinsky 2018;
    paper, A.4.1), with radius and dimension from the anchor points s̃, without their last
    coordinate:

    - ``"paper"`` (A.4.2): ``R² = ⟨|s̃|²⟩``, ``D = ⟨(t·ŝ)²⟩``, ŝ = s̃/|s̃|;
    - ``"package"``: ``R² = ⟨|s̃ - ⟨s̃⟩|²⟩``, ``D = d ⟨t̂·ŝ⟩²`` with d = min(N, M), which depends on
      padding by zeros and goes to 0 with R below 1e-6.

    The theory takes centres as random and axes as independent of each other. Correlated
    centres are what `low_rank` is for; axes shared by the manifolds are beyond it, and then
    `conic_capacity` is to be trusted.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
        Features by points, of any real type, maybe memory-mapped. Read twice. Memory: O(NP)
        for the centres, and per thread one manifold in float64 with its M x M Gram matrix and
        n_t x M multipliers.
    kappa : float
        Margin, in units of the norm of the centres.
    n_t : int
        Gaussian vectors per manifold.
    t_vecs : sequence of array_like, shapes (min(N, M_i) + 1, n_t), optional
        The Gaussian vectors. Where N > M_i they refer to the frame of
        ``scipy.linalg.qr(S, mode="economic")``, S the centred and scaled points. Default:
        drawn from `seed` and the manifold's number.
    low_rank : {"guarded", "package"} or False
        Rule by which the low-rank structure of the centres is found and removed: ours, or the
        public package's, by which published numbers were made and which may annihilate a
        centre. False: nothing is removed.
    definition : {"paper", "package"}
        Of radius and dimension.
    seed : int
        Of the Gaussian vectors, and of the random starts of the rule ``"package"``.
    n_reps : int
        Starts per rank of the rule ``"package"``.
    threads : int, optional
        Default: all processors. Results do not depend on it.
    progress : bool
        Show a bar after ten seconds.

    Returns
    -------
    Result
        Per manifold ``capacity`` (manifolds per feature), ``radius`` (in norms of the
        centre), ``dimension``, each with its Monte Carlo standard error over t (``..._se``),
        ``center_norm``, ``center_kept`` (the share of it that the low-rank step leaves),
        ``flagged`` (less than `KEPT`: radius and capacity say little), ``active`` (mean number
        of points in an anchor), and ``combined_capacity`` = 1 / mean(1/capacity) of those not
        flagged, with its standard error, ``center_correlation``, ``low_rank_dimension``,
        ``kkt_residual`` (the worst), ``unsolved`` (number of anchors for which the solver gave
        up: 0).

    Raises
    ------
    ValueError
        For values that are not finite, fewer than two manifolds, an empty one, features that
        differ in number, a centre on the global mean, shapes of `t_vecs` that do not fit.

    Warns
    -----
    RuntimeWarning
        Once, naming the manifolds that are flagged.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> theory = mc.mean_field_capacity(manifolds, n_t=100)
    >>> round(theory.combined_capacity, 1)
    1.2
    >>> theory.radius.shape  # of each manifold
    (8,)
    """
    result = analyse(
        manifolds, kappa, n_t, t_vecs, low_rank, definition, seed, n_reps, threads,
        flag("progress", progress),
    )  # fmt: skip
    warn_of_flagged(result)
    return result


def warn_of_flagged(result: Result) -> None:
    """Warn in one line of manifolds that keep too little of their centre, if there are any."""
    flagged = np.flatnonzero(result["flagged"]).tolist()
    if flagged:
        warnings.warn(
            f"manifolds {flagged}: keep less than {KEPT:g} of their centre after the low-rank "
            "step, so their capacity and radius say little; they are left out of the combined "
            "capacity",
            RuntimeWarning,
            stacklevel=3,
        )


@one_blas_thread
def analyse(
    manifolds: Manifolds,
    kappa: float,
    n_t: int,
    t_vecs: Sequence[ArrayLike] | None,
    rule: Rule | Literal[False],
    definition: Definition,
    seed: int,
    n_reps: int,
    threads: int | None,
    progress: bool = False,
    choose: Choice = "cost",
    strict: bool = True,
) -> Result:
    """Return what `mean_field_capacity` does; unless `strict`, NaN for centres of no length."""
    points = as_manifolds(manifolds)
    kappa, n_t = _check(points, kappa, n_t, t_vecs, definition)
    generator(seed)  # checks it
    if rule is not False:
        choice("low_rank (or False)", rule, get_args(Rule))
    centers, factor = _centers(points, threads)
    counts = np.array([manifold.shape[1] for manifold in points], np.float64)
    offsets = centers - (centers @ (counts / counts.sum()))[:, None]
    before = np.linalg.norm(offsets, axis=0)
    before[before <= vanishing(1.0, len(centers))] = 0.0
    if strict and not before.all():
        raise ValueError(
            f"manifold {int(before.argmin())}: its centre coincides with the global mean, so it "
            "has no scale; drop the manifold"
        )
    basis, correlation = np.empty((len(centers), 0)), np.nan
    if before.any() and np.ptp(centers, axis=1).any():
        correlation = center_correlation(centers)
        if rule is not False:
            basis = find_low_rank(centers, rule, n_reps, seed, threads, choose).basis
    offsets -= basis @ (basis.T @ offsets)
    norms = np.linalg.norm(offsets, axis=0)
    norms[(before == 0.0) | (norms <= GONE**0.5 * before)] = 0.0

    def one(i: int) -> _Moments:
        if norms[i] == 0.0:
            return _Moments.undefined()
        relative: Array = np.multiply(points[i], factor, dtype=np.float64)
        relative -= centers[:, i : i + 1]
        if basis.shape[1]:
            relative -= basis @ (basis.T @ relative)
        relative /= norms[i]
        vectors = None if t_vecs is None else np.asarray(t_vecs[i], np.float64)
        return _moments(relative, kappa, n_t, vectors, definition, generator(seed, 1, i))

    moments = for_each(one, range(len(points)), threads, "mean field" if progress else None)
    values = {
        name: np.array([getattr(m, name) for m in moments]) for name in _Moments.__annotations__
    }
    kept = np.divide(norms, before, out=np.full(len(norms), np.nan), where=before > 0)
    flagged = kept < KEPT
    combined, combined_se = _combined(values["capacity"][~flagged], values["capacity_se"][~flagged])
    dims = ("manifold",)
    result: dict[str, tuple[tuple[str, ...], Any]] = {
        name: (dims, values[name])
        for name in (
            "capacity", "capacity_se", "radius", "radius_se", "dimension", "dimension_se", "active",
        )
    }  # fmt: skip
    result |= {
        "center_norm": (dims, norms / factor),
        "center_kept": (dims, kept),
        "flagged": (dims, flagged),
        "combined_capacity": ((), combined),
        "combined_capacity_se": ((), combined_se),
        "center_correlation": ((), correlation),
        "low_rank_dimension": ((), basis.shape[1]),
        "kkt_residual": ((), float(np.nanmax(values["kkt_residual"], initial=0.0))),
        "unsolved": ((), int(values["unsolved"].sum())),
    }
    attributes = {
        "kappa": kappa, "n_t": n_t, "low_rank": rule or "none", "definition": definition,
        "seed": seed, "n_reps": n_reps,
    }  # fmt: skip
    return Result(result, attributes)


def _centers(points: list[NDArray[Any]], threads: int | None) -> tuple[Array, float]:
    """Return the centres, shape (N, P), times a power of two, and that factor.

    Every manifold is read once, and multiplied by a factor of its own before it is averaged.
    """

    def one(i: int) -> tuple[float, Array]:
        values, factor = scaled(f"manifold {i}", points[i])
        return (factor if values.any() else np.inf), values.mean(axis=1)

    factors, means = zip(*for_each(one, range(len(points)), threads), strict=True)
    common = min(factors) if np.isfinite(min(factors)) else 1.0
    return np.stack([m * (common / f) for f, m in zip(factors, means, strict=True)], 1), common


def _combined(capacity: Array, error: Array) -> tuple[float, float]:
    """Return the harmonic mean of the capacities, and its standard error."""
    if not len(capacity):
        return np.nan, np.nan
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = 1 / capacity
        combined = 1 / inverse.mean()
        shares = error / capacity * (inverse / inverse.mean())
    return float(combined), float(combined * np.sqrt((shares**2).sum()) / len(capacity))


def _check(
    points: list[NDArray[Any]],
    kappa: float,
    n_t: int,
    t_vecs: Sequence[ArrayLike] | None,
    definition: str,
) -> tuple[float, int]:
    """Check the options, and return the margin and the number of vectors as plain numbers."""
    kappa = real_number("kappa", kappa, "margin", LARGEST)
    n_t = whole_number("n_t", n_t, 2, " vectors, for a standard error", MANY)
    choice("definition", definition, get_args(Definition))
    if t_vecs is None:
        return kappa, n_t
    try:
        got: Any = len(t_vecs)
    except TypeError:
        got = type(t_vecs).__name__
    if got != len(points):
        raise ValueError(f"t_vecs: expected {len(points)} arrays, one each, got {got}")
    for i, (manifold, given) in enumerate(zip(points, t_vecs, strict=True)):
        vectors = real_array(f"t_vecs[{i}]", given)
        expected = (min(manifold.shape) + 1, n_t)
        if vectors.shape != expected:
            raise ValueError(
                f"t_vecs[{i}]: expected shape (min(N, M) + 1, n_t) = {expected}, got "
                f"{vectors.shape}"
            )
        if magnitude(f"t_vecs[{i}]", vectors) > LARGEST:
            raise ValueError(f"t_vecs[{i}]: expected Gaussian vectors, got values over {LARGEST:g}")
    return kappa, n_t


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
        frame = points if len(points) <= points.shape[1] else _qr_frame(points, gram)
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
        capacity_se = sq_distance.std(ddof=1) / root / inverse / inverse
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
    """Return a square A with AᵀA = gram, by pivoted Cholesky; rows past the rank are zero.

    Points that sum to zero leave two of opposite sign in the last direction, so that
    rounding chooses the pivot. The sign of that row is made the one of the first of the two.
    """
    packed, pivots, rank, _ = lapack.dpstrf(gram, lower=0)
    upper: Array = np.triu(packed)
    upper[rank:] = 0.0
    if len(pivots) > 1 and pivots[-2] > pivots[-1]:
        upper[-2] *= -1.0
    factor = np.empty_like(upper)
    factor[:, pivots - 1] = upper
    return factor


WELL_CONDITIONED = 1e-3
"""Reciprocal condition number from which R by Cholesky is as good as 1e-10."""


def _qr_frame(points: Array, gram: Array) -> Array:
    """Return R of ``scipy.linalg.qr(points, mode="economic")`` for more features than points.

    Points sum to zero, so the last one depends on the others and the last row vanishes. R is
    the Cholesky factor of the Gram matrix but for the signs of its rows, which are those of
    LAPACK's reflections; they follow from the first M rows of Q alone (Ballard, Demmel, Grigori,
    Jacquelin, Nguyen, Solomonik 2014). Where points are nearly dependent, QR itself decides.
    """
    count = points.shape[1]
    size = count - 1
    factor = np.zeros((count, count))
    if not size:
        return factor
    upper, failed = lapack.dpotrf(gram[:size, :size], lower=0, clean=1)
    if failed or lapack.dtrcon(upper)[0] < WELL_CONDITIONED:
        return np.asarray(qr(points, mode="r", check_finite=False)[0][:count])
    first = solve_triangular(upper, points[:size, :size].T, trans="T", check_finite=False).T
    factor[:size, :size] = upper
    factor[:size, size] = solve_triangular(upper, gram[:size, size], trans="T", check_finite=False)
    factor[:size] *= _reflection_signs(np.ascontiguousarray(first))[:, None]
    return factor


@compiled
def _reflection_signs(q):  # type: ignore[no-untyped-def]
    """Return the signs on R's diagonal by Householder QR, from the top square of Q; spoils it."""
    size = q.shape[0]
    signs = np.empty(size)
    for j in range(size):
        signs[j] = -1.0 if q[j, j] >= 0.0 else 1.0
        pivot = q[j, j] - signs[j]
        for i in range(j + 1, size):
            q[i, j] /= pivot
            for k in range(j + 1, size):
                q[i, k] -= q[i, j] * q[j, k]
    return signs
