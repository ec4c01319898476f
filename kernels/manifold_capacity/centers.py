"""Centre correlation, and the low-rank structure of the centres that is removed.

Everything happens in coordinates of the P centres, found from their P x P Gram matrix, so the
number of features N enters only through two products with the (N, P) matrix of centres.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifold_capacity._input import generator
from manifold_capacity._jit import compiled
from manifold_capacity._parallel import for_each, one_blas_thread

Array = NDArray[np.float64]

MEMORY = 10
"""Steps that L-BFGS remembers."""

TOLERANCE = 1e-4
"""Of the minimisation; leaves costs about 1e-6 above the minimum, relatively."""


@dataclass(frozen=True)
class LowRank:
    """The subspace of the centres whose removal leaves them least correlated.

    Attributes
    ----------
    basis : ndarray, shape (N, K)
        Orthonormal.
    correlation : float
        Mean absolute correlation of the centres before.
    residuals : ndarray, shape (ranks tried,)
        The same after removing the best subspace of rank 1, 2, ...; K is the smallest one's.
    costs : ndarray, shape (ranks tried,)
        ½ Σ (squared correlations), diagonal included, which the subspaces minimise.
    """

    basis: Array
    correlation: float
    residuals: Array
    costs: Array

    @property
    def rank(self) -> int:
        """K, the number of dimensions removed."""
        return int(self.basis.shape[1])


def coordinates(centers: Array) -> tuple[Array, Array]:
    """Return the centres minus their mean in an orthonormal basis of their span.

    Parameters
    ----------
    centers : ndarray, shape (N, P)

    Returns
    -------
    x : ndarray, shape (P, r)
        r <= P - 1 is the rank; directions by falling variance.
    basis : ndarray, shape (N, r)

    Raises
    ------
    ValueError
        If there are fewer than two, a value is not finite, or all coincide.
    """
    centers = np.asarray(centers, np.float64)
    if centers.ndim != 2 or centers.shape[0] < 1 or centers.shape[1] < 2:
        raise ValueError(
            f"centers: expected an array (N features, P >= 2 centres), got shape {centers.shape}"
        )
    if not np.isfinite(centers).all():
        raise ValueError("centers: expected finite values, got NaN or infinity")
    deviations = centers - centers.mean(axis=1, keepdims=True)
    variances, vectors = np.linalg.eigh(deviations.T @ deviations)
    kept = np.flatnonzero(variances > 1e-12 * max(variances[-1], 0.0))[::-1]
    scale = np.abs(centers).max()
    if not len(kept) or variances[-1] <= (1e-13 * scale) ** 2 * centers.size:
        raise ValueError("all centres coincide: no correlation is defined between them")
    lengths = np.sqrt(variances[kept])
    return np.ascontiguousarray(vectors[:, kept] * lengths), deviations @ (
        vectors[:, kept] / lengths
    )


@one_blas_thread
def center_correlation(centers: Array) -> float:
    """Mean absolute correlation between pairs of centres, their common mean removed.

    ``(Σ_ij |C_ij| - P) / (P (P - 1))`` with C the cosines (paper, A.4.2).

    Parameters
    ----------
    centers : ndarray, shape (N, P)
    """
    return _mean_correlation(coordinates(centers)[0])


def _mean_correlation(x: Array) -> float:
    """Mean absolute cosine between rows; a row of length zero correlates with none."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(lengths > 0, lengths, 1.0)
    cosines = np.abs(unit @ unit.T)
    count = len(x)
    return float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


@one_blas_thread
def low_rank(centers: Array, n_reps: int = 2, seed: int = 0, threads: int | None = None) -> LowRank:
    """Find the subspace whose removal leaves the centres least correlated.

    As in the public package: for K = 1, 2, ... the best subspace of rank K is found, the
    search stops after three increases of the residual correlation past K = 4, and the K with
    the smallest is taken. K is at most rank - 1 of the centres, so that something is left
    (0 for two manifolds), and at most 11 more than the rank that holds 95 % of the variance.
    Unlike there, subspaces are compared by the cost that is minimised, every search also
    starts from the best subspace of rank K - 1 and the leading residual direction, and
    random starts depend on `seed` alone.

    Parameters
    ----------
    centers : ndarray, shape (N, P)
    n_reps : int
        Starts per rank; the first is deterministic, the others random.
    seed : int
    threads : int, optional
        Default: all processors. The result does not depend on it.
    """
    if n_reps < 1:
        raise ValueError(f"n_reps: expected at least 1 start, got {n_reps}")
    x, basis = coordinates(centers)
    share = np.cumsum(np.linalg.norm(x, axis=0) ** 2)
    share /= share[-1]
    largest = min(int(np.argmax(np.where(share < 0.95, share, 0))) + 11, x.shape[1] - 1)
    rng = generator(seed, 0)
    gram = x @ x.T
    best = np.empty((x.shape[1], 0))
    subspaces, residuals, costs = [best], [np.inf], [np.inf]
    for rank in range(1, largest + 1):
        added = [_leading_direction(x - (x @ best) @ best.T)]
        added += [x.T @ rng.standard_normal(len(x)) for _ in range(n_reps - 1)]
        starts = [np.linalg.qr(np.column_stack([best, extra]))[0] for extra in added]
        found = for_each(lambda start: minimise(x, gram, start), starts, threads)
        best, cost = min(found, key=lambda one: one[1])
        subspaces.append(best)
        costs.append(cost)
        residuals.append(_mean_correlation(x - (x @ best) @ best.T))
        if rank > 4 and residuals[-1] > residuals[-2] > residuals[-3] > residuals[-4]:
            break
    chosen = int(np.argmin(residuals))
    orthonormal = np.linalg.qr(basis @ subspaces[chosen])[0]
    return LowRank(orthonormal, _mean_correlation(x), np.array(residuals[1:]), np.array(costs[1:]))


