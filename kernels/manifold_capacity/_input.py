"""What every kernel checks of what it is given, and the one place where data are scaled.

A public function calls, before anything else:

- `whole_number`, `real_number`, `choice`, `flag` for each of its options, by the option's name;
- `real_array` for an array, or `as_manifolds` for manifolds;
- `joined` where it needs all points side by side, `scaled` for one array, or `magnitude` of
  every manifold and `power_of_two` where it works on one manifold at a time.

The last three bring the largest absolute value near one, so that no square over- or underflows
between 1e-300 and 1e300. They multiply by a power of two, which is exact: a result that
does not depend on scale keeps its bits, another is divided by the factor once, at the end.
What is left after subtraction is zero if `vanishing` says so, never by a constant of its own.

Everything refused is refused by a ValueError of one line.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Manifolds = Sequence[NDArray[Any]] | NDArray[Any]

LARGEST = 1e100
"""Of numbers that are not data, such as margins: their squares are still far from overflow."""

ROUNDING = 1e-13
"""A difference of this share of what was subtracted is rounding."""


def real_array(name: str, given: Any) -> NDArray[Any]:
    """Return an array of real numbers, not copied if it is one already.

    CPU tensors are detached, bfloat16 becomes float32; data frames and memory maps are taken as
    they are, truth values as 0 and 1.

    Raises
    ------
    ValueError
        For None, dicts, text, dates, objects, complex numbers, masked entries, ragged lists and
        tensors elsewhere. Whether numbers are finite is left to `magnitude`.
    """
    parts = given if isinstance(given, (list, tuple)) else [given]
    if any(np.ma.is_masked(part) for part in parts):
        raise ValueError(f"{name}: expected no masked entries; fill them or drop their points")
    try:
        array = np.asarray(_of_tensor(name, given))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: expected an array of real numbers, got {reason}") from None
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind not in "fiu":
        what = f"dtype {array.dtype}" if array.ndim else type(given).__name__
        raise ValueError(f"{name}: expected real numbers, got {what}")
    return array


def _of_tensor(name: str, given: Any) -> Any:
    """Return what numpy can read of a tensor (torch is not imported), anything else as it is."""
    if isinstance(given, (list, tuple)):
        return [_of_tensor(name, part) for part in given]
    if not (hasattr(given, "detach") and hasattr(given, "device")):
        return given
    if given.device.type != "cpu":
        raise ValueError(f"a tensor on {given.device}: move it with .cpu()")
    tensor = given.detach()
    return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


def real_labels(name: str, given: Any) -> NDArray[Any]:
    """Return an array of labels: numbers, none of them NaN, or words."""
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        raise ValueError(f"{name}: expected no masked entries; drop their samples")
    try:
        array = np.asarray(_of_tensor(name, given))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: expected labels, got {str(error).splitlines()[0]}") from None
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "biufUS" or (array.dtype.kind == "f" and np.isnan(array).any()):
        what = f"dtype {array.dtype}" if array.dtype.kind != "f" else "NaN"
        raise ValueError(f"{name}: expected numbers or words, got {what}")
    return array


MANY = 10_000_000
"""More draws or Gaussian vectors than anybody has memory for."""


def whole_number(name: str, value: Any, least: int, why: str = "", most: int | None = None) -> int:
    """Return an option that must be a whole number from `least` to `most`, if that is given."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: expected a whole number, got {brief(value)}")
    if number < least:
        raise ValueError(f"{name}: expected at least {least}{why}, got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name}: expected at most {most}, got {number}")
    return number


def real_number(name: str, value: Any, what: str = "number", largest: float = np.inf) -> float:
    """Return an option that must be one finite number, at most `largest` in size."""
    array = real_array(name, value)
    if array.ndim:
        raise ValueError(f"{name}: expected one {what}, got an array of shape {array.shape}")
    number = float(array)
    if not np.isfinite(number):
        raise ValueError(f"{name}: expected a finite {what}, got {number}")
    if abs(number) > largest:
        raise ValueError(f"{name}: expected a {what} up to {largest:g} in size, got {number}")
    return number


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """Return an option that must be one of the known words."""
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{name}: expected one of {', '.join(words)}, got {brief(value)}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return an option that must be True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: expected True or False, got {brief(value)}")
    return bool(value)


