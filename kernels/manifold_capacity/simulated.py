"""Simulated capacity: how few random features still separate random dichotomies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr
from scipy.special import bdtr, ndtri

from manifold_capacity._input import (
    MANY,
    Array,
    Manifolds,
    as_manifolds,
    choice,
    flag,
    generator,
    joined,
    whole_number,
)
from manifold_capacity._parallel import for_each, may_stop, one_blas_thread, refuse_beyond_memory
from manifold_capacity._result import Result
from manifold_capacity.separability import (
    decide,
    keep_margin,
    lifted,
    nonnegative_margin,
    signed_scale,
)

Labels = Literal["balanced", "independent", "one-vs-rest"]
Projection = Literal["gaussian", "subset", "pca"]
Procedure = Literal["nested", "chung", "cohen"]

SCOUTS = 8
"""Draws after which the search begins where they ended."""

BELOW = 0.25
"""Where in the interval that holds n* the next test is."""

BLOCK = 32
"""Features that are made at once."""

REACH = 16
"""With a margin so many times more random features are tried than the points have dimensions."""

FAR = 100.0
"""Distance from the origin, in units of the spread, beyond which single precision is too little."""

LEVEL = 0.95
"""Coverage of all intervals."""


@one_blas_thread
def simulated_capacity(
    manifolds: Manifolds,
    draws: int = 100,
    labels: Labels | ArrayLike = "balanced",
    bias: bool = True,
    projection: Projection = "gaussian",
    kappa: float = 0.0,
    seed: int = 0,
    procedure: Procedure = "nested",
    threads: int | None = None,
    progress: bool = False,
) -> Result:
    """Return the capacity P / N_c measured by bisection on the number of features.

    Every draw has one labelling of the manifolds and one *nested* sequence of features (the
    first n rows of one random matrix), so that separability is monotone in n, and bisection
    finds the exact n*, the fewest features that separate. N_c is the median of n*; at each n
    the law of the outcome is that of a fresh projection (paper, A.4.2: "a bisection search on
    the critical number of feature dimensions required in order to reach roughly 50 %").

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
        Features by points. Memory: the reduced data, at most (min(N, ΣM), ΣM), and per thread
        one projection of it.
    draws : int
    labels : {"balanced", "independent", "one-vs-rest"} or array_like, shape (P,) or (draws, P)
        Balanced: P // 2 positive, in random places. Independent: fair coins, all-equal
        labellings drawn anew. One-vs-rest: one positive manifold.
    bias : bool
        Allow an offset of the hyperplane.
    projection : {"gaussian", "subset", "pca"}
        Gaussian features; a random order of the given features; the principal components by
        falling variance.
    kappa : float
        Margin, at least 0, in units of the norm of the manifold's centre (with a bias: from the
        mean of all points); with Gaussian features and ``"nested"`` only. The w of length one
        has ``y_p (w·x + b) >= κ |c_p|`` for features of variance |x|².
    seed : int
    procedure : {"nested", "chung", "cohen"}
        Ours, or for comparison what two public codes do. ``"chung"``: at each n, `draws`
        fresh projections with columns of length one; bisection on [2, N] until the share p
        that is separable is within 0.05 of one half, then interpolation (the Python code of
        Wakhloo and Chung). ``"cohen"``: fresh projections until the standard error of p is
        at most 0.05 (20 to `draws`), bisection to width 1, the first n with p >= 1/2 (the
        MATLAB code of Cohen et al. 2020).
    threads : int, optional
        Default: all processors. Results do not depend on it.
    progress : bool
        Report on standard error what takes longer than ten seconds.

    Returns
    -------
    Result
        ``capacity`` and ``features`` (N_c) with ``..._low`` and ``..._high``, for the nested
        procedure an interval of 95 % from order statistics; ``undecided``, the number of
        separability tests without a proof either way (counted as inseparable). Nested: per
        draw ``smallest_separable`` (n*; infinite where all N features are not enough, or
        with a margin sixteen times as many random ones), and the curve ``separable_share`` over
        ``n_features`` with its interval. Where the median is infinite, capacity is NaN: P is
        too large for the features given, and ``separable_share`` ends at p(N). Otherwise: p at
        each n tested.

    Raises
    ------
    ValueError
        For bad manifolds, see `mean_field_capacity`, or options; where the points do not fit
        into memory.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> simulation = mc.simulated_capacity(manifolds, draws=20)
    >>> simulation.features  # so many random features separate half of the labellings
    7.0
    >>> round(simulation.capacity, 2)
    1.14
    """
    choice("projection", projection, get_args(Projection))
    choice("procedure", procedure, get_args(Procedure))
    flag("bias", bias)
    flag("progress", progress)
    whole_number("draws", draws, 1, most=MANY)
    kappa = nonnegative_margin(kappa)
    if kappa > 0 and (projection, procedure) != ("gaussian", "nested"):
        raise ValueError(
            "kappa: expected 0 with this projection and procedure, as a margin needs Gaussian "
            f"features and 'nested', got {kappa} with {projection!r} and {procedure!r}"
        )
    arrays = as_manifolds(manifolds)
    refuse_beyond_memory([array.shape for array in arrays], copies=3)
    points, owner = joined(arrays)
    label_of = labeller(labels, len(arrays), draws, seed)
    data = reduced(points, projection, bias)
    attributes = {
        "draws": draws, "labels": labels if isinstance(labels, str) else "given",
        "bias": int(bias), "projection": projection, "kappa": kappa, "seed": seed,
        "procedure": procedure,
    }  # fmt: skip
    name = "simulated capacity" if progress else None
    if procedure == "nested":
        values = _nested(data, owner, label_of, draws, bias, projection, kappa, seed, threads, name)
    else:
        rule = _chung if procedure == "chung" else _cohen
        values = rule(data, owner, label_of, draws, bias, projection, seed, threads)
    return Result(values, attributes)


def labeller(
    labels: Labels | ArrayLike, count: int, draws: int, seed: int
) -> Callable[[int], Array]:
    """Return the function that gives the labels, shape (P,), of a draw by its number."""
    if not isinstance(labels, str):
        given = np.asarray(labels, np.float64)
        if given.shape not in ((count,), (draws, count)) or not (np.abs(given) == 1).all():
            raise ValueError(
                f"labels: expected +1 or -1 in shape ({count},) or ({draws}, {count}), got shape "
                f"{given.shape} with values {np.unique(given)[:4]}"
            )
        return lambda draw: given if given.ndim == 1 else given[draw % draws]
    if labels not in get_args(Labels):
        raise ValueError(
            f"labels: expected an array or one of {', '.join(get_args(Labels))}, got {labels!r}"
        )

    def drawn(draw: int) -> Array:
        rng = generator(seed, 2, draw)
        if labels == "independent":
            while True:
                signs = rng.choice(np.array([-1.0, 1.0]), count)
                if abs(signs.sum()) < count:
                    return signs
        positive = count // 2 if labels == "balanced" else 1
        return np.where(rng.permutation(count) < positive, 1.0, -1.0)

    return drawn


def reduced(data: Array, projection: Projection, bias: bool) -> NDArray[Any]:
    """Return the points in fewer dimensions where the law of their projections allows it.

    Gaussian projections only see inner products, so min(N, ΣM) dimensions do; principal
    components are computed once. Subsets need the features as they are. With a bias a common
    shift changes nothing, so the mean is removed, which conditions the tests.

    Gaussian projections are made in single precision, for random numbers need no more, and
    then taken as they are; not of points that lie far from the origin for their spread. What is
    finer than 1e-7 of the spread is lost.
    """
    mean = data.mean(axis=1, keepdims=True)
    if bias or projection == "pca":
        deviations = data - mean
    if bias:
        data = deviations
    features, count = data.shape
    if projection == "pca":
        axes, _, _ = np.linalg.svd(deviations, full_matrices=False)
        return axes.T @ data
    if projection == "gaussian":
        if features > count:
            data = qr(data, mode="r", check_finite=False)[0][:count]
        spread = np.linalg.norm(data) ** 2 - count * np.linalg.norm(mean) ** 2
        if bias or np.linalg.norm(mean) ** 2 * count < FAR**2 * spread:
            return data.astype(np.float32)
    return data


class _Features:
    """The nested features of one draw, made as far as they are asked for."""

    def __init__(
        self, data: NDArray[Any], projection: Projection, bias: bool, seed: int, draw: int
    ) -> None:
        self.data, self.projection, self.bias = data, projection, int(bias)
        self.rng = generator(seed, 3, draw)
        self.made = data[:0]
        if projection == "subset":
            self.made = data[self.rng.permutation(len(data))]
        elif projection == "pca":
            self.made = data
        if bias:  # any constant will do; one of the size of a projection conditions the tests
            size = np.sqrt(np.einsum("ij,ij->", data, data, dtype=np.float64) / data.shape[1])
            constant = np.full((1, data.shape[1]), size or 1.0, data.dtype)
            self.made = np.concatenate([constant, self.made])

    def first(self, n: int) -> NDArray[Any]:
        """Return features 1 to n of all points, shape (n, ΣM)."""
        return self.with_constant(n)[self.bias :]

    def with_constant(self, n: int) -> NDArray[Any]:
        """Return the same below a constant feature, which stands for the bias if there is one."""
        missing = n + self.bias - len(self.made)
        if missing > 0:
            # Whole blocks, so that the draws do not depend on the order of asking.
            rows = -(-missing // BLOCK) * BLOCK
            weights = self.rng.standard_normal((rows, len(self.data)), dtype=self.data.dtype)
            self.made = np.concatenate([self.made, weights @ self.data])
        return self.made[: n + self.bias]


def _nested(
    data: NDArray[Any],
    owner: NDArray[np.integer],
    label_of: Callable[[int], Array],
    draws: int,
    bias: bool,
    projection: Projection,
    kappa: float,
    seed: int,
    threads: int | None,
    progress: str | None,
) -> dict[str, tuple[tuple[str, ...], Any]]:
    largest = len(data) * (1 if kappa == 0 else REACH)
    margins = kappa * _center_norms(data, owner)

    def smallest(draw: int, guess: int, stride: int) -> tuple[float, int]:
        """Return n* and the number of undecided tests: gallop from a guess, then bisect.

        Every test begins where the last one failed: tests of sets that are not separable are
        the quicker ones, and a good start for those that are. So n is chosen below the middle.
        """
        features = _Features(data, projection, bias, seed, draw)
        signs = label_of(draw)[owner]
        if kappa > 0 and not _separated(data, signs, bias):  # however many features
            return np.inf, 0
        undecided, start, scale = 0, None, None
        low, high, n = 0, largest + 1, guess  # no feature separates; one too many stands for none
        while high - low > 1:
            may_stop()
            made = features.with_constant(n)
            if kappa > 0:
                points = made[int(bias) :].T.astype(np.float64)
                points -= bias * points.mean(axis=0)
                answer = keep_margin(points, signs, margins, bias)[0]
            else:
                if scale is None or projection != "gaussian":
                    scale, start = signed_scale(made, signs), None
                answer, end, _, _ = decide(made, scale, start)
                start = start if answer else end
            undecided += answer is None
            low, high = (low, n) if answer else (n, high)
            if low == 0:
                n = max(1, high - stride)
            elif high > largest:
                n = min(largest, low + stride)
            else:
                n = low + max(1, int(BELOW * (high - low)))
            stride *= 2
        return (np.inf if high > largest else float(high)), undecided

    owners = int(owner[-1]) + 1
    # A few draws tell where the others will end; that saves tests and changes no result.
    results = [smallest(0, min(max(owners // 2, 1), largest), max(owners // 2, 1))]
    for last in (SCOUTS, draws):
        known = np.minimum([star for star, _ in results], largest)
        guess, stride = int(known.min()), max(1, int(known.max() - known.min()) // 3)
        if len(results) == 1:
            stride = max(1, guess // 16)
            guess = max(1, guess - stride)
        numbers = range(len(results), min(last, draws))
        one = partial(smallest, guess=guess, stride=stride)
        results += for_each(one, numbers, threads, progress)
    stars = np.array([star for star, _ in results])
    middle, low, high = median_interval(stars)
    curve = np.arange(1, largest + 1)
    finite = stars[np.isfinite(stars)]
    if len(finite):
        reach = int(finite.max()) if len(finite) == draws else largest
        curve = np.arange(max(1, int(finite.min()) - 1), reach + 1)
    share = (stars[None, :] <= curve[:, None]).mean(axis=1)
    share_low, share_high = _wilson(share, draws)
    return {
        **_capacities(owners, middle, low, high),
        "undecided": ((), int(sum(count for _, count in results))),
        "smallest_separable": (("draw",), stars),
        "n_features": (("n",), curve),
        "separable_share": (("n",), share),
        "separable_share_low": (("n",), share_low),
        "separable_share_high": (("n",), share_high),
    }


def _separated(data: NDArray[Any], signs: Array, bias: bool) -> bool:
    full = lifted(data, bias)
    return bool(decide(full, signed_scale(full, signs))[0])


def _center_norms(data: NDArray[Any], owner: NDArray[np.integer]) -> Array:
    """Return of each point the norm of its manifold's centre, shape (ΣM,)."""
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    centers = np.add.reduceat(data.astype(np.float64), starts, axis=1) / np.bincount(owner)
    norms: Array = np.linalg.norm(centers, axis=0)[owner]
    return norms