@compiled
def _weigh(left, inverse, squares):  # type: ignore[no-untyped-def]
    """Replace E by E_mn / (E_mm E_nn), and set `squares` to the row sums of E_mn² / (E_mm E_nn)."""
    for m in range(left.shape[0]):
        total = 0.0
        for n in range(left.shape[1]):
            weighted = left[m, n] * inverse[m] * inverse[n]
            total += left[m, n] * weighted
            left[m, n] = weighted
        squares[m] = total


def _leading_direction(x: Array) -> Array:
    """Return about the direction that most rows share, each scaled to length one."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(lengths > 0, lengths, 1.0)
    matrix = unit.T @ unit
    direction: Array = matrix[:, matrix.diagonal().argmax()]
    for _ in range(20):  # power iteration; as a start this is close enough
        direction = matrix @ direction
        direction /= np.linalg.norm(direction)
    return direction


def cost_and_gradient(x: Array, gram: Array, v: Array) -> tuple[float, Array, Array]:
    """Return the cost ½ Σ_mn E_mn² / (E_mm E_nn), its gradient, and a preconditioner.

    E = X (1 - VVᵀ) Xᵀ are the inner products of the centres off the subspace V.

    Parameters
    ----------
    x : ndarray, shape (P, r)
        Centres.
    gram : ndarray, shape (P, P)
        X Xᵀ.
    v : ndarray, shape (r, K)
        Orthonormal basis of the subspace.

    Returns
    -------
    cost : float
    gradient : ndarray, shape (r, K)
        In the tangent space of the Grassmannian.
    preconditioner : ndarray, shape (K, K)
        (cᵀ diag(E)⁻¹ c + 1)⁻¹ with c = X V; multiplies gradients from the right.
    """
    c = x @ v
    left = gram - c @ c.T
    inverse, squares = 1.0 / left.diagonal(), np.empty(len(x))
    _weigh(left, inverse, squares)
    gradient = 2.0 * (x.T @ ((squares * inverse)[:, None] * c - left @ c))
    gradient -= v @ (v.T @ gradient)
    precondition = np.linalg.inv(c.T @ (inverse[:, None] * c) + np.eye(c.shape[1]))
    return float(squares.sum()) / 2, gradient, precondition.astype(np.float64, copy=False)


def minimise(
    x: Array, gram: Array, v: Array, tolerance: float = TOLERANCE, limit: int = 500
) -> tuple[Array, float]:
    """Minimise `cost_and_gradient` over subspaces by preconditioned L-BFGS from `v`.

    Steps are retracted by the polar decomposition, which turns the basis least, so that
    remembered steps stay comparable; the direction made from them is projected onto the
    tangent space (Absil, Mahony, Sepulchre 2008). Stops when the slope along the step is
    below `tolerance`² of the cost, or nothing is to be gained within rounding.

    Returns
    -------
    v : ndarray, shape (r, K)
    cost : float
    """
    cost, gradient, precondition = cost_and_gradient(x, gram, v)
    memory: deque[tuple[Array, Array, float]] = deque(maxlen=MEMORY)
    for _ in range(limit):
        direction = -_inverse_hessian(memory, gradient, precondition)
        direction -= v @ (v.T @ direction)
        slope = float(np.vdot(direction, gradient))
        if slope > -(tolerance**2) * cost:
            break
        squares, turn = np.linalg.eigh(direction.T @ direction)
        step = 1.0 if memory else min(1.0, 0.5 / float(np.sqrt(squares[-1])))
        while step > 1e-10:
            polar = (turn / np.sqrt(1.0 + step * step * squares)) @ turn.T
            trial = (v + step * direction) @ polar
            new_cost, new_gradient, precondition = cost_and_gradient(x, gram, trial)
            if new_cost <= cost + 1e-4 * step * slope:
                break
            step /= 2.0
        else:
            break
        moved, change = step * direction, new_gradient - gradient
        product = float(np.vdot(moved, change))
        if product > 1e-12 * np.linalg.norm(moved) * np.linalg.norm(change):
            memory.append((moved, change, product))
        v, cost, gradient = trial, new_cost, new_gradient
    return v, cost


def _inverse_hessian(
    memory: Sequence[tuple[Array, Array, float]], gradient: Array, precondition: Array
) -> Array:
    """Apply the L-BFGS approximation of the inverse Hessian (Nocedal and Wright, alg. 7.4)."""
    result, factors = gradient.copy(), []
    for step, change, product in reversed(memory):
        factors.append(float(np.vdot(step, result)) / product)
        result -= factors[-1] * change
    result = result @ precondition
    if memory:
        _, change, product = memory[-1]
        result *= product / float(np.vdot(change, change @ precondition))
    for (step, change, product), factor in zip(memory, reversed(factors), strict=True):
        result += (factor - float(np.vdot(change, result)) / product) * step
    return result
