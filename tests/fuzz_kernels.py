"""Give random inputs to all public kernels; report unclear failures and nonsense.

``python -m tests.fuzz_kernels [COUNT] [FIRST]``: COUNT inputs (10,000), each made from its own
number, from FIRST on. Half are proper, of any size from 1e-300 to 1e300, many degenerate:
duplicates, lines, constants, manifolds that coincide, large offsets, one feature or point. They
must give a result within its bounds, the same bits after multiplication by a power of two and
the same numbers for manifolds in another order, or else be refused. Half have one argument that
is not what it should be. A refusal is a ValueError of one line.
"""

from __future__ import annotations

import contextlib
import datetime
import sys
import warnings

import numpy as np

import manifold_capacity as mc
from manifold_capacity.replica import alldata_dimension_analysis, manifold_analysis_corr

MEMORY = 8 * 2**30
"""Bytes of address space."""

JUNK = (
    None, "30", "text", b"x", 2.5, -1, 0, True, 1j, np.nan, np.inf, -np.inf, 1e200,
    [], {}, {"a": 1}, set(), (), object(), range(3), slice(3), datetime.date(2026, 1, 1),
    lambda: 0, np.float64(3), np.array(3), [[1, 2], [3]],
    np.empty((0, 3)), np.empty((3, 0)), np.ones(3), np.ones((2, 2)), np.ones((2, 3, 4)),
    np.ones((2, 2, 2, 2)), np.full((3, 2), np.nan), np.array([[1, np.inf], [0, 1]]),
    np.array(["a", "b"]), np.array([1, None]), np.array(["2026-01-01"], "datetime64[D]"),
    np.ones((2, 2), complex), np.zeros(2, [("a", float)]), np.ma.array([1.0, 2.0], mask=[1, 0]),
    [np.ones((3, 2)), None], [np.ones((3, 2)), np.ones((4, 2))], [np.ones((3, 2)), np.ones(3)],
)  # fmt: skip


def cloud(rng: np.random.Generator, degenerate: bool) -> list[np.ndarray]:
    """Return manifolds of size about one."""
    count, features = int(rng.integers(2, 7)), int(rng.integers(1, 9))
    sizes = rng.integers(1, 7, count) if rng.random() < 0.5 else np.full(count, rng.integers(1, 7))
    manifolds = [
        rng.standard_normal((features, 1)) + rng.uniform(0, 2) * rng.standard_normal((features, m))
        for m in sizes
    ]
    if not degenerate:
        return manifolds
    kind = rng.integers(0, 10)
    i, j = rng.choice(count, 2, replace=False)
    if kind == 0:
        manifolds[i] = manifolds[j].copy()
    elif kind == 1:
        manifolds = [manifolds[0]] * count
    elif kind == 2:
        manifolds[i] *= 0
    elif kind == 3:
        manifolds[i][:] = manifolds[i][:, :1]
    elif kind == 4:
        manifolds = [m + 10.0 ** rng.integers(1, 9) for m in manifolds]
    elif kind == 5:
        manifolds[i] *= 10.0 ** rng.integers(-12, 12)
    elif kind == 6:
        line = rng.standard_normal((features, 1))
        manifolds = [line * rng.standard_normal(m.shape[1]) for m in manifolds]
    elif kind == 7:
        manifolds = [np.round(m) for m in manifolds]
    elif kind == 8:
        manifolds = [np.maximum(m, 0) for m in manifolds]
    else:
        c, v = rng.standard_normal((2, features, 1))
        manifolds = [c + s * v + 0 * manifolds[0] for s in (0, 1, -1)]
    return manifolds


def mean_field(manifolds, rng):
    """Every option at random; t vectors given for half of the inputs."""
    n_t = int(rng.integers(2, 6))
    vectors = None
    if rng.random() < 0.5:
        vectors = [rng.standard_normal((min(m.shape) + 1, n_t)) for m in manifolds]
    options = {
        "kappa": float(rng.choice([0, 0, 0.5, -0.5])), "n_t": n_t, "t_vecs": vectors,
        "low_rank": [False, "guarded", "package"][rng.integers(3)],
        "definition": str(rng.choice(["paper", "package"])), "threads": int(rng.integers(1, 3)),
    }  # fmt: skip
    return mc.mean_field_capacity, (manifolds,), options


def drop_in(manifolds, rng):
    vectors = [rng.standard_normal((min(m.shape) + 1, 4)) for m in manifolds]
    return manifold_analysis_corr, (manifolds, 0.0, 4, vectors, 2), {}