def median_interval(values: Array, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the median and the interval between order statistics that covers it.

    The interval is the shortest symmetric one with binomial coverage of at least `level`;
    with fewer than six values there is none, and it is unbounded.
    """
    count = len(values)
    ordered = np.sort(values)
    middle = float(ordered[(count - 1) // 2 : count // 2 + 1].mean())
    below = int((bdtr(np.arange(count), count, 0.5) <= (1 - level) / 2).sum())
    if below < 1:
        return middle, -np.inf, np.inf
    return middle, float(ordered[below - 1]), float(ordered[count - below])


def _capacities(
    count: int, middle: float, low: float, high: float
) -> dict[str, tuple[tuple[str, ...], Any]]:
    known = np.isfinite(middle)
    return {
        "capacity": ((), count / middle if known else np.nan),
        "capacity_low": ((), count / high),
        "capacity_high": ((), np.inf if low <= 0 else count / low),
        "features": ((), middle if known else np.nan),
        "features_low": ((), max(low, 0.0)),
        "features_high": ((), high),
    }


def _wilson(share: Array, count: int) -> tuple[Array, Array]:
    z = float(ndtri(0.5 + LEVEL / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) * z / (1 + z * z / count)
    return np.clip(middle - spread, 0, 1), np.clip(middle + spread, 0, 1)


class _Fresh:
    """Shares p(n) from fresh projections, as the public codes draw them."""

    def __init__(
        self, data: NDArray[Any], owner: NDArray[np.integer], label_of: Callable[[int], Array],
        bias: bool, projection: Projection, seed: int, threads: int | None,
    ) -> None:  # fmt: skip
        self.data, self.owner, self.label_of, self.bias = data, owner, label_of, bias
        self.projection, self.seed, self.threads = projection, seed, threads
        self.drawn, self.undecided = 0, 0
        self.shares: dict[int, float] = {}

    def outcomes(self, n: int, repeats: int) -> list[bool]:
        def one(draw: int) -> bool | None:
            features = _Features(self.data, self.projection, False, self.seed, draw).first(n)
            norms = np.linalg.norm(features, axis=0)
            features = lifted(features / np.where(norms > 0, norms, 1), self.bias)
            signs = self.label_of(draw)[self.owner]
            return decide(features, signed_scale(features, signs))[0]

        numbers = range(self.drawn, self.drawn + repeats)
        self.drawn += repeats
        answers = for_each(one, numbers, self.threads)
        self.undecided += sum(answer is None for answer in answers)
        return [bool(answer) for answer in answers]

    def result(self, features: float) -> dict[str, tuple[tuple[str, ...], Any]]:
        tested = sorted(self.shares)
        return {
            **_capacities(int(self.owner[-1]) + 1, features, np.nan, np.nan),
            "undecided": ((), self.undecided),
            "n_features": (("n",), np.array(tested)),
            "separable_share": (("n",), np.array([self.shares[n] for n in tested])),
        }


def _chung(
    data: NDArray[Any], owner: NDArray[np.integer], label_of: Callable[[int], Array], draws: int,
    bias: bool, projection: Projection, seed: int, threads: int | None,
) -> dict[str, tuple[tuple[str, ...], Any]]:  # fmt: skip
    fresh = _Fresh(data, owner, label_of, bias, projection, seed, threads)

    def share(n: int) -> float:
        if n not in fresh.shares:
            fresh.shares[n] = float(np.mean(fresh.outcomes(n, draws)))
        return fresh.shares[n]

    low, high = 2, len(data)
    if high < 2 or share(high) < 0.5:
        return fresh.result(np.nan)
    while high - low > 1:
        middle = (low + high) // 2
        if abs(share(middle) - 0.5) <= 0.05:
            return fresh.result(float(middle))
        low, high = (low, middle) if share(middle) > 0.5 else (middle, high)
    below, above = share(low), share(high)
    features = float(low) if above == below else low + (0.5 - below) / (above - below)
    return fresh.result(min(max(features, float(low)), float(high)))


def _cohen(
    data: NDArray[Any], owner: NDArray[np.integer], label_of: Callable[[int], Array], draws: int,
    bias: bool, projection: Projection, seed: int, threads: int | None,
) -> dict[str, tuple[tuple[str, ...], Any]]:  # fmt: skip
    fresh = _Fresh(data, owner, label_of, bias, projection, seed, threads)

    def share(n: int) -> float:
        outcomes = fresh.outcomes(n, min(20, draws))
        while len(outcomes) < draws:
            if np.std(outcomes, ddof=1) / np.sqrt(len(outcomes)) <= 0.05:
                break
            outcomes += fresh.outcomes(n, min(20, draws - len(outcomes)))
        fresh.shares[n] = float(np.mean(outcomes))
        return fresh.shares[n]

    low, high = 0, len(data)
    if share(high) < 0.5:
        return fresh.result(np.nan)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if share(middle) >= 0.5 else (middle, high)
    return fresh.result(float(high))
