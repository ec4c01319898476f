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
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from manifold_capacity._input import LARGEST, Array, flag, real_array, real_number, scaled
from manifold_capacity._jit import compiled
from manifold_capacity._parallel import one_blas_thread, stop_flag
from manifold_capacity.nnls import WorkingSet

LIMIT = 200
"""Newton steps after which the answer is "undecided"."""

FARKAS = 1e-10
"""Largest ``|Σ α_i z_i|`` for a proof of inseparability, with Σ α_i = 1 and |z_i| = 1."""

RIDGE = 1e-13
"""Added to the diagonal of Newton's matrix, relative to its mean."""

REFRESH = 10
"""Steps after which nothing is updated but all computed anew."""

BIAS = 1e3
"""What stands for the bias where there is a margin, in units of the longest point."""

NEARLY = 1e-9
"""A margin that is kept but for this share of it is kept."""

TINY = float(np.finfo(float).tiny)
EPSILON = float(np.finfo(float).eps)

SEPARABLE, INSEPARABLE, UNDECIDED = 1, -1, 0
_ANSWERS = {SEPARABLE: True, INSEPARABLE: False, UNDECIDED: None}


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
        one. No w of length one has all z_i·w > `residual`. With a margin: ``|Σ α_i y_i x_i|``,
        which no margin exceeds, as it is without bias the distance of their hull from the
        origin, with bias half that of the two hulls. Else NaN.
    iterations : int
        Newton's; 0 with a margin.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> points, labels = np.array([[0.0, 1.0, 2.0, 3.0]]), np.array([-1, -1, 1, 1])
    >>> result = mc.separable(points, labels)
    >>> bool((labels * (result.weights @ points + result.offset) > 0).all())
    True
    """

    separable: bool | None
    weights: Array | None
    offset: float
    margin: float
    multipliers: Array | None
    residual: float
    iterations: int


@one_blas_thread
def separable(
    points: ArrayLike, labels: ArrayLike, bias: bool = True, kappa: float = 0.0
) -> Separation:
    """Decide whether a hyperplane separates two classes of points, with a margin if asked for.

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
    kappa : float
        Margin, at least 0: the distance that every point must keep from the hyperplane, in units
        of the points.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not a finite real number, or a label is neither +1
        nor -1.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> points = np.array([[0.0, 1.0, 2.0, 3.0]])  # one feature, four points
    >>> mc.separable(points, [-1, -1, 1, 1]).separable
    True
    >>> proof = mc.separable(points, [-1, 1, 1, -1])
    >>> proof.separable, proof.residual < 1e-9
    (False, True)
    """
    flag("bias", bias)
    x, y = real_array("points", points), real_array("labels", labels)
    if x.ndim != 2 or 0 in x.shape or y.shape != x.shape[1:]:
        raise ValueError(
            f"expected points (n, m) and labels (m,), got shapes {x.shape} and {y.shape}"
        )
    x, factor = scaled("points", x)
    y = y.astype(np.float64)
    if not (np.abs(y) == 1).all():
        raise ValueError(f"labels: expected +1 or -1, got {np.unique(y)[:5]}")
    kappa = min(nonnegative_margin(kappa, np.inf) * factor, LARGEST)
    shift = x.mean(axis=1) if bias else np.zeros(len(x))
    if kappa > 0:
        return _with_margin(x, y, kappa, shift, bias, factor)
    features = lifted(x - shift[:, None], bias)
    scale = signed_scale(features, y)
    verdict, end, alpha, steps = decide(features, scale)
    if verdict:
        w = end.w
        offset = float(features[0, 0] * w[0]) if bias else 0.0
        plane = _checked_plane(x, y, w[int(bias) :], offset - float(w[int(bias) :] @ shift))
        if plane is not None:
            weights, offset, margin = plane
            return Separation(True, weights, offset / factor, margin / factor, None, np.nan, steps)
        verdict = None
    if verdict is None:
        return Separation(None, None, np.nan, np.nan, None, np.nan, steps)
    residual = float(np.linalg.norm(features @ (alpha * scale)))
    original = alpha * np.abs(scale) if scale.all() else alpha
    original /= original.sum()
    return Separation(False, None, np.nan, np.nan, original, residual, steps)


def _with_margin(
    x: Array, y: Array, kappa: float, shift: Array, bias: bool, factor: float
) -> Separation:
    centred = (x - shift[:, None]).T
    verdict, w, b, alpha = keep_margin(centred, y, np.full(len(y), kappa), bias)
    if verdict:
        plane = _checked_plane(x, y, w, b - float(w @ shift))
        if plane is not None and plane[2] >= kappa * (1 - 2 * NEARLY):
            weights, offset, margin = plane
            return Separation(True, weights, offset / factor, margin / factor, None, np.nan, 0)
        verdict = None
    if verdict is None:
        return Separation(None, None, np.nan, np.nan, None, np.nan, 0)
    residual = float(np.linalg.norm((alpha * y) @ centred)) / factor
    return Separation(False, None, np.nan, np.nan, alpha, residual, 0)


def _checked_plane(
    x: Array, y: Array, weights: Array, offset: float
) -> tuple[Array, float, float] | None:
    """Return weights of length one, offset and margin; None if a point may be on the wrong side."""
    norm = float(np.linalg.norm(weights))
    if norm == 0.0:  # one class only: any hyperplane on the right side of all points
        weights = np.zeros(len(x))
        weights[0] = norm = 1.0
        offset = float(y[0]) * (np.abs(x[0]).max() + 1.0)
    weights, offset = weights / norm, offset / norm
    margins = y * (weights @ x + offset)
    rounding = 4 * len(x) * EPSILON * (np.abs(weights) @ np.abs(x) + abs(offset))
    return (weights, offset, float(margins.min())) if (margins > rounding).all() else None


def lifted(features: NDArray[Any], bias: bool) -> NDArray[Any]:
    """Return the features, shape (n, m), below a constant one for the bias, shape (n + 1, m).

    The constant is the points' root mean square length instead of 1, which conditions the
    problem.
    """
    if not bias:
        return np.ascontiguousarray(features)
    last = float(np.sqrt(np.einsum("ij,ij->", features, features) / features.shape[1])) or 1.0
    return np.concatenate([np.full((1, features.shape[1]), last, features.dtype), features])


def signed_scale(features: NDArray[Any], signs: Array) -> Array:
    """Return the factors, shape (m,), that make signed points z_i of length one of columns.

    Zero for a column of zeros.
    """
    lengths = np.sqrt(np.einsum("ij,ij->j", features, features, dtype=np.float64))
    factors: Array = np.divide(signs, lengths, out=np.zeros(len(signs)), where=lengths > 0)
    return factors


@dataclass(frozen=True)
class Start:
    """Where a search begins: the end of one over fewer features of the same points.

    Best of a set that is not separable: from there the search is short either way.

    Attributes
    ----------
    w : ndarray, shape (k,)
    active : ndarray of bool, shape (m,)
        The points with z_i·w < 1 at the last step.
    gram : ndarray, shape (k, k)
        ``Σ z_i z_iᵀ`` over them.
    """

    w: Array
    active: NDArray[np.bool_]
    gram: Array


def decide(
    features: NDArray[Any], scale: Array, start: Start | None = None
) -> tuple[bool | None, Start, Array, int]:
    """Find w with all ``z_i·w > 0``, or prove that there is none.

    Parameters
    ----------
    features : ndarray of float32 or float64, shape (n, m)
        Points as columns.
    scale : ndarray, shape (m,)
        ``z_i = scale_i features[:, i]`` has a length near one, or scale_i = 0.
    start : Start, optional
        Of a search with the same scale over the first k features.

    Returns
    -------
    verdict : bool or None
        True: all z_i·w exceed rounding. False: the multipliers combine the z_i to less than
        `FARKAS`. None: neither, after `LIMIT` steps.
    end : Start
    multipliers : ndarray, shape (m,)
        If the verdict is False: non-negative, of sum one.
    steps : int
    """
    n, m = features.shape
    w, gram, active = np.zeros(n), np.zeros((n, n)), np.zeros(m, bool)
    known = 0
    if start is not None:
        known = len(start.w)
        w[:known], gram[:known, :known], active[:] = start.w, start.gram, start.active
    multipliers = np.zeros(m)
    if not scale.all():  # a point at the origin, which nothing separates
        multipliers[scale == 0] = 1 / np.count_nonzero(scale == 0)
        return False, Start(w, active, gram), multipliers, 0
    verdict, steps = search(
        features, scale, w, gram, active, known, LIMIT, multipliers, stop_flag()
    )
    if verdict == INSEPARABLE:
        multipliers /= multipliers.sum()
    return _ANSWERS[verdict], Start(w, active, gram), multipliers, int(steps)


def nonnegative_margin(kappa: float, largest: float = LARGEST) -> float:
    """Return a margin that must be a number from 0."""
    kappa = real_number("kappa", kappa, "margin", largest)
    if kappa < 0:
        raise ValueError(f"kappa: expected a margin of at least 0, got {kappa}")
    return kappa


def keep_margin(
    points: Array, signs: Array, margins: Array, bias: bool
) -> tuple[bool | None, Array, float, Array]:
    """Find w, at most one long, and b with ``signs_i (w·x_i + b) >= margins_i``; or disprove it.

    The shortest such w follows from the projection of zero (`nnls.WorkingSet`). Both answers
    are checked: the hyperplane on every point; the multipliers α, made to obey
    ``Σ α_i signs_i = 0`` if there is a bias, by ``|w| >= Σ α_i margins_i / |Σ α_i signs_i x_i|``.
    The offset counts a little as if it were a weight (`BIAS`), so margins within about 1e-6 of
    the largest may be undecided.

    Parameters
    ----------
    points : ndarray, shape (m, n)
        With a bias, of mean zero.
    signs : ndarray, shape (m,)
    margins : ndarray, shape (m,)
        At least 0, not all zero.
    bias : bool

    Returns
    -------
    verdict : bool or None
        None: undecided.
    w : ndarray, shape (n,)
    b : float
    multipliers : ndarray, shape (m,)
        If the verdict is False: non-negative, of sum one.
    """
    count, n = points.shape
    multipliers = np.zeros(count)
    lift = BIAS * float(np.linalg.norm(points, axis=1).max()) if bias else 0.0
    rows = np.hstack([points, np.full((count, 1), lift)])
    lengths = np.linalg.norm(rows, axis=1)
    at_origin = (lengths == 0) & (margins > 0)
    if at_origin.any():
        return False, np.zeros(n), 0.0, at_origin / np.count_nonzero(at_origin)
    lengths[lengths == 0] = 1.0
    shortest = WorkingSet(rows, signs / lengths, np.zeros(n + 1), margins / lengths)
    while shortest.grow(rows @ shortest.left * shortest.scale + shortest.margins):
        pass
    w = -shortest.left[:-1]
    norm = float(np.linalg.norm(w))
    if not shortest.impossible and norm <= 1.0:
        if norm == 0.0:  # the offset alone keeps the margins
            w[0] = norm = 1.0
        w /= norm
        least = signs * margins - points @ w  # of b for positive points, the most for others
        low, high = least[signs > 0].max(initial=-np.inf), least[signs < 0].min(initial=np.inf)
        offset = float(np.clip(0.0, low, high) if np.isinf(high - low) else (low + high) / 2)
        offset = offset if bias else 0.0
        kept = signs * (points @ w + offset) >= margins * (1 - NEARLY)
        return (True if kept.all() else None), w, offset, multipliers
    multipliers[shortest.chosen] = shortest.alpha / lengths[shortest.chosen]
    if bias:
        for side in (signs > 0, signs < 0):
            multipliers[side] /= max(multipliers[side].sum(), TINY)
    multipliers /= max(multipliers.sum(), TINY)
    bound = multipliers @ margins - np.linalg.norm((multipliers * signs) @ points)
    balanced = not bias or abs(multipliers @ signs) < NEARLY
    return (False if balanced and bound > 0 else None), w, 0.0, multipliers


@compiled
def search(features, scale, w, gram, active, known, limit, multipliers, stop):  # type: ignore[no-untyped-def]
    """Minimise ``½ Σ [1 - z_i·w]₊²`` by Newton's method until one of the proofs is there.

    The matrix ``Σ z_i z_iᵀ`` over the active points changes by those that enter or leave,
    and so does the gradient: with an exact step s it is (1 - s) times the last one,
    but for these points. What is proven is computed anew.

    `gram` is known for the active points and the first `known` features. Changes `w`, `gram`,
    `active` and, where nothing separates, `multipliers`; returns the verdict and the steps.
    Gives up once `stop` is set.
    """
    n, m = features.shape
    rounding = 64 * n * EPSILON
    slack, along = np.empty(m), np.empty(m)
    changed, gradient = np.empty(m, np.int64), np.zeros(n)
    if known > 0:
        _extend(features, scale, active, known, gram)
    elif m > 4 * n:
        first = _least_squares(features, scale, m // (3 * n))
        _product(features, scale, first, along)
        length = _line_search(np.ones(m), along)
        for r in range(n):
            w[r] = length * first[r]
    since = 0  # steps since slack and gradient were computed anew
    for step in range(limit):
        if stop[0]:
            return UNDECIDED, step
        if since == 0:
            _product(features, scale, w, slack)
            for i in range(m):
                slack[i] = 1.0 - slack[i]
            _gradient(features, scale, slack, active, gradient)
        if slack.max() < 1.0 - rounding * np.abs(w).sum():
            _product(features, scale, w, along)
            if along.min() > rounding * np.abs(w).sum():
                return SEPARABLE, step
        count, entered, left, total = _changes(slack, active, changed)
        if entered + left > count:
            active[:] = False
            gram[:] = 0.0
            gradient[:] = 0.0
            count, entered, left, total = _changes(slack, active, changed)
        _move(features, scale, slack, active, changed, entered, left, gram, gradient)
        if np.sqrt(np.dot(gradient, gradient)) <= FARKAS * total:
            for i in range(m):
                multipliers[i] = max(slack[i], 0.0)
            if _combined(features, scale, multipliers) <= FARKAS * total:
                return INSEPARABLE, step
            since = -1  # what is left of the gradient is rounding
        solved, direction = _solve(gram, gradient, RIDGE * count / n)
        if not solved:
            return UNDECIDED, step
        _product(features, scale, direction, along)
        if _is_certificate(features, scale, slack, along, active, multipliers):
            w += direction
            return INSEPARABLE, step + 1
        length = _separating_step(slack, along)
        if length <= 0.0:
            length = _line_search(slack, along)
        w += length * direction
        gradient *= 1.0 - length
        slack -= length * along
        since = (since + 1) % REFRESH
    return UNDECIDED, limit


@compiled
def _extend(features, scale, active, known, gram):  # type: ignore[no-untyped-def]
    """Add the rows and columns of the features from `known` on."""
    chosen = np.flatnonzero(active)
    columns = _columns(features, scale, chosen, chosen.shape[0])
    block = np.dot(columns[known:], columns.T)
    for r in range(known, gram.shape[0]):
        for c in range(gram.shape[0]):
            gram[r, c] = gram[c, r] = block[r - known, c]


@compiled
def _gradient(features, scale, slack, active, out):  # type: ignore[no-untyped-def]
    """Set out to ``Σ slack_i z_i`` over the active points."""
    weights = np.zeros(slack.shape[0])
    for i in range(slack.shape[0]):
        if active[i]:
            weights[i] = slack[i] * scale[i]
    for r in range(features.shape[0]):
        value = 0.0
        for i in range(slack.shape[0]):
            value += weights[i] * features[r, i]
        out[r] = value


@compiled
def _product(features, scale, w, out):  # type: ignore[no-untyped-def]
    """Set ``out_i = z_i·w``."""
    n, m = features.shape
    out[:] = 0.0
    paired = n - n % 4
    for r in range(0, paired, 4):  # four rows a sweep: fewer loads and stores of `out`
        a, b, c, d = w[r], w[r + 1], w[r + 2], w[r + 3]
        for i in range(m):
            out[i] += (
                a * features[r, i]
                + b * features[r + 1, i]
                + c * features[r + 2, i]
                + d * features[r + 3, i]
            )
    for r in range(paired, n):
        for i in range(m):
            out[i] += w[r] * features[r, i]
    out *= scale


@compiled
def _combined(features, scale, multipliers):  # type: ignore[no-untyped-def]
    """Return ``|Σ multipliers_i z_i|``."""
    total = 0.0
    for r in range(features.shape[0]):
        value = 0.0
        for i in range(features.shape[1]):
            value += multipliers[i] * scale[i] * features[r, i]
        total += value * value
    return np.sqrt(total)


@compiled
def _columns(features, scale, chosen, count):  # type: ignore[no-untyped-def]
    """Return the chosen z_i as columns, shape (n, count)."""
    out = np.empty((features.shape[0], count))
    for r in range(features.shape[0]):
        for c in range(count):
            out[r, c] = scale[chosen[c]] * features[r, chosen[c]]
    return out


@compiled
def _least_squares(features, scale, stride):  # type: ignore[no-untyped-def]
    """Return the w of least ``Σ (1 - z_i·w)²`` over every stride-th point."""
    n, m = features.shape
    some = _columns(features, scale, np.arange(0, m, stride), (m - 1) // stride + 1)
    sums = np.dot(some, np.ones(some.shape[1]))
    _, w = _solve(np.dot(some, some.T), sums, 1e-3 * some.shape[1] / n)
    return w


@compiled
def _changes(slack, active, changed):  # type: ignore[no-untyped-def]
    """Write the points that enter and leave the active set into `changed`, the latter last.

    Returns the number of active points, of those that enter and leave, and the sum of slacks.
    """
    size, count, entered, left, total = slack.shape[0], 0, 0, 0, 0.0
    for i in range(size):
        if slack[i] > 0.0:
            count += 1
            total += slack[i]
            if not active[i]:
                changed[entered] = i
                entered += 1
        elif active[i]:
            left += 1
            changed[size - left] = i
    return count, entered, left, total


@compiled
def _move(features, scale, slack, active, changed, entered, left, gram, gradient):  # type: ignore[no-untyped-def]
    """Update matrix, gradient and active set by the changed points."""
    if entered > 0:
        new = _columns(features, scale, changed, entered)
        gram += np.dot(new, new.T)
        gradient += np.dot(new, slack[changed[:entered]])
        for i in changed[:entered]:
            active[i] = True
    if left > 0:
        last = changed[changed.shape[0] - left :]
        old = _columns(features, scale, last, left)
        gram -= np.dot(old, old.T)
        gradient -= np.dot(old, slack[last])
        for i in last:
            active[i] = False


@compiled
def _solve(gram, gradient, ridge):  # type: ignore[no-untyped-def]
    """Return success and (G + ridge)⁻¹ times the gradient."""
    n = gradient.shape[0]
    x = gradient.copy()
    for _ in range(4):
        matrix = gram.copy()
        for k in range(n):
            matrix[k, k] += ridge
        factor, solved = _cholesky(matrix)
        if solved:
            for k in range(n):
                x[k] /= factor[k, k]
                for r in range(k + 1, n):
                    x[r] -= x[k] * factor[r, k]
            for k in range(n - 1, -1, -1):
                dot = 0.0
                for r in range(k + 1, n):
                    dot += factor[r, k] * x[r]
                x[k] = (x[k] - dot) / factor[k, k]
            return True, x
        ridge *= 100
    return False, x


@compiled
def _cholesky(matrix):  # type: ignore[no-untyped-def]
    try:
        return np.linalg.cholesky(matrix), True
    except Exception:  # numba knows no narrower one
        return matrix, False


@compiled
def _is_certificate(features, scale, slack, along, active, multipliers):  # type: ignore[no-untyped-def]
    """Set the multipliers to those at the full step; return whether they are a proof.

    The active points' slacks there are orthogonal to the points. All non-negative, they prove
    that nothing separates, whatever the other points' slacks are.
    """
    multipliers[:] = 0.0
    for i in range(slack.shape[0]):
        if active[i]:
            if slack[i] < along[i]:
                return False
            multipliers[i] = slack[i] - along[i]
    total = multipliers.sum()
    return total > 0.0 and _combined(features, scale, multipliers) <= FARKAS * total


@compiled
def _separating_step(slack, along):  # type: ignore[no-untyped-def]
    """Return a step s > 0 at which all 1 - slack + s along are positive; 0 if there is none."""
    low, high = 0.0, np.inf
    for i in range(slack.shape[0]):
        projection = 1.0 - slack[i]
        if along[i] > 0.0:
            low = max(low, -projection / along[i])
        elif along[i] < 0.0:
            high = min(high, -projection / along[i])
        elif projection <= 0.0:
            return 0.0
        if low >= high:
            return 0.0
    return 0.5 * (low + min(high, 4.0 * low + 1.0))


@compiled
def _line_search(slack, along):  # type: ignore[no-untyped-def]
    """Minimise ``Σ [slack - s along]₊²`` over s > 0, exactly up to rounding.

    The derivative is piecewise linear and increasing; Newton's method on it, kept within the
    bracket found so far, ends on the right piece after a few steps.
    """
    low, high, step = 0.0, np.inf, 1.0
    for _ in range(60):
        slope, curvature = 0.0, 0.0  # minus half the derivative, and half the second
        for i in range(slack.shape[0]):
            left = slack[i] - step * along[i]
            if left > 0.0:
                slope += along[i] * left
                curvature += along[i] * along[i]
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
