"""Anchor points: the problem at the heart of manifold capacity, and its certification.

For a manifold with points s_i in R^(D+1), whose last coordinate is 1, and a Gaussian vector t,

    F(t) = min |v - t|²  subject to  v·s_i <= -κ  for all i.

The multipliers α of this problem solve a non-negative least-squares problem with the Gram
matrix of the points, shared by all t (`nnls`): κ only moves t's last coordinate. The
anchor point is Σ α_i s_i / Σ α_i; where t satisfies the constraints already, it is the point
with the largest projection (Chung, Lee, Sompolinsky 2018, section III; signs as in the public
Python package, which is theirs under t → -t).
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifold_capacity._input import (
    LARGEST,
    flag,
    magnitude,
    power_of_two,
    real_array,
    real_number,
    whole_number,
)
from manifold_capacity._parallel import for_each, one_blas_thread
from manifold_capacity.nnls import solve_rows

Array = NDArray[np.float64]

CHUNK = 256
"""Vectors t solved as one task."""

ACCEPTED = 1e-12
"""Largest relative violation of the optimality conditions that is not solved again."""


@dataclass(frozen=True)
class Solutions:
    """Multipliers of many anchor problems that share their points.

    Attributes
    ----------
    multipliers : ndarray, shape (n_t, M)
    kkt_residual : ndarray, shape (n_t,)
        Largest violation of the optimality conditions, relative to max_i |t·s_i + κ|.
    iterations : ndarray of int, shape (n_t,)
    solved : ndarray of bool, shape (n_t,)
        False where the cap on iterations was reached; never seen, never hidden.
    """

    multipliers: Array
    kkt_residual: Array
    iterations: NDArray[np.int64]
    solved: NDArray[np.bool_]


@dataclass(frozen=True)
class Anchors:
    """Anchor points of a manifold for given Gaussian vectors.

    Attributes
    ----------
    anchors : ndarray, shape (D+1, n_t)
        s̃ with last coordinate 1.
    sq_distance : ndarray, shape (n_t,)
        F(t) = |v - t|² = [t·s̃ + κ]₊² / |s̃|², norms with the last coordinate.
    kkt_residual, iterations, solved
        As in `Solutions`.
    multipliers : ndarray, shape (M, n_t), or None
        α, if asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> points = np.array([[1.0, -1.0], [1.0, 1.0]])
    >>> anchors = mc.anchor_points(points, np.array([[0.5], [1.0]]), multipliers=True)
    >>> bool(anchors.solved.all()), anchors.multipliers.shape
    (True, (2, 1))
    """

    anchors: Array
    sq_distance: Array
    kkt_residual: Array
    iterations: NDArray[np.int64]
    solved: NDArray[np.bool_]
    multipliers: Array | None = None


def solve(
    points: Array, vectors: Array, sign: Array | None = None, gram: Array | None = None
) -> Solutions:
    """Solve min ½ |Sα - t|² over sign∘α >= 0 for every column t.

    First on the Gram matrix SᵀS (`nnls`). That squares the condition number, so where
    points are nearly dependent, at about one part in 10⁴, some solutions miss the optimality
    conditions by more than `ACCEPTED`; those are solved again by `scipy.optimize.nnls`, which
    works on S by orthogonal transformations and costs some fifty times more.

    Parameters
    ----------
    points : ndarray, shape (D, M)
        S.
    vectors : ndarray, shape (D, n)
    sign : ndarray, shape (M,), optional
        +1 or -1; default ones.
    gram : ndarray, shape (M, M), optional
        SᵀS, if known.
    """
    count, size = vectors.shape[1], points.shape[1]
    sign = np.ones(size) if sign is None else sign
    gram = points.T @ points if gram is None else gram
    q = np.ascontiguousarray(vectors.T @ points)
    solutions = Solutions(
        np.zeros((count, size)), np.empty(count), np.empty(count, np.int64), np.empty(count, bool)
    )
    solve_rows(
        gram, q, sign, len(points), 100 + 10 * size,
        solutions.multipliers, solutions.kkt_residual, solutions.iterations, solutions.solved,
    )  # fmt: skip
    for row in np.flatnonzero(~solutions.solved | (solutions.kkt_residual > ACCEPTED)).tolist():
        _solve_again(points * sign, vectors[:, row], sign, solutions, row)
    return solutions


def _solve_again(points: Array, vector: Array, sign: Array, solutions: Solutions, row: int) -> None:
    """Replace the solution of a row by scipy's, if that is closer to optimal."""
    from scipy.optimize import nnls

    try:
        alpha, _ = nnls(points, vector)
    except RuntimeError:  # its own cap on iterations
        return
    gradient = points.T @ (vector - points @ alpha)
    residual = np.where(alpha > 0, np.abs(gradient), gradient).max(initial=0.0)
    residual /= np.abs(points.T @ vector).max()
    if residual < solutions.kkt_residual[row]:
        solutions.multipliers[row] = sign * alpha
        solutions.kkt_residual[row] = residual
        solutions.solved[row] = True


