"""Capacity from conic geometry: neither random centres nor replica theory are assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr
from scipy.special import stdtrit

from manifold_capacity._input import (
    LARGEST,
    Array,
    Manifolds,
    as_manifolds,
    generator,
    joined,
    real_number,
    whole_number,
)
from manifold_capacity._parallel import for_each, one_blas_thread, refuse_beyond_memory
from manifold_capacity._result import Result
from manifold_capacity.nnls import solve_rows
from manifold_capacity.simulated import LEVEL, Labels, labeller

BATCH = 16
"""Draws that share the products with all points."""

ENTERING = 64
"""Points that may join a draw's working set at once."""

TOLERANCE = 1e-13
"""Violations below this share of the largest projection count as none."""

ACCEPTED = 1e-12
"""Larger violations are solved again, by orthogonal transformations."""

CLOSED = 1e-10
"""A margin that needs a |t - v|² of more than one over this is taken for impossible."""

REFUSED = 1e-9
"""Violations beyond this are an error, not a result."""


@one_blas_thread
def conic_capacity(
    manifolds: Manifolds,
    draws: int = 100,
    labels: Labels | ArrayLike = "balanced",
    kappa: float = 0.0,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
) -> Result:
    """Return P / ⟨δ(C_y)⟩, the capacity without bias, by the statistical dimension of cones.

    A labelling y is separable through the origin after a random projection to n features if
    the projection leaves the cone C_y = cone{y_p x : x in manifold p} within a half-space. The
    transition lies at n = δ(C_y) = E |Π_{C_y}(t)|², t ~ N(0, 1_N), within O(√N) (Amelunxen,
    Lotz, McCoy, Tropp 2014). Every draw takes one labelling and one t; the projection is one
    non-negative least-squares problem over all points, solved on a working set of them.

    With a margin, δ becomes E min |t - v|² over the v that satisfy ``y_p x·v >= κ |c_p|`` for
    every point, c_p the centre of its manifold: Gordon's comparison, as in mean-field theory.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
        Features by points, in the frame whose origin the hyperplanes contain. Memory: the
        points twice in float64.
    draws : int
        At least 2.
    labels
        As in `simulated_capacity`.
    kappa : float
        Margin, at least 0, in units of the norm of the manifold's centre.
    seed : int
    threads : int, optional
        Default: all processors. Results do not depend on it.
    progress : bool
        Report on standard error what takes longer than ten seconds.

    Returns
    -------
    Result
        ``capacity`` with ``capacity_low`` and ``capacity_high`` (95 %, Student's t over the
        draws), ``statistical_dimension`` = ⟨δ⟩ with its standard error, ``sq_projection``
        per draw, ``kkt_residual`` (the worst), ``unsolved``. Where no v keeps the margin
        ``sq_projection`` is infinite; one such draw leaves no capacity and no upper bound.

    Raises
    ------
    ValueError
        For bad manifolds, see `mean_field_capacity`, or options; where the points do not
        fit into memory; and where they lie so far from the origin that the
        optimality conditions cannot be met to 1e-9.
    """
    whole_number("draws", draws, 2, ", for an interval")
    cones = Cones(manifolds, labels, draws, kappa, seed)
    projections = cones.project_all(draws, threads, "conic capacity" if progress else "")
    values = np.array([one.sq_norm for one in projections])
    mean = float(values.mean())
    se = float(values.std(ddof=1) / np.sqrt(draws)) if np.isfinite(mean) else np.inf
    reach = float(stdtrit(draws - 1, 0.5 + LEVEL / 2)) * se
    return Result(
        {
            "capacity": ((), cones.count / mean if mean > 0 else np.inf),
            "capacity_low": ((), cones.count / (mean + reach) if mean > 0 else 0.0),
            "capacity_high": ((), cones.count / (mean - reach) if mean > reach else np.inf),
            "statistical_dimension": ((), mean),
            "statistical_dimension_se": ((), se),
            "sq_projection": (("draw",), values),
            "kkt_residual": ((), max(one.kkt_residual for one in projections)),
            "unsolved": ((), sum(not one.solved for one in projections)),
        },
        {
            "draws": draws, "labels": labels if isinstance(labels, str) else "given",
            "kappa": kappa, "seed": seed,
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Projection:
    """The projection of a Gaussian vector t on the cone of a draw.

    Attributes
    ----------
    active : ndarray of int, shape (k,)
        The points that carry it, in rising order.
    multipliers : ndarray, shape (k,)
        Positive: the projection is ``Σ multipliers_i y_i x_i``.
    sq_norm : float
        |Π(t)|², or with a margin min |t - v|².
    nearest : ndarray of int, shape (P,)
        Of each manifold the point with the largest ``y_p x·v``, v = t - Π(t), which is never
        positive: an active point, or the one that would become active first.
    ambiguous : bool
        t lies in the cone, and other multipliers give it too.
    kkt_residual : float
        Largest violation of the optimality conditions, relative to the largest |t·x| / |x|.
    solved : bool
    """

    active: NDArray[np.intp]
    multipliers: Array
    sq_norm: float
    nearest: NDArray[np.intp]
    ambiguous: bool
    kkt_residual: float
    solved: bool


class Cones:
    """The cones of one set of manifolds under random labellings, and projections on them.

    Attributes
    ----------
    count : int
        P.
    points : ndarray, shape (ΣM, n)
        Scaled, in a frame of at most ΣM dimensions: cones do not change by scaling, and only
        inner products matter.
    owner : ndarray of int, shape (ΣM,)
        The manifold of each point.
    """

    def __init__(
        self,
        manifolds: Manifolds,
        labels: Labels | ArrayLike,
        draws: int,
        kappa: float,
        seed: int,
    ) -> None:
        arrays = as_manifolds(manifolds)
        self.kappa = nonnegative_margin(kappa)
        self.count = len(arrays)
        self.seed = seed
        generator(seed)  # checks it
        self.label_of = labeller(labels, self.count, draws, seed)
        refuse_beyond_memory([array.shape for array in arrays], copies=2)
        data, self.owner = joined(arrays)
        self.starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        self.points = np.ascontiguousarray(frame(data).T)
        lengths = np.linalg.norm(self.points, axis=1)
        self.lengths = np.where(lengths > 0, lengths, 1.0)
        centers = np.add.reduceat(self.points, self.starts)
        centers /= np.bincount(self.owner)[:, None]
        needed = self.kappa * np.linalg.norm(centers, axis=1)[self.owner]
        self.margins = needed / self.lengths
        self.impossible = bool((needed[lengths == 0] > 0).any())

    def gaussian(self, draw: int) -> Array:
        """Return t of a draw, shape (n,)."""
        return generator(self.seed, 4, draw).standard_normal((self.points.shape[1],))

    def project_all(self, draws: int, threads: int | None, progress: str) -> list[Projection]:
        """Project t on the cone of every draw.

        Raises
        ------
        ValueError
            If a violation of the optimality conditions exceeds `REFUSED`.
        """
        batches = [range(first, min(first + BATCH, draws)) for first in range(0, draws, BATCH)]
        lists = for_each(self._project, batches, threads, progress)
        projections = [one for batch in lists for one in batch]
        worst = max(one.kkt_residual for one in projections)
        if worst > REFUSED:
            raise ValueError(
                f"the projections on cones miss their optimality conditions by {worst:.1e} "
                f"(accepted: {REFUSED:g}); such points lie very far from the origin for their "
                "spread, or nearly coincide: subtract the mean of all points, or drop duplicates"
            )
        return projections

    def _project(self, draws: Sequence[int]) -> list[Projection]:
        """Project t on the cones of some draws, by column generation.

        Each draw has a working set of points. In turn the problem is solved on it, and the
        points of all that violate the optimality conditions most join it, until none does.
        """
        signs = np.array([self.label_of(draw)[self.owner] for draw in draws])
        t = np.array([self.gaussian(draw) for draw in draws])
        tasks = [_Task(self, *pair) for pair in zip(signs, t, strict=True)]
        open_tasks = tasks
        while open_tasks:
            left = np.array([task.left for task in open_tasks])
            gradients = self._gradients(np.array([task.signs for task in open_tasks]), left)
            open_tasks = [
                task for task, row in zip(open_tasks, gradients, strict=True) if task.grow(row)
            ]
        return [task.result() for task in tasks]

    def _gradients(self, signs: Array, left: Array) -> Array:
        gradients = left @ self.points.T
        gradients /= self.lengths
        gradients *= signs
        gradients += self.margins
        return gradients


class _Task:
    """One draw's working set."""

    def __init__(self, cones: Cones, signs: Array, t: Array) -> None:
        self.cones, self.signs, self.t = cones, signs, t
        self.scale = 0.0
        self.chosen = np.empty(0, np.intp)
        self.rows = np.empty((0, len(t)))
        self.gram = np.empty((0, 0))
        self.alpha = np.empty(0)
        self.left = t  # t minus its projection
        self.gradient = np.empty(0)
        self.solved = True
        self.impossible = cones.impossible

    def grow(self, gradient: Array) -> bool:
        """Take in the points of largest gradient and solve; False if there are none."""
        if len(self.chosen) == 0:
            self.scale = float(np.abs(gradient).max())
        self.gradient = gradient
        outside = gradient.copy()
        outside[self.chosen] = 0.0
        new = np.flatnonzero(outside > TOLERANCE * self.scale)
        if len(new) == 0 or self.impossible:
            return False
        if len(new) > ENTERING:
            new = np.sort(new[np.argpartition(-outside[new], ENTERING)[:ENTERING]])
        self._extend(new)
        self._solve()
        return True

    def _extend(self, new: NDArray[np.intp]) -> None:
        rows = self.cones.points[new] * (self.signs[new] / self.cones.lengths[new])[:, None]
        cross = rows @ self.rows.T
        self.gram = np.block([[self.gram, cross.T], [cross, rows @ rows.T]])
        self.rows = np.concatenate([self.rows, rows])
        self.chosen = np.concatenate([self.chosen, new])

    def _solve(self) -> None:
        q = self.rows @ self.t + self.cones.margins[self.chosen]
        if self.cones.kappa > 0:
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
        self.alpha = np.zeros(len(q)) if self.impossible else beta / gap

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

    def result(self) -> Projection:
        used = np.flatnonzero(self.alpha)
        used = used[np.argsort(self.chosen[used])]
        active = self.chosen[used]
        worst = max(float(self.gradient.max()), float(np.abs(self.gradient[active]).max(initial=0)))
        residual = worst / self.scale if self.scale > 0 else 0.0
        sq_norm = float(((self.t - self.left) ** 2).sum())
        if self.impossible:
            residual, sq_norm = 0.0, np.inf
        ends = [*self.cones.starts[1:], len(self.gradient)]
        by_length = self.gradient * self.cones.lengths
        by_length[active] = 0.0
        nearest = [
            first + int(by_length[first:end].argmax())
            for first, end in zip(self.cones.starts, ends, strict=True)
        ]
        return Projection(
            active,
            self.alpha[used] / self.cones.lengths[active],
            sq_norm,
            np.array(nearest),
            len(active) < len(self.signs)
            and bool(np.linalg.norm(self.left) <= REFUSED * np.linalg.norm(self.t)),
            residual,
            self.solved,
        )


def nonnegative_margin(kappa: float) -> float:
    """Return a margin that must be a number from 0."""
    kappa = real_number("kappa", kappa, "margin", LARGEST)
    if kappa < 0:
        raise ValueError(f"kappa: expected a margin of at least 0, got {kappa}")
    return kappa


def frame(data: Array) -> Array:
    """Return the points, shape (N, m), scaled to mean square one in at most m dimensions.

    Overwrites them.
    """
    length = np.sqrt(np.einsum("ij,ij->", data, data) / data.shape[1])
    if length == 0.0:
        raise ValueError("expected points off the origin, got zeros only, whose cones are points")
    data /= length
    if len(data) > data.shape[1]:
        data = qr(data, mode="r", overwrite_a=True, check_finite=False)[0][: data.shape[1]]
    return data
