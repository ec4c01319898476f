"""Centre correlation, and the low-rank structure of the centres that is removed.

Everything happens in coordinates of the P centres, found from their P x P Gram matrix, so the
number of features N enters only through two products with the (N, P) matrix of centres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh

from manifold_capacity._input import (
    choice,
    generator,
    real_array,
    scaled,
    vanishing,
    whole_number,
)
from manifold_capacity._jit import compiled
from manifold_capacity._parallel import for_each, one_blas_thread

Array = NDArray[np.float64]
Rule = Literal["guarded", "package"]
Choice = Literal["cost", "stability"]

EVENNESS = 1.0
"""Weight of the barrier of the guarded rule, in units of squared correlations."""

EXCESS = 1.25
"""The guarded rule stops at this many times the mean squared correlation of random centres."""

PATIENCE = 3
"""Increases in a row after which a search ends."""

STARTS = 4
"""Leading residual directions from which the guarded rule's last minimisation starts, too."""

GONE = 1e-14
"""Share of its squared length below which what is left of a centre is rounding."""

MEMORY = 10
"""Steps that L-BFGS remembers."""

TOLERANCE = 1e-4
"""Of the minimisation; leaves costs about 1e-6 above the minimum, relatively."""

LOOSE = 1e-2
"""The same where the guarded rule only looks for K and for the lowest valley."""


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
        The same after removing the best subspace of rank 1, 2, ...
    costs : ndarray, shape (ranks tried,)
        What the subspaces minimise: ½ Σ (squared correlations), diagonal included, and for the
        guarded rule the barrier; there it is minimised to the end for K alone.
    kept : ndarray, shape (P,)
        Share of its length, after subtraction of the centres' mean, that each centre keeps;
        NaN for a centre on that mean.
    """

    basis: Array
    correlation: float
    residuals: Array
    costs: Array
    kept: Array

    @property
    def rank(self) -> int:
        """K, the number of dimensions removed."""
        return int(self.basis.shape[1])


def coordinates(centers: ArrayLike) -> tuple[Array, Array]:
    """Return the centres minus their mean in an orthonormal basis of their span.

    Parameters
    ----------
    centers : array_like, shape (N, P)

    Returns
    -------
    x : ndarray, shape (P, r)
        r <= P - 1 is the rank; directions by falling variance. Divided by a common factor.
        Zero for a centre on the mean, up to rounding.
    basis : ndarray, shape (N, r)

    Raises
    ------
    ValueError
        If there are fewer than two, a value is not finite, or all coincide.
    """
    given = real_array("centers", centers)
    if given.ndim != 2 or given.shape[0] < 1 or given.shape[1] < 2:
        raise ValueError(
            f"centers: expected an array (N features, P >= 2 centres), got shape {given.shape}"
        )
    values, _ = scaled("centers", given)
    deviations = values - values.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(deviations, axis=0)
    deviations[:, lengths <= vanishing(float(np.abs(values).max()), len(values))] = 0.0
    if not deviations.any():
        raise ValueError("all centres coincide: no correlation is defined between them")
    deviations /= lengths.max()
    variances, vectors = np.linalg.eigh(deviations.T @ deviations)
    kept = np.flatnonzero(variances > 1e-12 * variances[-1])[::-1]
    lengths = np.sqrt(variances[kept])
    return np.ascontiguousarray(vectors[:, kept] * lengths), deviations @ (
        vectors[:, kept] / lengths
    )


@one_blas_thread
def center_correlation(centers: ArrayLike) -> float:
    """Mean absolute correlation between pairs of centres, their common mean removed.

    ``(Σ_ij |C_ij| - P) / (P (P - 1))`` with C the cosines (paper, A.4.2); a centre on the mean
    correlates with none.

    Parameters
    ----------
    centers : array_like, shape (N, P)

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> centers = np.random.default_rng(0).standard_normal((40, 8))
    >>> round(mc.center_correlation(centers), 3)
    0.162
    """
    return _mean_correlation(coordinates(centers)[0])


def _mean_correlation(x: Array) -> float:
    """Mean absolute cosine between rows; a row of length zero correlates with none."""
    cosines = np.abs(_unit(x) @ _unit(x).T)
    count = len(x)
    return float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))


def _unit(x: Array) -> Array:
    """Return the rows scaled to length one, those of length zero as they are."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    result: Array = x / np.where(lengths > 0, lengths, 1.0)
    return result


