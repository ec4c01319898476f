"""Is a labelled set linearly separable? With a proof either way.

Let z_i = y_i (x_i, 1), scaled to length one. The squared hinge ``½ Σ [1 - z_i·w]₊²`` always
has a minimum. If the set is separable the minimum is zero, and w separates. If not, its
optimality condition ``Σ α_i z_i = 0`` with ``α_i = [1 - z_i·w]₊ >= 0``, not all zero, is a
Farkas certificate that nothing separates (Gordan's theorem). The function is piecewise
quadratic: Newton's method with an exact line search ends after finitely many steps
(Mangasarian 2002; Keerthi and DeCoste 2005).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from manifold_capacity._parallel import one_blas_thread

Array = NDArray[np.float64]

LIMIT = 200
"""Newton steps after which the answer is "undecided"."""

FARKAS = 1e-10
"""Largest ``|Σ α_i z_i|`` for a proof of inseparability, with Σ α_i = 1 and |z_i| = 1."""

RIDGE = 1e-13
"""Added to the diagonal of Newton's matrix, relative to its mean."""


@dataclass(frozen=True)
class Separation:
    """Whether a labelled set is linearly separable, and the proof.

    Attributes
    ----------
    separable : bool or None
        None: undecided within tolerance.
    weights : ndarray, shape (n,), and offset : float
        If separable: ``labels * (weights @ points + offset) > 0``; |weights| = 1.
    margin : float
        If separable, the smallest of these values: the distance of the nearest point from
        this hyperplane (a separating one, not the one of largest margin). Else NaN.
    multipliers : ndarray, shape (m,), or None
        If not separable: non-negative, sum 1, with ``Σ α_i labels_i (points_i, 1) = 0`` up to
        `residual` (without the 1 if there is no bias).
    residual : float
        If not separable: ``|Σ α_i z_i|`` with every z_i scaled to length one and α anew to sum
        one. No w of length one has all z_i·w > `residual`. Else NaN.
    iterations : int
    """

    separable: bool | None
    weights: Array | None
    offset: float
    margin: float
    multipliers: Array | None
    residual: float
    iterations: int


