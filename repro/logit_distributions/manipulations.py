"""Distillation targets: one fixed logit vector per training image, and its manipulations.

Every manipulation is a pure function of arrays. "Ranking" means the classes of one image in
descending order of logit; equal logits rank by class number, lowest first, so that rank one
is what ``argmax`` returns.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from logit_distributions.errors import ReproError

Logits = NDArray[np.floating]
Labels = NDArray[np.integer]


def ranking(logits: Logits) -> NDArray[np.intp]:
    """Return the classes of each sample by descending logit.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)

    Returns
    -------
    ndarray of int, shape (n, classes)
        Entry ``[i, r]`` is the class that sample i ranks r-th, r = 0 the prediction.
    """
    return np.argsort(-logits, axis=1, kind="stable")


def permute(logits: Logits, k: int, seed: int) -> Logits:
    """Fix the k largest logits and permute the others among their classes (paper, section 3).

    One uniform permutation is drawn per sample; the draw depends on `seed`, the shape and
    nothing else.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    k : int
        0 to the number of classes; from classes - 1 on nothing changes.
    seed : int

    Returns
    -------
    ndarray, shape (n, classes)
        The same multiset of values in every row.

    Examples
    --------
    >>> import numpy as np
    >>> from logit_distributions import permute
    >>> permute(np.array([[3.0, 1.0, 2.0, 0.0]]), k=1, seed=0)
    array([[3., 2., 0., 1.]])
    """
    rest = _rest(logits, k)
    shuffled = np.random.default_rng(seed).permuted(rest, axis=1)
    result = logits.copy()
    np.put_along_axis(result, rest, np.take_along_axis(logits, shuffled, 1), 1)
    return result


def average(logits: Logits, k: int) -> Logits:
    """Fix the k largest logits and set the others to their mean (paper, section 3).

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    k : int
        0 to the number of classes.

    Returns
    -------
    ndarray, shape (n, classes)
        The same sum in every row, up to rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from logit_distributions import average
    >>> average(np.array([[3.0, 1.0, 2.0, 0.0]]), k=1)
    array([[3., 1., 1., 1.]])
    """
    rest = _rest(logits, k)
    result = logits.copy()
    if rest.shape[1]:
        mean = np.take_along_axis(logits, rest, 1).mean(1, keepdims=True, dtype=np.float64)
        np.put_along_axis(result, rest, mean.astype(logits.dtype), 1)
    return result


def correct(logits: Logits, labels: Labels) -> Logits:
    """Swap the logits of prediction and true label, which makes every argmax right.

    This is the correction of section 4.2 of the paper; samples that are right already are
    left alone.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    labels : ndarray of int, shape (n,)

    Returns
    -------
    ndarray, shape (n, classes)

    Examples
    --------
    >>> import numpy as np
    >>> from logit_distributions import correct
    >>> correct(np.array([[3.0, 1.0, 2.0]]), np.array([1]))
    array([[1., 3., 2.]])
    """
    return _swapped(logits, ranking(logits)[:, 0], labels)


def _swapped(logits: Logits, first: Labels, second: Labels) -> Logits:
    """Return a copy with the logits of two classes of each sample swapped, which may be one."""
    rows = np.arange(len(logits))
    result = logits.copy()
    result[rows, first] = logits[rows, second]
    result[rows, second] = logits[rows, first]
    return result


def mistake(logits: Logits, labels: Labels, seed: int) -> Logits:
    """Swap the prediction of each sample that is wrong with a wrong class drawn at random.

    As many errors at the same values, without their meaning; samples that are right are left
    alone. One uniform class is drawn per sample, of all but the true one, the predicted included.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    labels : ndarray of int, shape (n,)
    seed : int

    Returns
    -------
    ndarray, shape (n, classes)
        The same multiset of values in every row.
    """
    predicted = ranking(logits)[:, 0]
    drawn = np.random.default_rng(seed).integers(0, logits.shape[1] - 1, len(logits))
    drawn += drawn >= labels  # any class but the true one
    return _swapped(logits, predicted, np.where(predicted == labels, predicted, drawn))


def hybrid(values: Logits, ranks: Logits) -> Logits:
    """Place the sorted values of one network on the ranking of another (paper, section 4.2).

    Parameters
    ----------
    values, ranks : ndarray, shape (n, classes)
        Logits of the adversarially trained teacher, and of the standard one.

    Returns
    -------
    ndarray, shape (n, classes)
        The multisets of `values` with the ranking of `ranks`.

    Examples
    --------
    >>> import numpy as np
    >>> from logit_distributions import hybrid
    >>> hybrid(np.array([[3.0, 1.0, 2.0]]), ranks=np.array([[0.0, 9.0, 5.0]]))
    array([[1., 3., 2.]])
    """
    if values.shape != ranks.shape:
        raise ReproError(
            f"hybrid: expected two arrays of one shape, got {values.shape} and {ranks.shape}"
        )
    descending = np.take_along_axis(values, ranking(values), 1)
    result = np.empty_like(values)
    np.put_along_axis(result, ranking(ranks), descending, 1)
    return result


def _rest(logits: Logits, k: int) -> NDArray[np.intp]:
    classes = logits.shape[1]
    if not 0 <= k <= classes:
        raise ReproError(f"fix-k: expected k from 0 to {classes}, got {k}")
    return ranking(logits)[:, k:]


MANIPULATIONS: dict[str, Callable[[Logits, Labels, int, int, Logits | None], Logits]] = {
    "none": lambda logits, labels, k, seed, partner: logits,
    "permute": lambda logits, labels, k, seed, partner: permute(logits, k, seed),
    "average": lambda logits, labels, k, seed, partner: average(logits, k),
    "correct-permute": lambda logits, labels, k, seed, partner: permute(
        correct(logits, labels), k, seed
    ),
    "correct": lambda logits, labels, k, seed, partner: correct(logits, labels),
    "random-errors": lambda logits, labels, k, seed, partner: mistake(logits, labels, seed),
    "drop-errors": lambda logits, labels, k, seed, partner: logits,
    "hybrid": lambda logits, labels, k, seed, partner: hybrid(logits, _present(partner)),
}
"""Each takes the teacher's logits, labels, k, seed, and a partner's logits or None.

``drop-errors`` changes no target: the student is not shown images that its teacher errs on.
"""


def _present(partner: Logits | None) -> Logits:
    if partner is None:
        raise ReproError("hybrid: expected the logits of a second teacher, got none")
    return partner