@one_blas_thread
def anchor_points(
    sD1: ArrayLike,
    t: ArrayLike,
    kappa: float = 0.0,
    multipliers: bool = False,
    threads: int | None = None,
) -> Anchors:
    """Return the anchor points of one manifold.

    Parameters
    ----------
    sD1 : array_like, shape (D+1, M)
        Points as columns; the last row is 1, the coordinate along the centre.
    t : array_like, shape (D+1, n_t)
        Gaussian vectors as columns.
    kappa : float
        Margin.
    multipliers : bool
        Return the multipliers too, an array (M, n_t).
    threads : int, optional
        Default: all processors. The result does not depend on it.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or the last row of `sD1` is not 1.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> points = np.array([[1.0, -1.0], [1.0, 1.0]])  # a segment; the last row is the centre's
    >>> anchors = mc.anchor_points(points, np.array([[0.5, -2.0], [1.0, 1.0]]))
    >>> anchors.anchors
    array([[ 0.5, -1. ],
           [ 1. ,  1. ]])
    >>> anchors.sq_distance
    array([1.25, 4.5 ])
    """
    points, vectors, margin = _check(sD1, t, kappa)
    flag("multipliers", multipliers)
    vectors = vectors.copy()
    vectors[-1] += margin
    factor = power_of_two(magnitude("sD1", points))  # of a cone's generators: it does not matter
    points *= factor
    gram = points.T @ points
    parts = for_each(
        lambda start: solve(points, vectors[:, start : start + CHUNK], gram=gram),
        range(0, vectors.shape[1], CHUNK),
        threads,
    )
    q = vectors.T @ points
    alpha = np.concatenate([part.multipliers for part in parts])
    weights = barycentric(alpha, q)
    anchors = (points / factor) @ weights.T
    return Anchors(
        anchors,
        sq_distance(weights, gram, q),
        np.concatenate([part.kkt_residual for part in parts]),
        np.concatenate([part.iterations for part in parts]),
        np.concatenate([part.solved for part in parts]),
        alpha.T * factor if multipliers else None,
    )


def barycentric(alpha: Array, q: Array) -> Array:
    """Return the weights of the points in the anchors, shape (n_t, M); rows sum to 1.

    Multipliers over their sum, or all weight on the point of largest projection where every
    multiplier is zero.
    """
    total = alpha.sum(axis=1, keepdims=True)
    inside = np.flatnonzero(total[:, 0] == 0.0)
    total[inside] = 1.0
    weights: Array = alpha / total
    weights[inside, q[inside].argmax(axis=1)] = 1.0
    return weights


def sq_distance(weights: Array, gram: Array, q: Array) -> Array:
    """Return F of every row: [t·s̃ + κ]₊² / |s̃|²."""
    projection = np.maximum(np.einsum("ti,ti->t", q, weights), 0.0)
    norm = np.einsum("ti,ti->t", weights @ gram, weights)
    result: Array = projection**2 / norm
    return result


def _check(sD1: ArrayLike, t: ArrayLike, kappa: float) -> tuple[Array, Array, float]:
    """Return copies of points and vectors, and the margin."""
    points, vectors = real_array("sD1", sD1), real_array("t", t)
    margin = real_number("kappa", kappa, "margin", LARGEST)
    shapes = (points.shape, vectors.shape)
    if any(len(s) != 2 or 0 in s for s in shapes) or len(vectors) != len(points):
        raise ValueError(
            f"expected sD1 (D+1, M) and t (D+1, n_t) of equal first length, got {points.shape} "
            f"and {vectors.shape}"
        )
    magnitude("sD1", points)
    if magnitude("t", vectors) > LARGEST:
        raise ValueError(f"t: expected Gaussian vectors, got values over {LARGEST:g}")
    if not (points[-1] == 1.0).all():
        raise ValueError("sD1: expected a last row of ones, the coordinate along the centre")
    return points.astype(np.float64), vectors.astype(np.float64), margin


