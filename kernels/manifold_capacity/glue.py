"""GLUE: what the geometry of manifolds does for their capacity, correlations included."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import lapack

from manifold_capacity._input import MANY, Array, Manifolds, choice, flag, whole_number
from manifold_capacity._parallel import for_each, may_stop, one_blas_thread
from manifold_capacity._result import Result
from manifold_capacity.conic import Cones, Projection, interval
from manifold_capacity.simulated import Labels

Inactive = Literal["nearest", "zero"]

PARTS = 8
"""Draws are summed in so many parts, whatever the number of threads."""

STILL = 1e-12
"""An axis shorter than this share of its anchor is rounding."""

INDEPENDENT = 1e-7
"""Share of its squared length that every row must keep off the others to be inverted."""

CUTOFF = 1e-12
"""Smaller eigenvalues, relative to the largest, are left out of a pseudoinverse."""


@one_blas_thread
def glue(
    manifolds: Manifolds,
    draws: int = 200,
    labels: Labels | ArrayLike = "balanced",
    inactive: Inactive = "nearest",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """Return the GLUE measures: capacity and the effective geometry that explains it.

    Every draw has a labelling y and a Gaussian t, and projects t on the cone of all signed
    points (`conic_capacity`). The anchor s_p of manifold p is the mean of its points, weighted by
    their multipliers. With the rows s_p in S(y, t), centres S0 = ⟨S⟩, axes S1 = S - S0, Gram
    matrices G0 = S0 S0ᵀ and G1 = S1 S1ᵀ, and u = S1 t:

    - capacity α = P / ⟨|Π(t)|²⟩, which is P / ⟨(S t)ᵀ (S Sᵀ)⁺ (S t)⟩ over active anchors;
    - dimension D = ⟨uᵀ G1⁺ u⟩ / P;
    - radius R, ``R² = ⟨uᵀ (G1 + G0)⁺ u⟩ / ⟨uᵀ (G1 + G1 G0⁺ G1)⁺ u⟩``;
    - approximate capacity (1 + R⁻²) / D; utility, α over the approximate capacity;
    - center, axis and center-axis alignment: means over pairs p ≠ q, and over draws, of
      |cos(S0_p, S0_q)|, |cos(S1_p, S1_q)| and |cos(S0_p, S1_q)|.

    Labels as signs of the rows cancel in all of them. Definitions: Chou, Kim, Arend, Yang,
    Mensh, Shim, Perich, Chung, "Geometry linked to untangling efficiency reveals structure
    and computation in neural populations" (2025); Chou, Le, Wang, Chung, "Feature learning
    beyond the lazy-rich dichotomy" (arXiv 2503.18114). The authors' code is not public; the
    formulas were read off two public re-implementations and derived again, without the
    papers' text at hand, hence no equation numbers. One of the two, after the second paper,
    averages the ratio in R² instead of dividing averages; it also keeps signs in alignments.

    Manifolds that lie in orthogonal subspaces have D and R of mean-field theory
    (`mean_field_capacity`); utility tends to 1 where R √D is large.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
        Features by points, in the frame whose origin the hyperplanes contain: for a
        comparison with mean-field theory subtract the mean of all points. Memory: as
        `conic_capacity`.
    draws : int
        At least 2.
    labels
        As in `simulated_capacity`; the papers also use ``"one-vs-rest"``.
    inactive : {"nearest", "zero"}
        The anchor of a manifold none of whose points carries the projection, where the
        definition is silent. ``"nearest"``: its point that would become active first, as in
        mean-field theory. ``"zero"``: the origin, as a re-implementation has it, which pulls
        the centres to it: balls of radius 0.3 in 5 dimensions get R = 0.6.
    seed : int
    threads : int, optional
        Default: all processors. Results do not depend on it.
    progress : bool
        Report on standard error what takes longer than ten seconds.

    Returns
    -------
    Result
        ``capacity``, ``dimension``, ``radius``, ``utility``, ``center_alignment``,
        ``axis_alignment``, ``center_axis_alignment``, ``approximate_capacity``, each with its
        Monte Carlo standard error over the draws (``..._se``, first-order jackknife, the
        noise of the centres included). Capacity is that of `conic_capacity`, and so are
        ``capacity_low`` and ``capacity_high``. Per manifold: ``manifold_dimension``, whose mean
        is D, and ``manifold_radius`` from the terms of the manifold in both products with u (NaN
        where one is negative), ``inactive_share`` of the draws. ``ambiguous_share``: the share
        of draws whose t lies in its cone, as happens where the labelling cannot be separated;
        there anchors are not unique, so only capacity is to be trusted, and a warning says so.
        ``sq_projection`` per draw, ``kkt_residual`` (the worst), ``unsolved``. Alignments
        with an axis of length zero are left out; if all are, NaN.

    Raises
    ------
    ValueError
        As `conic_capacity`.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> centers = rng.standard_normal((20, 200, 1))  # 20 classes, 200 features
    >>> manifolds = centers + 0.5 * rng.standard_normal((20, 200, 30))  # 30 points each
    >>> manifolds -= manifolds.mean(axis=(0, 2), keepdims=True)
    >>> measures = mc.glue(manifolds, draws=100, seed=1)
    >>> print(f"{measures.capacity:.2f} ± {measures.capacity_se:.2f} classes per feature")
    0.59 ± 0.02 classes per feature
    >>> dataset = measures.to_xarray()  # labelled, with all settings as attributes
    """
    whole_number("draws", draws, 2, ", for a standard error", MANY)
    choice("inactive", inactive, get_args(Inactive))
    flag("progress", progress)
    cones = Cones(manifolds, labels, draws, 0.0, seed)
    projections = cones.project_all(draws, threads, "GLUE" if progress else None)
    ambiguous = sum(one.ambiguous for one in projections)
    if ambiguous:
        warnings.warn(
            f"glue: in {ambiguous} of {draws} draws the anchors are not unique, as t lies in its "
            f"cone: the labelling cannot be separated in the {cones.points.shape[1]} dimensions of "
            "these manifolds, and all measures but capacity depend on the solver",
            stacklevel=3,
        )
    anchors = _Anchors(cones, projections, inactive)
    parts = [part for part in np.array_split(np.arange(draws), PARTS) if len(part)]
    centers = np.sum(for_each(anchors.total, parts, threads), axis=0) / draws
    moments = for_each(lambda part: _moments(anchors, centers, part), parts, threads)
    terms = np.concatenate([moment.terms for moment in moments])
    slopes = np.sum([moment.slopes for moment in moments], axis=0) / draws
    moved = np.concatenate(
        for_each(lambda part: anchors.along(centers, slopes, part), parts, threads)
    )
    values, errors = _jackknife(terms, moved, cones.count, _alignment(centers, centers)[0])
    with np.errstate(invalid="ignore", divide="ignore"):
        by_manifold = np.sum([moment.by_manifold for moment in moments], axis=0) / draws
        radii = np.sqrt(by_manifold[1] / by_manifold[2])
    low, high = interval(terms[:, 0], cones.count)
    return Result(
        {
            **{name: ((), value) for name, value in values.items()},
            **{f"{name}_se": ((), value) for name, value in errors.items()},
            "capacity_low": ((), low),
            "capacity_high": ((), high),
            "manifold_dimension": (("manifold",), by_manifold[0]),
            "manifold_radius": (("manifold",), radii),
            "inactive_share": (("manifold",), anchors.inactive.mean(axis=0)),
            "ambiguous_share": ((), ambiguous / draws),
            "sq_projection": (("draw",), terms[:, 0]),
            "kkt_residual": ((), max(one.kkt_residual for one in projections)),
            "unsolved": ((), sum(not one.solved for one in projections)),
        },
        {
            "draws": draws, "labels": labels if isinstance(labels, str) else "given",
            "inactive": inactive, "seed": seed,
        },
    )  # fmt: skip


class _Anchors:
    """The anchors of all draws, as weights of points.

    Attributes
    ----------
    inactive : ndarray of bool, shape (draws, P)
    """

    def __init__(self, cones: Cones, projections: list[Projection], inactive: Inactive) -> None:
        self.cones, self.projections, self.rule = cones, projections, inactive
        self.inactive = np.ones((len(projections), cones.count), bool)
        for draw, one in enumerate(projections):
            self.inactive[draw, cones.owner[one.active]] = False

    def of(self, draw: int) -> Array:
        """Return S without labels, shape (P, n)."""
        may_stop()
        cones, one = self.cones, self.projections[draw]
        owner = cones.owner[one.active]
        weights = one.multipliers / np.bincount(owner, one.multipliers, cones.count)[owner]
        rows = cones.points[one.active] * weights[:, None]
        result = np.zeros((cones.count, cones.points.shape[1]))
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        if len(first):
            result[owner[first]] = np.add.reduceat(rows, first)
        idle = self.inactive[draw]
        if self.rule == "nearest":
            result[idle] = cones.points[one.nearest[idle]]
        return result

    def total(self, draws: NDArray[np.int64]) -> Array:
        """Return the sum of the anchors over some draws."""
        result = np.zeros((self.cones.count, self.cones.points.shape[1]))
        for draw in draws:
            result += self.of(draw)
        return result

    def along(self, centers: Array, slopes: Array, draws: NDArray[np.int64]) -> Array:
        """Return what each draw adds to each term by moving the centres, shape (draws, terms)."""
        flat = slopes.reshape(len(slopes), -1)
        return np.array([flat @ (self.of(draw) - centers).ravel() for draw in draws])


@dataclass(frozen=True)
class _Moments:
    """Terms of some draws, and sums over them.

    Attributes
    ----------
    terms : ndarray, shape (draws, 6)
        |Π(t)|², uᵀG1⁺u, the products above and below in R², both alignments with axes.
    slopes : ndarray, shape (7, P, n)
        Sums of the derivatives of the terms by the centres, and that of the alignment of
        centres, times the number of draws.
    by_manifold : ndarray, shape (3, P)
        Sums of the manifolds' shares in the three products with u.
    """

    terms: Array
    slopes: Array
    by_manifold: Array


def _moments(anchors: _Anchors, centers: Array, draws: NDArray[np.int64]) -> _Moments:
    inverse = _Inverse(centers)
    terms = np.empty((len(draws), 6))
    slopes = np.zeros((7, *centers.shape))
    by_manifold = np.zeros((3, len(centers)))
    slopes[6] = len(draws) * sum(_alignment(centers, centers)[1:])
    for row, draw in enumerate(draws):
        t = anchors.cones.gaussian(draw)
        all_anchors = anchors.of(draw)
        axes = all_anchors - centers
        lengths = np.linalg.norm(all_anchors, axis=1) + np.linalg.norm(centers, axis=1)
        axes[np.linalg.norm(axes, axis=1) <= STILL * lengths] = 0.0
        u = axes @ t
        w, z, x, g, r, gg = inverse.solve(axes, u)
        shares = u * np.array([w, z, x])
        by_manifold += shares
        axis, *axis_slopes = _alignment(axes, axes)
        mixed, by_center, by_axis = _alignment(centers, axes)
        terms[row] = [anchors.projections[draw].sq_norm, *shares.sum(axis=1), axis, mixed]
        # Derivatives by S1, of which S0 is minus the one by S1, plus its own (see solve).
        slopes[1] -= 2 * np.outer(w, t - w @ axes)
        slopes[2] -= 2 * np.outer(z, t - z @ axes + z @ centers)
        slopes[3] -= 2 * (
            np.outer(x, t - (x + g) @ axes)
            - np.outer(g, x @ axes + g @ centers)
            + np.outer(r, gg @ centers)
        )
        slopes[4] -= sum(axis_slopes)
        slopes[5] += by_center - by_axis
    return _Moments(terms, slopes, by_manifold)


class _Inverse:
    """Solves the systems of one set of centres S0, shape (P, n)."""

    def __init__(self, centers: Array) -> None:
        self.gram = centers @ centers.T
        self.regular = _factor(self.gram) is not None
        self.pseudo = None if self.regular else _pseudoinverse(self.gram)

    def solve(self, axes: Array, u: Array) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return six vectors of length P, of G1 = S1 S1ᵀ and u in its range.

        w = G1⁺ u; z = (G1 + G0)⁺ u; x = K⁺ u with K = G1 + G1 G0⁺ G1; g = G0⁺ G1 x;
        r = G1 x - G0 g; G0⁺ g. Where G0 is invertible x = w - z on the manifolds with an
        axis, g = z and r = 0 (Woodbury). Derivatives, with E a change of S1 = S - S0:
        uᵀG1⁺u changes by 2 wᵀE(t - S1ᵀw), uᵀ(G1 + G0)⁺u by 2 zᵀE(t - S1ᵀz + S0ᵀz), uᵀK⁺u by
        2 xᵀE(t - S1ᵀ(x + g)) - 2 gᵀE(S1ᵀx + S0ᵀg) + 2 rᵀE S0ᵀG0⁺g.
        """
        gram = axes @ axes.T
        moving = np.flatnonzero(u)
        w = np.zeros_like(u)
        w[moving] = _solved(gram[np.ix_(moving, moving)], u[moving])
        z = _solved(gram + self.gram, u)
        nothing = np.zeros_like(u)
        if self.pseudo is None:
            x = np.zeros_like(u)
            x[moving] = (w - z)[moving]
            return w, z, x, z, nothing, nothing
        x = _pseudoinverse(gram + gram @ self.pseudo @ gram) @ u
        moved = gram @ x
        g = self.pseudo @ moved
        return w, z, x, g, moved - self.gram @ g, self.pseudo @ g


