"""From features and labels, as data sets have them, to manifolds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from manifold_capacity._input import flag, generator, real_array, real_labels, whole_number

BLOCK = 4096
"""Features that are projected together; bounds the memory that the projection takes."""


def from_labels(
    features: Any,
    labels: Any,
    points_per_class: int | None = None,
    project: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
) -> list[NDArray[Any]]:
    """Return one manifold for each label, in the order of ``np.unique(labels)``.

    Parameters
    ----------
    features : array_like, shape (samples, N)
        Arrays, memory maps, data frames, CPU tensors (with a gradient or in bfloat16, too).
    labels : array_like, shape (samples,)
        Numbers or words.
    points_per_class : int, optional
        Samples drawn of each label, without replacement. Default: all.
    project : int, optional
        Where there are more features, replace them by so many Gaussian random combinations of
        variance 1/`project`, the same for all samples; inner products keep their expectation,
        and capacities hardly change while `project` is well above the number of points a
        capacity needs. Default: never.
    shuffle : bool
        Permute the labels: the usual baseline, manifolds without structure.
    seed : int
        Of what is drawn.

    Returns
    -------
    list of ndarray, shapes (N, M_i)
        Of the type of `features`, or float64 if projected. Views where nothing is drawn and
        the samples of a label lie side by side, so that a memory map sorted by label stays one.

    Raises
    ------
    ValueError
        If shapes do not fit, there are fewer than two labels, or too few samples of one.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> features = np.arange(12.0).reshape(6, 2)  # six samples of two features
    >>> cat, dog = mc.from_labels(features, ["cat", "dog", "cat", "dog", "dog", "cat"])
    >>> cat
    array([[ 0.,  4., 10.],
           [ 1.,  5., 11.]])
    """
    samples, classes = real_array("features", features), real_labels("labels", labels)
    if samples.ndim != 2 or 0 in samples.shape:
        raise ValueError(
            f"features: expected an array (samples, N features), got shape {samples.shape}; "
            "flatten the features of a sample"
        )
    if classes.shape != samples.shape[:1]:
        raise ValueError(
            f"labels: expected one for each of the {len(samples)} samples, got shape "
            f"{classes.shape}"
        )
    generator(seed)  # checks it
    if flag("shuffle", shuffle):
        classes = generator(seed, 5).permutation(classes)
    names, places = np.unique(classes, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"labels: expected at least 2 different ones, got {names.tolist()}")
    members = [np.flatnonzero(places == place) for place in range(len(names))]
    if points_per_class is not None:
        wanted = whole_number("points_per_class", points_per_class, 1)
        for place, (name, each) in enumerate(zip(names.tolist(), members, strict=True)):
            if len(each) < wanted:
                raise ValueError(
                    f"points_per_class: expected at most {len(each)}, the samples of label "
                    f"{name!r}, got {wanted}"
                )
            members[place] = np.sort(generator(seed, 6, place).permutation(each)[:wanted])
    if project is not None and whole_number("project", project, 1) < samples.shape[1]:
        return [projected.T for projected in _project(samples, members, project, seed)]
    return [_rows(samples, each).T for each in members]


def _rows(samples: NDArray[Any], places: NDArray[np.intp]) -> NDArray[Any]:
    """Return rows, as a view where they lie side by side."""
    if places[-1] - places[0] == len(places) - 1:
        return samples[places[0] : places[-1] + 1]
    return samples[places]


def _project(
    samples: NDArray[Any], members: list[NDArray[np.intp]], size: int, seed: int
) -> list[NDArray[np.float64]]:
    """Return the members' rows in `size` random features."""
    result = [np.zeros((len(each), size)) for each in members]
    for block, start in enumerate(range(0, samples.shape[1], BLOCK)):
        part = samples[:, start : start + BLOCK]
        weights = generator(seed, 7, block).standard_normal((part.shape[1], size)) / np.sqrt(size)
        for each, sums in zip(members, result, strict=True):
            sums += _rows(part, each).astype(np.float64) @ weights
    return result
