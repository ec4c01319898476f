"""Statistics of how networks rank classes and images: pure functions of arrays. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from logit_distributions.errors import ReproError
from logit_distributions.manipulations import Logits, ranking
from logit_distributions.read.distribution import is_correct, ranks


def rank_disagreement(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    labels: NDArray[np.integer],
    threshold: float = 0.5,
) -> NDArray[np.float64]:
    """Return the share of each class that two networks rank far apart (paper, Figure 3A, B).

    Within each class, samples are ranked by the confidence of either network; two ranks are
    far apart if they differ by more than `threshold` of the largest possible difference.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
        Confidences of the two networks, for instance of `log_confidence`.
    labels : ndarray of int, shape (n,)
    threshold : float
        The paper's is 50 %. Two unrelated rankings differ by more than half in a quarter of
        the samples.

    Returns
    -------
    ndarray, shape (classes that occur,)
        By class number.
    """
    apart = ranked_far_apart(first, second, labels, threshold)
    return np.array([apart[labels == label].mean() for label in np.unique(labels)])


def ranked_far_apart(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    labels: NDArray[np.integer],
    threshold: float = 0.5,
) -> NDArray[np.bool_]:
    """Return which samples two networks rank far apart, as `rank_disagreement` counts them.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
    labels : ndarray of int, shape (n,)
    threshold : float

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    apart = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = labels == label
        difference = np.abs(ranks(first[members]) - ranks(second[members]))
        apart[members] = difference > threshold * (members.sum() - 1)
    return apart


def disagreement_matrix(
    confidences: NDArray[np.floating], labels: NDArray[np.integer], threshold: float = 0.5
) -> NDArray[np.float64]:
    """Return `rank_disagreement`, averaged over classes, of every pair of networks (Figure 3B).

    Parameters
    ----------
    confidences : ndarray, shape (networks, n)
    labels : ndarray of int, shape (n,)
    threshold : float

    Returns
    -------
    ndarray, shape (networks, networks)
        Symmetric, with a diagonal of zeros.
    """
    count = len(confidences)
    matrix = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            shares = rank_disagreement(confidences[i], confidences[j], labels, threshold)
            matrix[i, j] = matrix[j, i] = shares.mean()
    return matrix


def mean_correct_logits(logits: Logits, labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return each class's mean logit vector over its correctly classified samples.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    labels : ndarray of int, shape (n,)

    Returns
    -------
    ndarray, shape (classes, classes)
        Row c belongs to class c; NaN where none of it is classified correctly.
    """
    classes = logits.shape[1]
    hits = is_correct(logits, labels)
    means = np.full((classes, classes), np.nan)
    for label in np.unique(labels[hits]):
        means[label] = logits[hits & (labels == label)].mean(0, dtype=np.float64)
    return means


def errors_by_rank(
    means: NDArray[np.floating],
    labels: NDArray[np.integer],
    predictions: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Return the shares of errors that fall on the k-th highest average logit (Figure 3C).

    Parameters
    ----------
    means : ndarray, shape (classes, classes)
        Average logit vector of each class, of `mean_correct_logits`.
    labels : ndarray of int, shape (n,)
    predictions : ndarray of int, shape (n,)
        Samples predicted correctly do not count, nor do those of a class without a mean.

    Returns
    -------
    ndarray, shape (classes,)
        Entry k - 1 is the share at rank k of the true class's vector, whose first is as a
        rule the true class itself; sums to one, or all NaN if there are no errors.
    """
    wrong = (predictions != labels) & np.isfinite(means[labels]).all(1)
    place = np.argsort(ranking(means), axis=1)
    counts = np.bincount(place[labels[wrong], predictions[wrong]], minlength=means.shape[1])
    return counts / wrong.sum() if wrong.any() else np.full(means.shape[1], np.nan)


def average_overlap(first: Logits, second: Logits) -> NDArray[np.float64]:
    """Return AO@k of the class rankings of two networks, for every k (paper, section 4.1).

    AO@k = 1/k sum_{i=1..k} O(i), where O(i) is the share of the first i classes in one
    ranking that are among the first i in the other. Two unrelated rankings of N classes have
    O(i) = i/N and so AO@k = (k + 1)/(2N) on average.

    Parameters
    ----------
    first, second : ndarray, shape (n, classes)

    Returns
    -------
    ndarray, shape (n, classes)
        Entry [i, k - 1] is AO@k of sample i.
    """
    count, classes = first.shape
    depth = np.maximum(np.argsort(ranking(first), 1), np.argsort(ranking(second), 1))
    flat = (depth + classes * np.arange(count)[:, None]).ravel()
    entering = np.bincount(flat, minlength=count * classes).reshape(count, classes)
    places = np.arange(1, classes + 1)
    overlap: NDArray[np.float64] = np.cumsum(np.cumsum(entering, 1) / places, 1) / places
    return overlap


def deranged_within(labels: NDArray[np.integer], seed: int) -> NDArray[np.intp]:
    """Return for each sample another one of its class, every one once (paper, Figure 3D).

    The members of a class in random order, each followed by the next: a permutation without
    fixed points, so that no sample is compared with itself.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    seed : int

    Returns
    -------
    ndarray of int, shape (n,)

    Raises
    ------
    ReproError
        If a class has a single sample.
    """
    draws = np.random.default_rng(seed)
    order = np.arange(len(labels))
    for label in np.unique(labels):
        members = draws.permutation(np.flatnonzero(labels == label))
        if len(members) == 1:
            raise ReproError(
                f"expected two images or more of every class, got one of class {label}; likely "
                "too few were attacked (--limit)"
            )
        order[members] = np.roll(members, -1)
    return order


def nearest(logits: Logits, seeds: NDArray[np.integer], count: int) -> NDArray[np.intp]:
    """Return the samples nearest to some by cosine similarity of logits (Figure B.3).

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    seeds : ndarray of int, shape (m,)
        Positions of the seed samples.
    count : int
        Neighbours of each, fewer than n; the seed itself is not one.

    Returns
    -------
    ndarray of int, shape (m, count)
        The most similar first.
    """
    unit = logits.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    similarity = unit[seeds] @ unit.T
    similarity[np.arange(len(seeds)), seeds] = -np.inf
    nearest_first: NDArray[np.intp] = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return nearest_first


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation; ties share their rank.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
    """
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])
