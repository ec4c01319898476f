"""Capacity from conic geometry: neither random centres nor replica theory are assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr
from scipy.special import stdtrit

from manifold_capacity._input import (
    MANY,
    Array,
    Manifolds,
    as_manifolds,
    flag,
    generator,
    joined,
    whole_number,
)
from manifold_capacity._parallel import for_each, one_blas_thread, refuse_beyond_memory
from manifold_capacity._result import Result
from manifold_capacity.nnls import WorkingSet
from manifold_capacity.separability import nonnegative_margin
from manifold_capacity.simulated import LEVEL, Labels, labeller

BATCH = 16
"""Draws that share the products with all points."""

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
    progress: bool = False,
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

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> cones = mc.conic_capacity(manifolds, draws=20)
    >>> round(cones.capacity, 1)
    1.0
    >>> cones.capacity_low < cones.capacity < cones.capacity_high
    True
    """
    whole_number("draws", draws, 2, ", for an interval", MANY)
    flag("progress", progress)
    cones = Cones(manifolds, labels, draws, kappa, seed)
    projections = cones.project_all(draws, threads, "conic capacity" if progress else None)
    values = np.array([one.sq_norm for one in projections])
    mean, se = mean_and_error(values)
    low, high = interval(values, cones.count)
    return Result(
        {
            "capacity": ((), cones.count / mean if mean > 0 else np.inf),
            "capacity_low": ((), low),
            "capacity_high": ((), high),
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


def mean_and_error(sq_projections: Array) -> tuple[float, float]:
    """Return the mean of squared projections, the statistical dimension, and its standard error."""
    mean = float(sq_projections.mean())
    finite = np.isfinite(mean)
    return mean, float(
        sq_projections.std(ddof=1) / len(sq_projections) ** 0.5
    ) if finite else np.inf


def interval(sq_projections: Array, count: int) -> tuple[float, float]:
    """Return the 95 % interval of the capacity of `count` manifolds, Student's t over the draws."""
    mean, se = mean_and_error(sq_projections)
    reach = float(stdtrit(len(sq_projections) - 1, 0.5 + LEVEL / 2)) * se
    low = count / (mean + reach) if mean > 0 else 0.0
    return low, count / (mean - reach) if mean > reach else np.inf


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

    def project_all(
        self, draws: int, threads: int | None, progress: str | None
    ) -> list[Projection]:
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

        The products of all draws with all points are made together.
        """
        signs = np.array([self.label_of(draw)[self.owner] for draw in draws])
        t = np.array([self.gaussian(draw) for draw in draws])
        scales = signs / self.lengths
        sets = [
            WorkingSet(self.points, scale, one, self.margins)
            for scale, one in zip(scales, t, strict=True)
        ]
        unsolved = sets
        while unsolved:
            gradients = np.array([one.left for one in unsolved]) @ self.points.T
            gradients *= np.array([one.scale for one in unsolved])
            gradients += self.margins
            unsolved = [one for one, row in zip(unsolved, gradients, strict=True) if one.grow(row)]
        return [self._projection(one) for one in sets]

    def _projection(self, one: WorkingSet) -> Projection:
        """Return the solution of a working set, with the points of every manifold in order."""
        used = np.flatnonzero(one.alpha)
        used = used[np.argsort(one.chosen[used])]
        active = one.chosen[used]
        gradient = one.gradient
        worst = max(float(gradient.max()), float(np.abs(gradient[active]).max(initial=0)))
        residual = worst / one.largest if one.largest > 0 else 0.0
        sq_norm = float(((one.t - one.left) ** 2).sum())
        if self.impossible or one.impossible:
            residual, sq_norm = 0.0, np.inf
        by_length = gradient * self.lengths
        by_length[active] = 0.0
        ends = [*self.starts[1:], len(gradient)]
        nearest = [
            first + int(by_length[first:end].argmax())
            for first, end in zip(self.starts, ends, strict=True)
        ]
        inside = np.linalg.norm(one.left) <= REFUSED * np.linalg.norm(one.t)
        return Projection(
            active,
            one.alpha[used] / self.lengths[active],
            sq_norm,
            np.array(nearest),
            bool(inside) and len(active) < len(gradient),
            residual,
            one.solved,
        )


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