@one_blas_thread
def low_rank(
    centers: ArrayLike,
    rule: Rule = "guarded",
    n_reps: int = 2,
    seed: int = 0,
    threads: int | None = None,
    choose: Choice = "cost",
) -> LowRank:
    """Find the subspace whose removal leaves the centres least correlated.

    Both rules look for K = 1, 2, ... for the best subspace of rank K, the one in whose
    orthogonal complement the squared correlations ``½ Σ C_mn²`` are smallest (Cohen, Chung,
    Lee, Sompolinsky 2020). K is at most the rank of the centres minus one, so that something is
    left (0 for two manifolds).

    ``"guarded"``, ours. (1) Correlations alone have no objection to removing one centre almost
    whole. A barrier is added to the cost, ``log(mean of k_m / geometric mean of k_m)`` summed
    over centres, k_m the share of its squared length that centre m keeps: zero where all keep
    the same share, however small, infinite where one is annihilated. (2) K = 0 counts. The
    search ends at the first K at which the mean squared correlation, in units of the least that
    the dimensions left allow (Welch 1974), is at most `EXCESS` times that of random centres
    of the same shape, or after three increases of it in a row; of the K tried, the one of
    the smallest mean squared correlation is taken. (3) No random start: the answer depends on the
    centres alone.

    Weight and stop were chosen by ``tests/bench/low_rank_rules.py``: synthetic manifolds with
    random, few and correlated centres and ReLU features of random networks. The mean-field
    capacity after removal differs from the truth, conic geometry and simulation, by a factor
    whose logarithm has a root mean square of 0.064 on seeds that had no part in the choice;
    with the package's rule it is 0.158, without removal 0.469, without the barrier 0.109.

    ``"package"``, the public package's: the K >= 1 with the smallest mean absolute correlation,
    among those up to three increases in a row past K = 4, and at most 11 more than the
    rank that holds 95 % of the variance. Nothing guards a centre. Subspaces are compared by
    cost, every search also starts from the best subspace of rank K - 1 and the leading residual
    direction, and random starts depend on `seed` alone.

    Parameters
    ----------
    centers : array_like, shape (N, P)
    rule : {"guarded", "package"}
    n_reps : int
        Starts per rank of the rule ``"package"``; the first is deterministic, the others random.
    seed : int
        Of these random starts.
    threads : int, optional
        Default: all processors. The result does not depend on it.
    choose : {"cost", "stability"}
        Which of the `n_reps` subspaces is taken: the one of lowest cost, or, as the public
        package does, the one in which the centre that keeps least keeps most.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> shared = 3 * np.outer(rng.standard_normal(40), rng.standard_normal(8))
    >>> removed = mc.low_rank(shared + rng.standard_normal((40, 8)))
    >>> removed.basis.shape
    (40, 1)
    """
    choice("rule", rule, get_args(Rule))
    choice("choose", choose, get_args(Choice))
    whole_number("n_reps", n_reps, 1, most=10_000)
    generator(seed)  # checks it
    x, basis = coordinates(centers)
    present = np.linalg.norm(x, axis=1) > 0
    some = np.ascontiguousarray(x[present])
    if rule == "guarded":
        subspace, costs, residuals = _guarded(some, len(basis), threads)
    else:
        subspace, costs, residuals = _package(some, n_reps, seed, threads, choose)
    kept = np.full(len(x), np.nan)
    kept[present] = _kept(some, subspace)
    orthonormal = np.linalg.qr(basis @ subspace)[0]
    return LowRank(orthonormal, _mean_correlation(x), np.array(residuals), np.array(costs), kept)


def _guarded(
    x: Array, features: int, threads: int | None
) -> tuple[Array, list[float], list[float]]:
    """Return the subspace of the guarded rule, and costs and mean correlations by rank."""
    count, rank = x.shape
    gram = x @ x.T
    random = min(count - 1, features) * (1 / (count - 1) + (count - 1) / (count * features))
    best = np.empty((rank, 0))
    subspaces, squares = [best], [_squared_correlation(x)]
    costs: list[float] = []
    residuals: list[float] = []
    while (
        len(costs) < rank - 1
        and (rank - len(costs)) * squares[-1] > EXCESS * random
        and not _rises(squares)
    ):
        start = _joined(best, _leading_direction(_without(x, best)))
        best, cost = minimise(x, gram, start, EVENNESS, LOOSE)
        subspaces.append(best)
        costs.append(cost)
        residuals.append(_mean_correlation(_without(x, best)))
        squares.append(_squared_correlation(_without(x, best)))
    chosen = int(np.argmin(squares))
    if not chosen:
        return subspaces[0], costs, residuals
    before = subspaces[chosen - 1]
    starts = [_joined(before, each) for each in _axes(_without(x, before), STARTS).T]
    starts += [subspaces[chosen], _axes(x, chosen)]
    ends = for_each(lambda start: minimise(x, gram, start, EVENNESS, LOOSE), starts, threads)
    best, _ = min(ends, key=lambda end: end[1])
    best, costs[chosen - 1] = minimise(x, gram, best, EVENNESS)
    residuals[chosen - 1] = _mean_correlation(_without(x, best))
    return best, costs, residuals


