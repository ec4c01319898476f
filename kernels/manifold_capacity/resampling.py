"""What the sample of points and manifolds does to a measure: errors, differences, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from manifold_capacity._input import (
    Array,
    Manifolds,
    as_manifolds,
    choice,
    generator,
    real_number,
    whole_number,
)
from manifold_capacity._parallel import reported
from manifold_capacity._result import Result
from manifold_capacity.simulated import LEVEL

Over = Literal["points", "manifolds"]
Method = Literal["jackknife", "bootstrap"]
Values = dict[str, float]

SETTINGS = ("kkt_residual", "unsolved", "undecided", "low_rank_dimension", "ambiguous_share")
"""Entries of results that say how a number came about."""


def resampled(
    function: Callable[..., Mapping[str, Any]],
    manifolds: Manifolds,
    over: Over = "points",
    method: Method = "jackknife",
    repeats: int = 50,
    left_out: float = 0.5,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Result:
    """Return the measures of `function` with the error that the sample of stimuli causes.

    The whole analysis, a low-rank step included, is done anew on each resample.

    - ``"jackknife"``: a share `left_out` is left out at random, and the spread of the measures
      is scaled by ``√((1 - left_out) / left_out)`` (Shao and Wu 1989). With one half the scale
      is one, so that the Monte Carlo noise of a single analysis is not blown up. Of points it
      errs on the safe side, by 10 to 50 % of the error (NUMERICS.md).
    - ``"bootstrap"``: of every manifold as many points as it has, with replacement. Copies of
      a point add nothing to a hull, so this overstates what few points lose. Of
      manifolds it is refused: no hyperplane separates two copies with unlike labels.

    Parameters
    ----------
    function : callable
        `mean_field_capacity`, `conic_capacity`, `simulated_capacity`, `glue`, or another that
        takes manifolds and returns a mapping of names to values.
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
    over : {"points", "manifolds"}
        What is resampled: points of every manifold, or whole manifolds.
    method : {"jackknife", "bootstrap"}
    repeats : int
        At least 2.
    left_out : float
        Share that the jackknife leaves out, between 0 and 1; at least one point or manifold.
    seed : int
        Of the choice. The function keeps its own; ``functools.partial(glue, seed=1)`` sets it.
    progress : bool
        Report on standard error what takes longer than ten seconds.
    **options
        For the function.

    Returns
    -------
    Result
        For every number that the function returns (of one per manifold the mean over them, NaN
        left out): the value on all data, its standard error ``..._se``, an interval of 95 %
        ``..._low`` and ``..._high`` (Student's t with `repeats` - 1 degrees), and the
        values on the resamples ``..._resampled``. The error includes the Monte Carlo noise
        of the function; more draws make that part small.

    Raises
    ------
    ValueError
        For unknown options, and as `function`.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> measured = mc.resampled(mc.conic_capacity, manifolds, draws=10)
    >>> measured.capacity_se > 0
    True
    """
    arrays = as_manifolds(manifolds)
    picks, scale = _picks([array.shape[1] for array in arrays], over, method, left_out, seed)
    run = _runner(function, options)
    whole = run(arrays)
    values = [
        run(pick(arrays))
        for pick in reported(_first(picks, repeats), repeats, "resampling" if progress else None)
    ]
    return _summary(whole, values, scale, function, over, method, repeats, left_out, seed)


def resampled_difference(
    function: Callable[..., Mapping[str, Any]],
    first: Manifolds,
    second: Manifolds,
    over: Over = "points",
    method: Method = "jackknife",
    repeats: int = 50,
    left_out: float = 0.5,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Result:
    """Return second minus first of each measure, for two networks that saw the same stimuli.

    Each resample takes the same points, or manifolds, of both, so that what they share
    cancels. Manifolds and points must be in the same order; features may differ in number.

    Parameters
    ----------
    function, over, method, repeats, left_out, seed, progress, **options
        As in `resampled`.
    first, second : sequence of array_like, or array_like
        As `manifolds` there.

    Returns
    -------
    Result
        As `resampled`, of the differences.

    Raises
    ------
    ValueError
        As `resampled`, and if the numbers of manifolds or of their points differ.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> centers, spread = rng.standard_normal((20, 40, 1)), rng.standard_normal((20, 40, 6))
    >>> wide, tight = centers + 0.6 * spread, centers + 0.2 * spread
    >>> difference = mc.resampled_difference(mc.conic_capacity, wide, tight, draws=10)
    >>> print(f"{difference.capacity:.2f} ± {difference.capacity_se:.2f} manifolds per feature")
    0.65 ± 0.03 manifolds per feature
    """
    sides = [as_manifolds(side) for side in (first, second)]
    sizes, others = ([array.shape[1] for array in side] for side in sides)
    if sizes != others:
        raise ValueError(
            "expected the same stimuli twice, in the same order, got manifolds of "
            f"{_few(sizes)} and of {_few(others)} points"
        )
    picks, scale = _picks(sizes, over, method, left_out, seed)
    run = _runner(function, options)

    def difference(pick: Callable[..., list[NDArray[Any]]]) -> Values:
        before, after = (run(pick(side)) for side in sides)
        return {name: after[name] - before[name] for name in before}

    whole = difference(lambda side: side)
    values = [
        difference(pick)
        for pick in reported(_first(picks, repeats), repeats, "resampling" if progress else None)
    ]
    return _summary(whole, values, scale, function, over, method, repeats, left_out, seed)


def by_size(
    function: Callable[..., Mapping[str, Any]],
    manifolds: Manifolds,
    points: Sequence[int] | None = None,
    counts: Sequence[int] | None = None,
    repeats: int = 4,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Result:
    """Return the measures on random parts of the data, which tells whether one has enough.

    A curve that is level at its end says yes. ``..._gain_points`` puts it into a number: the
    relative change from half of the points to all, about what twice as many would still do.

    Parameters
    ----------
    function, seed, progress, **options
        As in `resampled`.
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
    points : sequence of int, optional
        Points of each manifold. Default: an eighth, a quarter, half of the smallest manifold's,
        and all.
    counts : sequence of int, optional
        Manifolds, at least 2. Default: an eighth, a quarter, half of them, and all.
    repeats : int
        Random parts of each size.

    Returns
    -------
    Result
        For every measure, as `resampled` counts them, its mean over the parts
        ``..._by_points`` (over ``n_points``) and ``..._by_manifolds`` (over ``n_manifolds``),
        their standard deviations ``..._sd``, and ``..._gain_points``, ``..._gain_manifolds``.

    Raises
    ------
    ValueError
        As `resampled`, and for sizes that the data do not have.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> sizes = mc.by_size(mc.conic_capacity, manifolds, [2, 6], [8], repeats=2, draws=10)
    >>> dict(zip(sizes.n_points.tolist(), sizes.capacity_by_points.round(1).tolist()))
    {2: 3.0, 6: 1.1}
    """
    arrays = as_manifolds(manifolds)
    whole_number("repeats", repeats, 2, ", for a spread")
    smallest = min(array.shape[1] for array in arrays)
    sizes = {
        "points": _sizes("points", points, smallest, 1),
        "manifolds": _sizes("counts", counts, len(arrays), 2),
    }
    run = _runner(function, options)
    tasks = [
        (over, size, repeat)
        for over, all_sizes in sizes.items()
        for size in all_sizes
        for repeat in range(repeats)
    ]

    def measured(task: tuple[str, int, int]) -> Values:
        over, size, repeat = task
        rng = generator(seed, 6, repeat)
        if over == "manifolds":
            return run([arrays[i] for i in np.sort(rng.permutation(len(arrays))[:size])])
        return run([array[:, np.sort(rng.permutation(array.shape[1])[:size])] for array in arrays])

    results = reported(map(measured, tasks), len(tasks), "sizes" if progress else None)
    by_task = dict(zip(tasks, results, strict=True))
    values: dict[str, tuple[tuple[str, ...], Any]] = {}
    for over, all_sizes in sizes.items():
        dims = (f"n_{over}",)
        values[dims[0]] = (dims, np.array(all_sizes))
        for name in by_task[over, all_sizes[0], 0]:
            table = np.array(
                [[by_task[over, size, k][name] for k in range(repeats)] for size in all_sizes]
            )
            mean = table.mean(axis=1)
            values[f"{name}_by_{over}"] = (dims, mean)
            values[f"{name}_by_{over}_sd"] = (dims, table.std(axis=1, ddof=1))
            half = np.interp(all_sizes[-1] / 2, all_sizes, mean)
            values[f"{name}_gain_{over}"] = ((), float(mean[-1] / half - 1) if half else np.nan)
    return Result(values, {"function": _name(function), "repeats": repeats, "seed": seed})


def _sizes(name: str, given: Sequence[int] | None, most: int, least: int) -> list[int]:
    if given is None:
        return sorted({max(most // part, least) for part in (8, 4, 2, 1)})
    sizes = sorted({whole_number(name, size, least) for size in given})
    if not sizes or sizes[-1] > most:
        raise ValueError(f"{name}: expected sizes of at most {most}, got {_few(list(given))}")
    return sizes


def _few(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:4])) + (" ..." if len(numbers) > 4 else "")


def _name(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(function, "__name__", type(function).__name__))


def _runner(
    function: Callable[..., Mapping[str, Any]], options: Mapping[str, Any]
) -> Callable[[list[NDArray[Any]]], Values]:
    """Return the function from manifolds to its measures, each one number."""

    def run(manifolds: list[NDArray[Any]]) -> Values:
        result = function(manifolds, **options)
        values = {}
        for name, value in result.items():
            if name in SETTINGS or name.endswith(("_se", "_low", "_high", "_share")):
                continue
            array = np.asarray(value, np.float64)
            if array.ndim == 0:
                values[name] = float(array)
            elif array.shape == (len(manifolds),) and name != "sq_projection":
                known = array[~np.isnan(array)]
                values[name] = float(known.mean()) if len(known) else float("nan")
        return values

    return run


def _picks(
    sizes: list[int], over: Over, method: Method, left_out: float, seed: int
) -> tuple[Iterator[Callable[..., list[NDArray[Any]]]], float]:
    """Return the resamples, as functions from manifolds to manifolds, and the scale of errors."""
    choice("over", over, get_args(Over))
    choice("method", method, get_args(Method))
    left_out = real_number("left_out", left_out)
    if not 0 < left_out < 1:
        raise ValueError(f"left_out: expected a share between 0 and 1, got {left_out}")
    generator(seed)  # checks it
    if method == "bootstrap":
        if over == "manifolds":
            raise ValueError(
                "method: expected 'jackknife' over manifolds, got 'bootstrap'; it would draw a "
                "manifold twice, and no hyperplane separates the two with unlike labels"
            )
        return _bootstrap(sizes, seed), 1.0
    least, total = (2, len(sizes)) if over == "manifolds" else (1, min(sizes))
    if total <= least:
        raise ValueError(f"over: expected more than {least} {over} to leave some out, got {total}")
    return _jackknife(sizes, over, left_out, seed), float(np.sqrt((1 - left_out) / left_out))


def _first(picks: Iterator[Any], repeats: int) -> Iterator[Any]:
    whole_number("repeats", repeats, 2, ", for a standard error")
    return (next(picks) for _ in range(repeats))


def _bootstrap(sizes: list[int], seed: int) -> Iterator[Callable[..., list[NDArray[Any]]]]:
    repeat = 0
    while True:
        rng = generator(seed, 5, repeat)
        chosen = [rng.integers(0, size, size) for size in sizes]
        yield lambda arrays, chosen=chosen: [
            array[:, own] for array, own in zip(arrays, chosen, strict=True)
        ]
        repeat += 1


def _jackknife(
    sizes: list[int], over: Over, left_out: float, seed: int
) -> Iterator[Callable[..., list[NDArray[Any]]]]:
    repeat = 0
    while True:
        rng = generator(seed, 5, repeat)
        if over == "manifolds":
            kept = _kept(rng, len(sizes), left_out, 2)
            yield lambda arrays, kept=kept: [arrays[i] for i in kept]
        else:
            chosen = [_kept(rng, size, left_out, 1) for size in sizes]
            yield lambda arrays, chosen=chosen: [
                array[:, own] for array, own in zip(arrays, chosen, strict=True)
            ]
        repeat += 1


def _kept(rng: np.random.Generator, size: int, left_out: float, least: int) -> NDArray[np.int64]:
    """Return the numbers that are kept of so many, in rising order."""
    count = min(max(round((1 - left_out) * size), least), size - 1)
    return np.sort(rng.permutation(size)[:count])


def _summary(
    whole: Values,
    values: list[Values],
    scale: float,
    function: Callable[..., Any],
    over: Over,
    method: Method,
    repeats: int,
    left_out: float,
    seed: int,
) -> Result:
    entries: dict[str, tuple[tuple[str, ...], Any]] = {}
    factor = float(stdtrit(repeats - 1, 0.5 + LEVEL / 2))
    for name, value in whole.items():
        all_values: Array = np.array([one[name] for one in values])
        with np.errstate(invalid="ignore"):
            se = scale * float(all_values.std(ddof=1))
        entries[name] = ((), value)
        entries[f"{name}_se"] = ((), se)
        entries[f"{name}_low"] = ((), value - factor * se)
        entries[f"{name}_high"] = ((), value + factor * se)
        entries[f"{name}_resampled"] = (("repeat",), all_values)
    return Result(
        entries,
        {
            "function": _name(function), "over": over, "method": method, "repeats": repeats,
            "left_out": left_out, "seed": seed,
        },
    )  # fmt: skip