@dataclass(frozen=True)
class Certificate:
    """The same anchor problems, solved by general convex solvers.

    Attributes
    ----------
    sq_distance : dict of str to ndarray, shape (n,)
        F by each solver; NaN where it gave up.
    difference : ndarray, shape (n,)
        Of the kernel's F to the nearest solver's, relative to the largest F found and at least
        1e-12 max_i q_i², below which F is rounding. NaN where every solver gave up.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> points = np.array([[1.0, -1.0], [1.0, 1.0]])
    >>> certificate = mc.certify(points, np.array([[0.5], [1.0]]), solvers=["CLARABEL"])
    >>> list(certificate.sq_distance)
    ['CLARABEL']
    """

    sq_distance: dict[str, Array]
    difference: Array

    def __str__(self) -> str:
        return (
            f"largest difference to cvxpy: {np.nanmax(self.difference):.1e} relative, over "
            f"{len(self.difference)} solves by {', '.join(self.sq_distance)}"
        )


def certify(
    sD1: ArrayLike,
    t: ArrayLike,
    kappa: float = 0.0,
    subset: Sequence[int] | None = None,
    solvers: Sequence[str] = ("CLARABEL", "OSQP"),
) -> Certificate:
    """Solve anchor problems through cvxpy and compare.

    The problem is posed in its primal form, v directly, which shares nothing with the dual
    route of the kernel.

    Parameters
    ----------
    sD1, t, kappa
        As in `anchor_points`.
    subset : sequence of int, optional
        Columns of `t` to solve; default all.
    solvers : sequence of str
        Names that cvxpy knows.

    Raises
    ------
    ImportError
        If cvxpy is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> points = np.array([[1.0, -1.0], [1.0, 1.0]])
    >>> certificate = mc.certify(points, np.array([[0.5, -2.0], [1.0, 1.0]]))
    >>> bool(certificate.difference.max() < 1e-6)
    True
    """
    if importlib.util.find_spec("cvxpy") is None:
        raise ImportError(
            "certify: expected cvxpy, which is not installed; "
            "pip install 'logit-distributions[certify]' brings it"
        )
    points, vectors, margin = _check(sD1, t, kappa)
    chosen = np.arange(vectors.shape[1])
    if subset is not None:
        wanted = [whole_number("subset", column, 0) for column in subset]
        if max(wanted, default=0) >= len(chosen):
            last = len(chosen) - 1
            raise ValueError(f"subset: expected columns of t up to {last}, got {max(wanted)}")
        chosen = chosen[wanted]
    ours = anchor_points(points, vectors[:, chosen], margin).sq_distance
    costs = {name: np.full(len(chosen), np.nan) for name in solvers}
    scales = np.empty(len(chosen))
    for k, column in enumerate(chosen):
        q = points.T @ vectors[:, column] + margin
        scales[k] = max(q.max(), 0.0) ** 2
        for name in solvers:
            costs[name][k] = _by_cvxpy(points, q, name)
    theirs = np.array(list(costs.values()))
    nearest = np.fmin.reduce(np.abs(theirs - ours))
    size = np.maximum(np.fmax.reduce([ours, *theirs]), 1e-12 * scales)
    return Certificate(costs, nearest / np.where(size > 0, size, 1.0))


_TIGHT: dict[str, dict[str, float | int | bool]] = {
    "CLARABEL": {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-13, "tol_feas": 1e-13},
    "OSQP": {"eps_abs": 1e-10, "eps_rel": 1e-10, "max_iter": 100_000, "polishing": True},
}


def _by_cvxpy(points: Array, q: Array, solver: str) -> float:
    """Return min |u|² with points.T u >= q, where u = t - v; NaN if the solver gives up.

    Rows are scaled to unit normals, and the whole to a largest distance of one.
    """
    import cvxpy

    norms = np.linalg.norm(points, axis=0)
    distances = q / norms
    scale = distances.max()
    if scale <= 0:
        return 0.0
    u = cvxpy.Variable(len(points))
    problem = cvxpy.Problem(
        cvxpy.Minimize(cvxpy.sum_squares(u)), [(points / norms).T @ u >= distances / scale]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "may be inaccurate": we compare
        try:
            problem.solve(solver=solver, **_TIGHT.get(solver, {}))
        except cvxpy.SolverError:
            return float("nan")
    return float("nan") if u.value is None else float(u.value @ u.value) * scale**2