def _package(
    x: Array, n_reps: int, seed: int, threads: int | None, choose: Choice
) -> tuple[Array, list[float], list[float]]:
    """Return the subspace of the package's rule, and costs and mean correlations by rank."""
    gram = x @ x.T
    share = np.cumsum(np.linalg.norm(x, axis=0) ** 2)
    share /= share[-1]
    largest = min(int(np.argmax(np.where(share < 0.95, share, 0))) + 11, x.shape[1] - 1)
    rng = generator(seed, 0)
    best = np.empty((x.shape[1], 0))
    subspaces = [best]
    costs: list[float] = []
    residuals: list[float] = []
    for rank in range(1, largest + 1):
        added = [_leading_direction(_without(x, best))]
        added += [x.T @ rng.standard_normal(len(x)) for _ in range(n_reps - 1)]
        starts = [_joined(best, extra) for extra in added]
        ends = for_each(lambda start: minimise(x, gram, start, 0.0), starts, threads)
        if choose == "cost":
            best, cost = min(ends, key=lambda end: end[1])
        else:
            best, cost = max(ends, key=lambda end: float(_kept(x, end[0]).min()))
        subspaces.append(best)
        costs.append(cost)
        residuals.append(_mean_correlation(_without(x, best)))
        if rank > 4 and _rises(residuals):
            break
    return subspaces[int(np.argmin([np.inf, *residuals]))], costs, residuals


def _rises(values: Sequence[float]) -> bool:
    """Return whether the last `PATIENCE` steps were all increases."""
    last = np.diff(values[-PATIENCE - 1 :])
    return len(last) == PATIENCE and bool((last > 0).all())


def _without(x: Array, v: Array) -> Array:
    """Return what is left of the rows off the subspace; zero where that is rounding."""
    left: Array = x - (x @ v) @ v.T
    squares = np.einsum("ij,ij->i", left, left)
    left[squares <= GONE * np.einsum("ij,ij->i", x, x)] = 0.0
    return left


def _kept(x: Array, v: Array) -> Array:
    """Return the share of its length that each row keeps off the subspace."""
    shares: Array = np.linalg.norm(_without(x, v), axis=1) / np.linalg.norm(x, axis=1)
    return shares


def _squared_correlation(x: Array) -> float:
    """Return the mean squared cosine between rows, with themselves included."""
    unit = _unit(x)
    return float(np.mean((unit @ unit.T) ** 2))


def _joined(v: Array, direction: Array) -> Array:
    """Return an orthonormal basis of a subspace and a direction."""
    return np.ascontiguousarray(np.linalg.qr(np.column_stack([v, direction]))[0])


def _axes(x: Array, count: int) -> Array:
    """Return the principal axes of the rows scaled to length one, shape (r, count)."""
    unit, rank = _unit(x), x.shape[1]
    axes: Array = eigh(unit.T @ unit, subset_by_index=[max(rank - count, 0), rank - 1])[1]
    return np.ascontiguousarray(axes[:, ::-1])


def _leading_direction(x: Array) -> Array:
    """Return about the direction that most rows share, each scaled to length one."""
    unit = _unit(x)
    matrix = unit.T @ unit
    direction: Array = matrix[:, matrix.diagonal().argmax()]
    for _ in range(20):  # power iteration; as a start this is close enough
        direction = matrix @ direction
        direction /= np.linalg.norm(direction)
    return direction


