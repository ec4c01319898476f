"""Non-negative least squares for many right-hand sides that share one Gram matrix.

Minimise ½ αᵀGα - qᵀα over sign∘α >= 0, for every row q of a matrix. With sign = 1 this is
the dual of the anchor problem (`anchors`), with labels as signs the projection onto a
cone (`conic`).

The method is Lawson and Hanson's (1974, chapter 23): an active set with a Cholesky factor that
is updated when variables enter and down-dated when they leave. Unlike theirs it lets several
variables enter at once while that makes progress, and one at a time where it does not, so it
still terminates. All arithmetic is on the Gram matrix; the result is exact up to rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manifold_capacity._input import Array
from manifold_capacity._jit import compiled
from manifold_capacity._parallel import may_stop

BATCH = 2
"""A variable more may enter at once for each `BATCH` that are active."""

SHARE = 0.3
"""... if its gradient is at least this share of the largest."""

DEPENDENT = 1e-14
"""Share of its squared length that a column must keep, off the active ones, to enter."""

TOLERANCE = 1e-14
"""Gradients below this times the largest |q| count as zero."""

ENTERING = 24
"""Points that may join a working set at once, and one for every four that are active."""

NEGLIGIBLE = 1e-13
"""Violations below this share of the largest projection count as none."""

ACCEPTED = 1e-12
"""Larger violations of the optimality conditions are solved again, without Gram matrices."""

CLOSED = 1e-10
"""A margin that needs a |t - v|² of more than one over this is taken for impossible."""

_FREE, _ACTIVE, _REJECTED = 0, 1, 2


@compiled
def _row_dot(a, i, b, j, n):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(n):
        total += a[i, c] * b[j, c]
    return total


@compiled
def _gradient(gram, q, row, members, values, count, out):  # type: ignore[no-untyped-def]
    """Set ``out = q[row] - G α`` for an α with `count` active entries."""
    size = out.shape[0]
    for i in range(size):
        out[i] = q[row, i]
    paired = count - count % 4
    for k in range(0, paired, 4):  # four columns a sweep: fewer loads and stores of `out`
        a, b, c, d = members[k], members[k + 1], members[k + 2], members[k + 3]
        x, y, z, w = values[k], values[k + 1], values[k + 2], values[k + 3]
        for i in range(size):
            out[i] -= x * gram[a, i] + y * gram[b, i] + z * gram[c, i] + w * gram[d, i]
    for k in range(paired, count):
        a, x = members[k], values[k]
        for i in range(size):
            out[i] -= x * gram[a, i]


@compiled
def _append(gram, members, count, factor, j):  # type: ignore[no-untyped-def]
    """Add variable j to the Cholesky factor as its last row; False if it is dependent."""
    for k in range(count):
        dot = _row_dot(factor, k, factor, count, k)
        factor[count, k] = (gram[j, members[k]] - dot) / factor[k, k]
    left = gram[j, j] - _row_dot(factor, count, factor, count, count)
    if left <= DEPENDENT * gram[j, j]:
        return False
    factor[count, count] = np.sqrt(left)
    members[count] = j
    return True


@compiled
def _drop(members, values, count, factor, k):  # type: ignore[no-untyped-def]
    """Take row k of `count` out of the Cholesky factor, by Givens rotations."""
    for r in range(k, count - 1):
        members[r] = members[r + 1]
        values[r] = values[r + 1]
        for c in range(r + 2):
            factor[r, c] = factor[r + 1, c]
    for c in range(k, count - 1):
        a, b = factor[c, c], factor[c, c + 1]
        length = np.sqrt(a * a + b * b)
        cos, sin = a / length, b / length
        factor[c, c] = length
        for r in range(c + 1, count - 1):
            a, b = factor[r, c], factor[r, c + 1]
            factor[r, c] = cos * a + sin * b
            factor[r, c + 1] = cos * b - sin * a


@compiled
def _substitute(factor, count, x):  # type: ignore[no-untyped-def]
    """Overwrite x by the solution of ``L Lᵀ y = x``."""
    for k in range(count):
        dot = 0.0
        for c in range(k):
            dot += factor[k, c] * x[c]
        x[k] = (x[k] - dot) / factor[k, k]
    for k in range(count - 1, -1, -1):
        x[k] /= factor[k, k]
        value = x[k]
        for c in range(k):
            x[c] -= value * factor[k, c]


@compiled
def _enter(gram, sign, slack, wanted, members, values, count, factor, gradient, state):  # type: ignore[no-untyped-def]
    """Let up to `wanted` variables with the largest gradients enter; return the new count."""
    before, first = count, 0.0
    while count - before < wanted and count < factor.shape[0]:
        best, j = max(slack, SHARE * first), -1
        for i in range(gradient.shape[0]):
            if state[i] == _FREE and sign[i] * gradient[i] > best:
                best, j = sign[i] * gradient[i], i
        if j < 0:
            break
        if count == before:
            first = best
        state[j] = _REJECTED
        if _append(gram, members, count, factor, j):
            values[count] = 0.0
            count += 1
    return count


@compiled
def _descend(q, row, sign, members, values, count, factor, trial, state):  # type: ignore[no-untyped-def]
    """Go to the minimum over the active variables, dropping those that reach zero on the way.

    Returns the number of active variables and whether the point has moved.
    """
    moved = False
    while True:
        for k in range(count):
            trial[k] = q[row, members[k]]
        _substitute(factor, count, trial)
        step, leaving = 1.0, -1
        for k in range(count):
            if sign[members[k]] * trial[k] <= 0.0:
                ratio = 0.0 if values[k] == 0.0 else values[k] / (values[k] - trial[k])
                if leaving < 0 or ratio < step:
                    step, leaving = ratio, k
        if leaving < 0:
            break
        moved = moved or step > 0.0
        for k in range(count):
            values[k] += step * (trial[k] - values[k])
        values[leaving] = 0.0
        for k in range(count - 1, -1, -1):
            j = members[k]
            if sign[j] * values[k] <= 0.0 and sign[j] * trial[k] <= 0.0:
                if state[j] == _ACTIVE:
                    state[j] = _FREE
                _drop(members, values, count, factor, k)
                count -= 1
    for k in range(count):
        moved = moved or values[k] == 0.0
        values[k] = trial[k]
        state[members[k]] = _ACTIVE
    return count, moved


@compiled
def _solve(gram, q, row, sign, slack, limit, work):  # type: ignore[no-untyped-def]
    """Solve one problem; return the number of active variables, of iterations, and success."""
    factor, members, values, trial, gradient, state = work
    count, together = np.int64(0), True
    state[:] = _FREE
    for iteration in range(limit):
        _gradient(gram, q, row, members, values, count, gradient)
        before = count
        wanted = 1 + count // BATCH if together else 1
        count = _enter(gram, sign, slack, wanted, members, values, count, factor, gradient, state)
        if count == before:
            return count, iteration, True
        count, moved = _descend(q, row, sign, members, values, count, factor, trial, state)
        # A lone variable that leaves at once had a gradient of rounding: it stays rejected
        # until the point moves.
        if moved or together:
            for i in range(state.shape[0]):
                if state[i] == _REJECTED:
                    state[i] = _FREE
        together = moved
    return count, limit, False


@compiled
def solve_rows(gram, q, sign, rank, limit, alpha, residual, iterations, solved):  # type: ignore[no-untyped-def]
    """Solve the problems of all rows of `q`, writing into the last four arrays.

    Parameters
    ----------
    gram : ndarray of float64, shape (m, m)
    q : ndarray of float64, shape (n, m)
    sign : ndarray of float64, shape (m,)
        +1 or -1: the sign that each variable may have.
    rank : int
        Upper bound on the rank of `gram`, so on the number of active variables.
    limit : int
        Cap on the iterations of one problem.
    alpha : ndarray of float64, shape (n, m)
        Zeros; receives the solutions.
    residual : ndarray of float64, shape (n,)
        Largest violation of the optimality conditions, in units of the row's largest |q|.
    iterations : ndarray of int64, shape (n,)
    solved : ndarray of bool, shape (n,)
        False where the cap was reached.
    """
    size = gram.shape[0]
    rank = min(rank, size)
    factor = np.empty((rank, rank))
    members, values, trial = np.empty(rank, np.int64), np.empty(rank), np.empty(rank)
    gradient, state = np.empty(size), np.empty(size, np.int8)
    work = (factor, members, values, trial, gradient, state)
    for row in range(q.shape[0]):
        scale = 0.0
        for i in range(size):
            scale = max(scale, abs(q[row, i]))
        if scale == 0.0:
            residual[row], iterations[row], solved[row] = 0.0, 0, True
            continue
        count, iterations[row], solved[row] = _solve(
            gram, q, row, sign, TOLERANCE * scale, limit, work
        )
        _gradient(gram, q, row, members, values, count, gradient)
        for k in range(count):  # one step of iterative refinement
            trial[k] = gradient[members[k]]
        _substitute(factor, count, trial)
        for k in range(count):
            if sign[members[k]] * (values[k] + trial[k]) > 0.0:
                values[k] += trial[k]
        _gradient(gram, q, row, members, values, count, gradient)
        worst = 0.0
        for k in range(count):
            alpha[row, members[k]] = values[k]
            worst = max(worst, abs(gradient[members[k]]))
            gradient[members[k]] = 0.0
        for i in range(size):
            worst = max(worst, sign[i] * gradient[i])
        residual[row] = worst / scale


class WorkingSet:
    """Column generation for min |t - v|² over the v with ``z_i·v <= -margin_i``, for many z_i.

    The problem is solved on a working set of points; in turn those that violate the optimality
    conditions most join it, until none does. Then ``v = left = t - Σ α_i z_i``.

    Parameters
    ----------
    points : ndarray, shape (m, n)
    scale : ndarray, shape (m,)
        ``z_i = scale_i points_i`` has length one.
    t : ndarray, shape (n,)
    margins : ndarray, shape (m,)
        At least 0.

    Attributes
    ----------
    chosen : ndarray of int, shape (k,)
        The working set.
    alpha : ndarray, shape (k,)
    left : ndarray, shape (n,)
    gradient : ndarray, shape (m,)
        ``z_i·left + margin_i`` as last given.
    largest : float
        The largest |z_i·t + margin_i|.
    impossible : bool
        No v keeps the margins, as ``Σ alpha_i z_i`` proves, which is zero.
    solved : bool
    """

    def __init__(self, points: Array, scale: Array, t: Array, margins: Array) -> None:
        self.points, self.scale, self.t, self.margins = points, scale, t, margins
        self.with_margin = bool(margins.any())
        self.largest = 0.0
        self.chosen = np.empty(0, np.intp)
        self.space = np.empty((0, len(t)))  # for more rows than there are
        self.rows = self.space
        self.gram = np.empty((0, 0))
        self.alpha = np.empty(0)
        self.left = t  # t minus its projection
        self.gradient = np.empty(0)
        self.solved = True
        self.impossible = False

    def grow(self, gradient: Array) -> bool:
        """Take in the points of largest gradient and solve; False if there are none."""
        may_stop()
        if len(self.chosen) == 0:
            self.largest = float(np.abs(gradient).max())
        self.gradient = gradient
        outside = gradient.copy()
        outside[self.chosen] = 0.0
        new = np.flatnonzero(outside > NEGLIGIBLE * self.largest)
        if len(new) == 0 or self.impossible:
            return False
        most = ENTERING + np.count_nonzero(self.alpha) // 4
        if len(new) > most:
            new = np.sort(new[np.argpartition(-outside[new], most)[:most]])
        self._extend(new)
        self._solve()
        return True

    def _extend(self, new: NDArray[np.intp]) -> None:
        before, count = len(self.chosen), len(self.chosen) + len(new)
        if count > len(self.space):
            self.space = np.empty((2 * count, len(self.t)))
            self.space[:before] = self.rows
        self.rows = self.space[:count]
        np.multiply(self.points[new], self.scale[new][:, None], out=self.rows[before:])
        gram = np.empty((count, count))
        gram[:before, :before] = self.gram
        gram[before:] = self.rows[before:] @ self.rows.T
        gram[:before, before:] = gram[before:, :before].T
        self.gram = gram
        self.chosen = np.concatenate([self.chosen, new])

    def _solve(self) -> None:
        q = self.rows @ self.t + self.margins[self.chosen]
        if self.with_margin:
            self._solve_with_margin(q)
        else:
            self.alpha = self._multipliers(self.gram, q, self.rows.T, self.t)
        used = np.flatnonzero(self.alpha)
        self.left = self.t - self.alpha[used] @ self.rows[used]

    def _solve_with_margin(self, q: Array) -> None:
        """Solve by Lawson and Hanson's (1974, chapter 23) way from distances to NNLS.

        With a margin a solution may need n + 1 points at once to move on, so the problem is
        lifted by a coordinate: min |Σ β_i z_i|² + (1 - q·β)², where α = β / (1 - q·β).
        If that gap closes, ``Σ β_i z_i = 0`` proves that no v keeps the margin.
        """
        lifted = np.vstack([self.rows.T, q])
        target = np.zeros(len(lifted))
        target[-1] = 1.0
        beta = self._multipliers(self.gram + np.outer(q, q), q, lifted, target)
        gap = 1.0 - float(q @ beta)
        self.impossible = gap < CLOSED
        self.alpha = beta if self.impossible else beta / gap

    def _multipliers(self, gram: Array, q: Array, columns: Array, target: Array) -> Array:
        """Return the β >= 0 of the smallest ``|columns @ β - target|``.

        From the Gram matrix, or where that is too near singular from the columns themselves.
        """
        count = len(q)
        beta, residual, solved = np.zeros((1, count)), np.empty(1), np.empty(1, bool)
        solve_rows(
            gram, q[None], np.ones(count), len(target), 100 + 10 * count,
            beta, residual, np.empty(1, np.int64), solved,
        )  # fmt: skip
        self.solved = bool(solved[0])
        if not self.solved or residual[0] > ACCEPTED:
            from scipy.optimize import nnls

            try:
                beta[0] = nnls(columns, target)[0]
                self.solved = True
            except RuntimeError:  # its own cap on iterations
                pass
        result: Array = beta[0]
        return result