def _factor(gram: Array) -> tuple[Array, Array] | None:
    """Return Cholesky's factor of a Gram matrix of rows of length one, and the lengths.

    None where there are no rows, one has length zero, or they depend on each other.
    """
    lengths = np.sqrt(np.diag(gram))
    if not lengths.size or not lengths.all():
        return None
    factor, failed = lapack.dpotrf(gram / np.outer(lengths, lengths))
    if failed or (np.diag(factor) ** 2).min(initial=1.0) < INDEPENDENT:
        return None
    return factor, lengths


def _solved(gram: Array, u: Array) -> Array:
    """Return gram⁺ u."""
    factor = _factor(gram)
    if factor is None:
        return _pseudoinverse(gram) @ u
    upper, lengths = factor
    solution: Array = lapack.dpotrs(upper, u / lengths)[0] / lengths
    return solution


def _pseudoinverse(gram: Array) -> Array:
    values, vectors = np.linalg.eigh(gram)
    kept = values > CUTOFF * values.max(initial=0.0)
    result: Array = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    return result


def _alignment(a: Array, b: Array) -> tuple[float, Array, Array]:
    """Return the mean of |cos(a_p, b_q)| over p ≠ q, and its derivatives by a and by b.

    Rows of length zero are left out.
    """
    lengths = [np.linalg.norm(side, axis=1) for side in (a, b)]
    known = np.outer(*(length > 0 for length in lengths))
    np.fill_diagonal(known, False)
    scale_a, scale_b = (np.where(length > 0, length, 1.0)[:, None] for length in lengths)
    unit_a, unit_b = a / scale_a, b / scale_b
    cosines = unit_a @ unit_b.T
    pairs = np.count_nonzero(known)
    if pairs == 0:
        return float("nan"), np.zeros_like(a), np.zeros_like(b)
    signs = np.sign(cosines) * known / pairs
    sizes = signs * cosines
    by_a = (signs @ unit_b - sizes.sum(axis=1)[:, None] * unit_a) / scale_a
    by_b = (signs.T @ unit_a - sizes.sum(axis=0)[:, None] * unit_b) / scale_b
    return float(sizes.sum()), by_a, by_b