def centres_of(manifolds):
    return np.stack([m.mean(axis=1) for m in manifolds], axis=1)


def low_rank(manifolds, rng):
    rule = str(rng.choice(["guarded", "package"]))
    return mc.low_rank, (centres_of(manifolds),), {"rule": rule, "threads": 1}


def correlation(manifolds, rng):
    return mc.center_correlation, (centres_of(manifolds),), {}


def anchors(manifolds, rng):
    points = np.vstack([manifolds[0], np.ones(manifolds[0].shape[1])])
    vectors = rng.standard_normal((len(points), 3))
    return mc.anchor_points, (points, vectors, float(rng.choice([0, 0.5]))), {"multipliers": True}


def conic(manifolds, rng):
    return mc.conic_capacity, (manifolds,), {"draws": 3}


def glue(manifolds, rng):
    return mc.glue, (manifolds,), {"draws": 3}


def simulated(manifolds, rng):
    return mc.simulated_capacity, (manifolds,), {"draws": 3, "bias": bool(rng.integers(2))}


def separable(manifolds, rng):
    points = np.concatenate(manifolds, axis=1)
    labels = rng.choice([-1.0, 1.0], points.shape[1])
    return mc.separable, (points, labels), {"bias": bool(rng.integers(2))}


def dimensions(manifolds, rng):
    function = [
        mc.participation_ratio, mc.explained_variance_dimension, alldata_dimension_analysis,
    ][rng.integers(3)]  # fmt: skip
    return function, (manifolds,), {}


def labelled(manifolds, rng):
    features = np.concatenate(manifolds, axis=1).T
    options = {"shuffle": bool(rng.integers(2)), "project": int(rng.integers(1, 9))}
    return mc.from_labels, (features, np.arange(len(features)) % 3), options


def point(manifolds, rng):
    return mc.point_capacity, (size(rng),), {}


def ball(manifolds, rng):
    how = str(rng.choice(["exact", "paper"]))
    return mc.ball_capacity, (abs(size(rng)), abs(size(rng)) + 1e-300, size(rng), how), {}


KERNELS = (
    mean_field, mean_field, drop_in, low_rank, correlation, anchors, conic, glue, simulated,
    separable, dimensions, labelled, point, ball,
)  # fmt: skip


def size(rng: np.random.Generator) -> float:
    """Return a number of either sign, ordinary or of any order of magnitude."""
    sign = float(rng.choice([-1.0, 1.0]))
    return sign * 10.0 ** rng.uniform(*((-300, 300) if rng.random() < 0.5 else (-1, 1)))


def numbers(result) -> dict[str, np.ndarray]:
    """Return all numbers of a result by name."""
    if isinstance(result, dict) or hasattr(result, "attributes"):
        pairs = dict(result)
    elif hasattr(result, "__dataclass_fields__"):
        pairs = vars(result)
    elif isinstance(result, (tuple, list)):
        pairs = {str(i): value for i, value in enumerate(result)}
    else:
        pairs = {"0": result}
    return {
        k: np.asarray(v, float)
        for k, v in pairs.items()
        if v is not None and not isinstance(v, str)
    }


UNIT = ("center_correlation", "correlation", "residuals", "kept", "center_kept", "separable_share")


def nonsense(function, arguments, options, result) -> str | None:
    """Return what is out of bounds, if anything is."""
    values = numbers(result)
    flagged = np.asarray(values.get("flagged", False), bool)
    for name, value in values.items():
        if name in ("basis", "weights", "offset") or function is mc.from_labels:
            if not np.isfinite(value).all() and getattr(result, "weights", 0) is not None:
                return f"{name} is not finite"
            continue
        if function is mc.glue and name.startswith("manifold_"):
            continue  # terms of a sum, of any sign, which may be 0/0
        allowed = np.isnan(value) & bool(
            flagged.any()
            or name in ("kept", "margin", "residual")  # documented
            or (function is mc.simulated_capacity and name.startswith(("capacity", "features")))
            or function is manifold_analysis_corr
            or (function is mc.glue and (name.endswith("_se") or "alignment" in name))
            or (name.endswith("capacity_se") and np.isinf(values["capacity"]).any())
        )
        if name == "center_correlation" and np.isnan(value).all():
            allowed |= True  # all centres coincide
        if function is not mc.anchor_points and (value[~allowed] < -1e-12).any():
            return f"{name} is negative: {value}"
        if (np.isnan(value) & ~allowed).any():
            return f"{name} is NaN"
        if name in UNIT and (value > 1 + 1e-9).any():
            return f"{name} is over one: {value}"
        if name == "kkt_residual" and (value > 1e-9).any():
            return f"{name} is {value}"
    if function is mc.anchor_points:
        reach = np.abs(arguments[0]).max(axis=1, keepdims=True)
        if (np.abs(result.anchors) > reach * (1 + 1e-6)).any():
            return "an anchor outside its manifold"
    return None