def brief(value: Any) -> str:
    """Return a value as one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:40]}..."


def as_manifolds(manifolds: Manifolds) -> list[NDArray[Any]]:
    """Return the manifolds as a list of arrays (N, M_i), without copying them.

    Raises
    ------
    ValueError
        Naming the manifold, if shapes or types do not fit; values are checked by `magnitude`.
    """
    if isinstance(manifolds, (Mapping, str, bytes)) or not hasattr(manifolds, "__iter__"):
        hint = "; pass list(manifolds.values())" if isinstance(manifolds, Mapping) else ""
        raise ValueError(
            "expected a sequence of arrays (N features, M_i points) or one array (P, N, M), got "
            f"{type(manifolds).__name__}{hint}"
        )
    shape = tuple(getattr(manifolds, "shape", (0, 0, 0)))
    if len(shape) != 3:
        raise ValueError(
            "expected a sequence of arrays (N features, M_i points) or one array (P, N, M), got "
            f"one of shape {shape}"
        )
    arrays = [real_array(f"manifold {i}", manifold) for i, manifold in enumerate(manifolds)]
    if len(arrays) < 2:
        raise ValueError(
            f"expected at least 2 manifolds, got {len(arrays)}; pass a sequence of arrays "
            "(N features, M_i points) or one array (P, N, M)"
        )
    for i, manifold in enumerate(arrays):
        if manifold.ndim != 2 or 0 in manifold.shape:
            raise ValueError(
                f"manifold {i}: expected an array (N features, M points) with at least one "
                f"feature and point, got shape {manifold.shape}"
            )
        if len(manifold) != len(arrays[0]):
            raise ValueError(
                f"manifold {i}: expected {len(arrays[0])} features as in manifold 0, got "
                f"{len(manifold)}; rows are features, columns points (transpose it?)"
            )
    return arrays


def magnitude(name: str, values: NDArray[Any]) -> float:
    """Return the largest absolute value, 0 for an empty array.

    Raises
    ------
    ValueError
        Naming the place, if a value is not finite.
    """
    if not values.size:
        return 0.0
    with np.errstate(invalid="ignore", over="ignore"):
        largest = max(float(values.max()), -float(values.min()))
    if not np.isfinite(largest):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(values.astype(np.float64))
        place = tuple(np.argwhere(bad)[0].tolist())
        where = f"feature {place[0]}, point {place[1]}" if len(place) == 2 else f"{list(place)}"
        raise ValueError(
            f"{name}: expected finite values, got {values[place]} at {where}; drop such points "
            "or features"
        )
    return largest


def power_of_two(largest: float) -> float:
    """Return the factor that brings values of at most `largest` near one; 1 if that is zero."""
    exponent = int(np.frexp(largest)[1])
    return float(np.ldexp(1.0, -min(max(exponent, -1022), 1022)))


def scaled(name: str, values: NDArray[Any]) -> tuple[Array, float]:
    """Return finite values times a power of two, in float64 and of size near one, and the factor.

    Always a copy.
    """
    factor = power_of_two(magnitude(name, values))
    return np.multiply(values, factor, dtype=np.float64), factor


def vanishing(largest: float, features: int) -> float:
    """Return the length below which a difference of vectors is rounding.

    Parameters
    ----------
    largest : float
        Absolute value in the vectors whose differences are taken.
    features : int
        Of each vector.
    """
    return ROUNDING * largest * float(np.sqrt(features))


def joined(manifolds: Manifolds) -> tuple[Array, NDArray[np.intp]]:
    """Return all points side by side, shape (N, ΣM), and the manifold of each.

    In float64, times a power of two that brings the largest absolute value near one: for kernels
    whose results do not depend on scale.

    Raises
    ------
    ValueError
        As `as_manifolds` and `magnitude`.
    """
    points = as_manifolds(manifolds)
    factor = power_of_two(max(magnitude(f"manifold {i}", m) for i, m in enumerate(points)))
    owner = np.repeat(np.arange(len(points)), [manifold.shape[1] for manifold in points])
    data = np.empty((len(points[0]), len(owner)))
    start = 0
    for manifold in points:
        end = start + manifold.shape[1]
        data[:, start:end] = manifold
        start = end
    data *= factor
    return data, owner


def generator(seed: int, *place: int) -> np.random.Generator:
    """Return the generator of a seed and a place, such as a manifold's number."""
    return np.random.default_rng([whole_number("seed", seed, 0), *place])