@compiled
def cost_and_gradient(x, gram, v, evenness):  # type: ignore[no-untyped-def]
    """Return the cost of a subspace, its gradient, and a preconditioner.

    The cost is ½ Σ_mn E_mn² / (E_mm E_nn), E = X (1 - VVᵀ) Xᵀ being the inner products of the
    centres off the subspace V, plus `evenness` times Σ_m [log(mean of k) - log k_m], where
    k_m = E_mm / G_mm. Infinite where a centre is gone.

    Parameters
    ----------
    x : ndarray, shape (P, r)
        Centres, none of them zero.
    gram : ndarray, shape (P, P)
        G = X Xᵀ.
    v : ndarray, shape (r, K)
        Orthonormal basis of the subspace.
    evenness : float

    Returns
    -------
    cost : float
    gradient : ndarray, shape (r, K)
        In the tangent space of the Grassmannian.
    preconditioner : ndarray, shape (K, K)
        (cᵀ diag(E)⁻¹ c + 1)⁻¹ with c = X V; multiplies gradients from the right.
    """
    count, rank = x.shape[0], v.shape[1]
    c = np.dot(x, v)
    left = gram - np.dot(c, c.T)
    inverse, pull, kept, logs = np.empty(count), np.empty(count), 0.0, 0.0
    for m in range(count):
        share = left[m, m] / gram[m, m]
        if share <= GONE:
            return np.inf, np.zeros((x.shape[1], rank)), np.eye(rank)
        inverse[m] = 1.0 / left[m, m]
        kept += share
        logs += np.log(share)
    total = 0.0
    for m in range(count):  # E becomes E_mn / (E_mm E_nn)
        squares = 0.0
        for n in range(count):
            weighted = left[m, n] * inverse[m] * inverse[n]
            squares += left[m, n] * weighted
            left[m, n] = weighted
        total += squares
        pull[m] = squares * inverse[m] + evenness * (inverse[m] - count / (kept * gram[m, m]))
    gradient = 2.0 * np.dot(x.T, pull.reshape(-1, 1) * c - np.dot(left, c))
    gradient -= np.dot(v, np.dot(v.T, gradient))
    metric = np.dot(c.T, inverse.reshape(-1, 1) * c) + np.eye(rank)
    cost = total / 2.0 + evenness * (count * np.log(kept / count) - logs)
    return cost, gradient, np.ascontiguousarray(np.linalg.inv(metric))


@compiled
def _inner(a, b):  # type: ignore[no-untyped-def]
    """Return the inner product of two matrices."""
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += a[i, j] * b[i, j]
    return total


@compiled
def minimise(x, gram, v, evenness, tolerance=TOLERANCE, limit=500):  # type: ignore[no-untyped-def]
    """Minimise `cost_and_gradient` over subspaces by preconditioned L-BFGS from `v`.

    Steps are retracted by the polar decomposition, which turns the basis least, so that
    remembered steps stay comparable; the direction made from them is projected onto the
    tangent space (Absil, Mahony, Sepulchre 2008). Stops when the slope along the step is
    below `tolerance`² of the cost, or nothing is to be gained within rounding.

    Returns
    -------
    v : ndarray, shape (r, K)
    cost : float
        Infinite if it is so at the start.
    """
    cost, gradient, precondition = cost_and_gradient(x, gram, v, evenness)
    steps = np.empty((MEMORY, v.shape[0], v.shape[1]))
    changes, products, used = np.empty_like(steps), np.empty(MEMORY), np.int64(0)
    for _ in range(limit):
        if not np.isfinite(cost):
            break
        direction = -_inverse_hessian(steps, changes, products, used, gradient, precondition)
        direction -= np.dot(v, np.dot(v.T, direction))
        slope = _inner(direction, gradient)
        if slope > -(tolerance**2) * cost:
            break
        squares, turn = np.linalg.eigh(np.dot(direction.T, direction))
        step = 1.0 if used else min(1.0, 0.5 / np.sqrt(squares[-1]))
        while step > 1e-10:
            polar = np.dot(turn / np.sqrt(1.0 + step * step * squares), turn.T)
            trial = np.dot(v + step * direction, polar)
            new_cost, new_gradient, new_precondition = cost_and_gradient(x, gram, trial, evenness)
            if new_cost <= cost + 1e-4 * step * slope:
                break
            step /= 2.0
        else:
            break
        slot = used % MEMORY
        for i in range(v.shape[0]):
            for j in range(v.shape[1]):
                steps[slot, i, j] = step * direction[i, j]
                changes[slot, i, j] = new_gradient[i, j] - gradient[i, j]
        products[slot] = _inner(steps[slot], changes[slot])
        lengths = _inner(steps[slot], steps[slot]) * _inner(changes[slot], changes[slot])
        if products[slot] > 1e-12 * np.sqrt(lengths):
            used += 1
        v, cost, gradient, precondition = trial, new_cost, new_gradient, new_precondition
    return v, cost


@compiled
def _inverse_hessian(steps, changes, products, used, gradient, precondition):  # type: ignore[no-untyped-def]
    """Apply the L-BFGS approximation of the inverse Hessian (Nocedal and Wright, alg. 7.4)."""
    result, factors = gradient.copy(), np.empty(MEMORY)
    first = max(0, used - MEMORY)
    for k in range(used - 1, first - 1, -1):
        slot = k % MEMORY
        factors[slot] = _inner(steps[slot], result) / products[slot]
        result -= factors[slot] * changes[slot]
    result = np.dot(result, precondition)
    if used:
        slot = (used - 1) % MEMORY
        weighted = np.dot(changes[slot], precondition)
        result *= products[slot] / _inner(changes[slot], weighted)
    for k in range(first, used):
        slot = k % MEMORY
        result += (factors[slot] - _inner(changes[slot], result) / products[slot]) * steps[slot]
    return result