def call(function, arguments, options):
    """Return the result, or a refusal in one line, or what else was raised."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "manifolds .*", RuntimeWarning)  # flagged, undefined
            warnings.filterwarnings("ignore", "glue: .*", UserWarning)  # anchors not unique
            return function(*arguments, **options), None
    except ValueError as error:
        text = str(error)
        clear = "\n" not in text and len(text) < 400 and ("expected" in text or "coincide" in text)
        return None, (None if clear else f"unclear: {error!r}")
    except Exception as error:
        return None, f"unclear: {type(error).__name__}: {error}"


def scaled(argument, factor):
    """Return an array or list of arrays times a power of two."""
    return [a * factor for a in argument] if isinstance(argument, list) else argument * factor


def moved(function, arguments, options, result, rng) -> str | None:
    """Return how a result changes with the size of data or the order of manifolds."""
    if function in (mc.point_capacity, mc.ball_capacity, mc.anchor_points):
        return None
    factor = 2.0 ** int(rng.integers(-900, 900))
    other, failure = call(function, (scaled(arguments[0], factor), *arguments[1:]), options)
    if other is None:
        return failure or "is refused at another scale"
    before, after = numbers(result), numbers(other)
    for name, value in before.items():
        if name == "center_norm" or (function is mc.from_labels):
            value = value * factor
        if name in ("margin", "offset", "weights", "residual"):
            continue
        if not np.array_equal(after[name], value, equal_nan=True):
            return f"{name} changes with scale: {value} {after[name]}"
    if function is mc.mean_field_capacity and options["t_vecs"] is not None:
        order = rng.permutation(len(arguments[0]))
        turned = options | {"t_vecs": [options["t_vecs"][i] for i in order], "low_rank": False}
        plain, _ = call(function, arguments, options | {"low_rank": False})
        other, failure = call(function, ([arguments[0][i] for i in order],), turned)
        if plain is None or other is None:
            return failure or (None if plain is other else "is refused in another order")
        if not np.allclose(other["capacity"], plain["capacity"][order], rtol=1e-6):
            return f"capacity changes with order: {plain['capacity'][order]} {other['capacity']}"
    return None


def one(number: int) -> str | None:
    """Make one input, and return what went wrong with it."""
    rng = np.random.default_rng([2026, number])
    manifolds = cloud(rng, degenerate=rng.random() < 0.5)
    kernel = KERNELS[rng.integers(len(KERNELS))]
    function, arguments, options = kernel(manifolds, rng)
    if number % 2:
        place = int(rng.integers(len(arguments) + len(options)))
        junk = JUNK[rng.integers(len(JUNK))]
        if place < len(arguments):
            arguments = (*arguments[:place], junk, *arguments[place + 1 :])
        else:
            options[list(options)[place - len(arguments)]] = junk
        _, failure = call(function, arguments, options)
        shown = f"argument {place} = {junk!r}"
        return failure and f"{function.__name__}, {shown}: {failure}"
    result, failure = call(function, arguments, options)
    if result is not None:
        failure = nonsense(function, arguments, options, result)
        failure = failure or moved(function, arguments, options, result, rng)
    shown = ", ".join(f"{k}={v}" for k, v in options.items() if k != "t_vecs")
    return failure and f"{function.__name__}({shown}): {failure}"


def main(count: int = 10_000, first: int = 0) -> int:
    """Report all failures, and return how many there were."""
    failures = 0
    for number in range(first, first + count):
        failure = one(number)
        if failure:
            failures += 1
            print(f"input {number}: {failure[:400]}", flush=True)
    print(f"{failures} of {count} inputs fail")
    return failures


if __name__ == "__main__":
    with contextlib.suppress(ImportError):  # a kernel that asks for all memory shall not get it
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    sys.exit(main(*map(int, sys.argv[1:3])) > 0)