def _jackknife(
    terms: Array, moved: Array, count: int, center_alignment: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the measures and their standard errors, leaving out one draw at a time.

    To first order a draw's absence moves the mean of a term by minus its own deviation and
    what it does through the centres (`moved`), over one less than the number of draws.
    """
    draws = len(terms)
    aligned = np.full((draws, 1), center_alignment)
    all_terms = np.hstack([terms, aligned])
    known = np.isfinite(all_terms)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, all_terms, 0.0).sum(axis=0) / known.sum(axis=0)
        deviations = np.where(known, all_terms - mean, 0.0) + moved
        values = _measures(mean, count)
        without = _measures(mean - deviations[:, None, :] / (draws - 1), count)
        errors = {name: float(np.sqrt((draws - 1) * left.var())) for name, left in without.items()}
    return {name: float(value) for name, value in values.items()}, errors


def _measures(means: Array, count: int) -> dict[str, Array]:
    """Return the measures from means of terms, shape (..., 7)."""
    sq_norm, overlap, above, below, axis, mixed, center = np.moveaxis(means, -1, 0)
    capacity, dimension = count / sq_norm, overlap / count
    radius = np.sqrt(np.where(above > 0, above / below, 0.0))
    approximate = (1 + radius**-2.0) / dimension
    return {
        "capacity": capacity,
        "dimension": dimension,
        "radius": radius,
        "utility": capacity / approximate,
        "center_alignment": center,
        "axis_alignment": axis,
        "center_axis_alignment": mixed,
        "approximate_capacity": approximate,
    }