@one_blas_thread
def separable(points: ArrayLike, labels: ArrayLike, bias: bool = True) -> Separation:
    """Decide whether a hyperplane separates two classes of points.

    Both answers are checked by plain arithmetic before they are returned: the hyperplane on
    every point, against the rounding of its own evaluation; the multipliers against zero.

    Parameters
    ----------
    points : array_like, shape (n, m)
        Features by points.
    labels : array_like, shape (m,)
        +1 or -1.
    bias : bool
        Allow an offset; else the hyperplane contains the origin.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not a finite real number, or a label is neither +1
        nor -1.
    """
    for name, given in (("points", points), ("labels", labels)):
        if (kind := np.asarray(given).dtype).kind not in "bfiu":
            raise ValueError(f"{name}: expected real numbers, got dtype {kind}")
    x, y = np.asarray(points, np.float64), np.asarray(labels, np.float64)
    if x.ndim != 2 or 0 in x.shape or y.shape != x.shape[1:]:
        raise ValueError(
            f"expected points (n, m) and labels (m,), got shapes {x.shape} and {y.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("points: expected finite values, got NaN or infinity")
    if not (np.abs(y) == 1).all():
        raise ValueError(f"labels: expected +1 or -1, got {np.unique(y)[:5]}")
    shift = x.mean(axis=1) if bias else np.zeros(len(x))
    rows, lengths, last = signed_rows(x - shift[:, None], y, bias)
    if not lengths.all():  # without bias, a point at the origin is on every hyperplane
        multipliers = (lengths == 0) / np.count_nonzero(lengths == 0)
        return Separation(False, None, np.nan, np.nan, multipliers, 0.0, 0)
    verdict, w, steps = decide(rows)
    if verdict is None:
        return Separation(None, None, np.nan, np.nan, None, np.nan, steps)
    if verdict:
        weights = w[: len(x)]
        offset = (last * float(w[-1]) if bias else 0.0) - float(weights @ shift)
        norm = float(np.linalg.norm(weights))
        if norm == 0.0:  # one class only: any hyperplane on the right side of all points
            weights = np.zeros(len(x))
            weights[0] = norm = 1.0
            offset = float(y[0]) * (np.abs(x[0]).max() + 1.0)
        weights, offset = weights / norm, offset / norm
        margins = y * (weights @ x + offset)
        rounding = 4 * len(x) * np.finfo(float).eps * (np.abs(weights) @ np.abs(x) + abs(offset))
        if (margins > rounding).all():
            return Separation(True, weights, offset, float(margins.min()), None, np.nan, steps)
        return Separation(None, None, np.nan, np.nan, None, np.nan, steps)
    alpha = np.maximum(1.0 - rows @ w, 0.0)
    alpha /= alpha.sum()
    residual = float(np.linalg.norm(alpha @ rows))
    original = alpha / lengths
    return Separation(False, None, np.nan, np.nan, original / original.sum(), residual, steps)


def signed_rows(features: Array, signs: Array, bias: bool) -> tuple[Array, Array, float]:
    """Return the z_i, scaled to length one.

    Parameters
    ----------
    features : ndarray, shape (n, m)
    signs : ndarray, shape (m,)
    bias : bool

    Returns
    -------
    rows : ndarray, shape (m, n + bias)
        Zero where z_i is.
    lengths : ndarray, shape (m,)
        Of the z_i before.
    last : float
        Their last coordinate with a bias: the points' root mean square length instead of 1,
        which conditions the problem.
    """
    n, count = features.shape
    last = float(np.sqrt(np.einsum("ij,ij->", features, features) / count)) or 1.0
    rows = np.empty((count, n + bias))
    rows[:, :n] = features.T
    rows[:, n:] = last
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    rows *= (signs / np.where(lengths > 0, lengths, 1.0))[:, None]
    return rows, lengths, last


def decide(rows: Array, start: Array | None = None) -> tuple[bool | None, Array, int]:
    """Find w with ``rows @ w > 0``, or prove that there is none.

    Parameters
    ----------
    rows : ndarray, shape (m, n)
        The z_i, of length one.
    start : ndarray, shape (n,), optional
        Where to begin.

    Returns
    -------
    verdict : bool or None
        True: all ``rows @ w`` exceed rounding. False: the multipliers ``[1 - rows @ w]₊``,
        scaled to sum 1, combine the rows to less than `FARKAS`. None: neither, after `LIMIT`
        steps.
    w : ndarray, shape (n,)
    iterations : int
    """
    count, size = rows.shape
    w = np.zeros(size) if start is None else start
    slack = 1.0 - rows @ w
    smallest = 64 * size * np.finfo(float).eps
    for iteration in range(LIMIT):
        length = float(np.abs(w).sum())
        if float(slack.max()) < 1.0 - smallest * length:
            return True, w, iteration
        active = np.flatnonzero(slack > 0.0)
        some = rows if len(active) == count else rows[active]
        gradient = slack[active] @ some
        if np.linalg.norm(gradient) <= FARKAS * slack[active].sum():
            return False, w, iteration
        matrix = some.T @ some
        matrix.flat[:: size + 1] += RIDGE * len(active) / size
        _, direction, failed = lapack.dposv(matrix, gradient, overwrite_a=1)
        if failed:  # pragma: no cover - the ridge makes it positive definite
            break
        along = rows @ direction
        step = _line_search(slack, along)
        w = w + step * direction
        slack -= step * along
        if iteration % 10 == 9:
            slack = 1.0 - rows @ w
    return None, w, LIMIT


def _line_search(slack: Array, along: Array) -> float:
    """Minimise ``Σ [slack - s along]₊²`` over s > 0, exactly up to rounding.

    The derivative is piecewise linear and increasing; Newton's method on it, kept within the
    bracket found so far, ends on the right piece after a few steps.
    """
    low, high, step = 0.0, np.inf, 1.0
    for _ in range(60):
        left = slack - step * along
        active = left > 0.0
        chosen = along[active]
        slope = float(chosen @ left[active])  # minus half the derivative
        curvature = float(chosen @ chosen)
        if slope > 0:
            low = step
        else:
            high = step
        if curvature == 0.0:
            break
        proposal = step + slope / curvature
        if not low <= proposal <= high:
            proposal = 0.5 * (low + high)
        if abs(proposal - step) <= 1e-12 * step:
            break
        step = proposal
    return step
