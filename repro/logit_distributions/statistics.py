"""Statistics of logits, verdicts and images: pure functions of arrays, no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, ndtri

from logit_distributions.manipulations import Logits, ranking


def correct(logits: Logits, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which samples the largest logit classifies correctly.

    Parameters
    ----------
    logits : ndarray, shape (..., n, classes)
    labels : ndarray of int, shape (n,)

    Returns
    -------
    ndarray of bool, shape (..., n)
    """
    hits: NDArray[np.bool_] = logits.argmax(-1) == labels
    return hits


def wilson_interval(share: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927).

    Unlike the normal approximation it stays in [0, 1] and has a width at 0 and 1.

    Parameters
    ----------
    share : float
        In [0, 1].
    count : int
        Number of independent samples, here test images. For a mean over several networks
        attacked on the same images, this is still the number of images.
    level : float
        Coverage.

    Returns
    -------
    low, high : float
    """
    if not 0 <= share <= 1 or count < 1 or not 0 < level < 1:
        raise ValueError(
            f"expected a share in [0, 1], a positive count and a level in (0, 1), got "
            f"{share}, {count}, {level}"
        )
    z = float(ndtri(0.5 + level / 2))
    centre = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    low = max(0.0, float((centre - spread) / scale)) if share > 0 else 0.0
    high = min(1.0, float((centre + spread) / scale)) if share < 1 else 1.0
    return low, high


def mean_and_sd(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return mean and sample standard deviation over seeds; the latter NaN for one seed."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), spread


def max_logit(logits: Logits) -> NDArray[np.floating]:
    """Return the largest logit of each sample (paper, section 4.1, Figure 1).

    Parameters
    ----------
    logits : ndarray, shape (..., classes)

    Returns
    -------
    ndarray, shape (...,)
    """
    largest: NDArray[np.floating] = logits.max(-1)
    return largest


def logit_gap(logits: Logits) -> NDArray[np.floating]:
    """Return the largest minus the second largest logit (paper, section 4.1, Figure 2).

    Parameters
    ----------
    logits : ndarray, shape (..., classes)
        At least two classes.

    Returns
    -------
    ndarray, shape (...,)
        Not negative; 0 where two classes share the maximum.
    """
    top = np.partition(logits, -2, axis=-1)
    gap: NDArray[np.floating] = top[..., -1] - top[..., -2]
    return gap


@dataclass(frozen=True)
class Margins:
    """How far the label's logit is above the others, in three ways; each of shape (n,).

    Attributes
    ----------
    hard : ndarray
        To the largest other logit. Of a correctly classified example this is the logit gap.
    soft : ndarray
        To the log-sum-exp of the others. The cross-entropy is ln(1 + exp(-soft)), so to
        first order a step up the loss lowers it, whatever the network.
    mean : ndarray
        To the mean of the others, the gap of Appendix C's surrogates.
    """

    hard: NDArray[np.float64]
    soft: NDArray[np.float64]
    mean: NDArray[np.float64]


def margins(logits: ArrayLike, labels: ArrayLike) -> Margins:
    """Return the margins of logits, shape (n, N), with labels, shape (n,)."""
    z = np.asarray(logits, dtype=np.float64)
    own = np.arange(z.shape[1]) == np.asarray(labels)[:, None]
    label = z[own]
    others = z[~own].reshape(len(z), -1)
    return Margins(label - others.max(1), label - logsumexp(others, axis=1), label - others.mean(1))


def log_confidence(logits: Logits) -> NDArray[np.float64]:
    """Return the logarithm of the largest softmax value of each sample.

    It ranks samples as the softmax value does (paper, section 4.1: "the rank ordering was
    performed on the softmax values"), but does not tie where that rounds to one.

    Parameters
    ----------
    logits : ndarray, shape (..., classes)

    Returns
    -------
    ndarray, shape (...,)
        Not positive.
    """
    ordered = np.sort(logits, axis=-1).astype(np.float64)
    others = np.exp(ordered[..., :-1] - ordered[..., -1:]).sum(-1)
    log: NDArray[np.float64] = -np.log1p(others)
    return log


def skewness(values: NDArray[np.floating]) -> float:
    """Return the third standardised moment (Fisher-Pearson, without small-sample correction).

    0 for a symmetric sample, positive for a long upper tail; NaN for a constant one.

    Parameters
    ----------
    values : ndarray, shape (n,)
    """
    deviation = np.asarray(values, np.float64) - np.mean(values, dtype=np.float64)
    variance = np.mean(deviation**2)
    return float(np.mean(deviation**3) / variance**1.5) if variance > 0 else float("nan")


def relative_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each value's rank in the sample, 0 the smallest, 1 the largest; ties share theirs.

    Parameters
    ----------
    values : ndarray, shape (n,)
        At least two.
    """
    return _ranks(values) / (len(values) - 1)


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, "left")
    not_above = np.searchsorted(ordered, values, "right")
    ranks: NDArray[np.float64] = (below + not_above - 1) / 2
    return ranks


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
        difference = np.abs(_ranks(first[members]) - _ranks(second[members]))
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
    hits = correct(logits, labels)
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


def permuted_within(labels: NDArray[np.integer], seed: int) -> NDArray[np.intp]:
    """Return a permutation of the samples that moves each only within its class (Figure 3D).

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    seed : int
    """
    draws = np.random.default_rng(seed)
    order = np.arange(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        order[members] = draws.permutation(members)
    return order


def accuracy_by_gap(
    gaps: NDArray[np.floating], hits: NDArray[np.bool_], edges: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return accuracy as a function of the logit gap (paper, Figure 2B).

    Parameters
    ----------
    gaps : ndarray, shape (n,)
    hits : ndarray of bool, shape (n,)
        Whether each sample is classified correctly, for instance under attack.
    edges : ndarray, shape (bins + 1,)
        Increasing; a bin holds its lower edge, the last one its upper edge too.

    Returns
    -------
    accuracy : ndarray, shape (bins,)
        NaN where a bin is empty.
    counts : ndarray of int, shape (bins,)
    """
    counts, _ = np.histogram(gaps, edges)
    right, _ = np.histogram(gaps[hits], edges)
    with np.errstate(invalid="ignore"):
        return right / counts, counts


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
    found: NDArray[np.intp] = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
    return found


def colour_distance(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the Euclidean distance of the mean colours of images.

    Parameters
    ----------
    first, second : ndarray of uint8, shape (..., 3, rows, columns)
        Their leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (...,)
        0 to sqrt(3): RGB in [0, 1].
    """
    means = [images.mean((-2, -1), dtype=np.float64) / 255 for images in (first, second)]
    distance: NDArray[np.float64] = np.linalg.norm(means[0] - means[1], axis=-1)
    return distance


def edge_thumbnails(images: NDArray[np.uint8], cells: int = 8) -> NDArray[np.float64]:
    """Return how much edge is where: gradient magnitude of the grey image, averaged over cells.

    Colour and the sign of a contrast leave no trace in it.

    Parameters
    ----------
    images : ndarray of uint8, shape (..., 3, rows, columns)
        Rows and columns divisible by `cells`.
    cells : int
        To a side.

    Returns
    -------
    ndarray, shape (..., cells * cells)
    """
    grey = images.mean(-3, dtype=np.float64) / 255
    edges = np.hypot(*np.gradient(grey, axis=(-2, -1)))
    *lead, rows, columns = edges.shape
    blocks = edges.reshape(*lead, cells, rows // cells, cells, columns // cells)
    thumbnails: NDArray[np.float64] = blocks.mean((-3, -1)).reshape(*lead, cells * cells)
    return thumbnails


def shape_distance(
    first: NDArray[np.uint8], second: NDArray[np.uint8], cells: int = 8
) -> NDArray[np.float64]:
    """Return one minus the correlation of the edge thumbnails of images.

    Parameters
    ----------
    first, second : ndarray of uint8, shape (..., 3, rows, columns)
        Their leading dimensions broadcast.
    cells : int
        As in `edge_thumbnails`.

    Returns
    -------
    ndarray, shape (...,)
        0 for edges in the same places, 1 for unrelated ones, at most 2; 1 where an image has
        the same amount of edge everywhere.
    """
    return correlation_distance(edge_thumbnails(first, cells), edge_thumbnails(second, cells))


def correlation_distance(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return one minus Pearson's correlation along the last axis, 1 where one is constant.

    Parameters
    ----------
    first, second : ndarray, shape (..., n)
        Their leading dimensions broadcast.

    Returns
    -------
    ndarray, shape (...,)
    """
    unit = []
    for values in (first, second):
        centred = values - values.mean(-1, keepdims=True, dtype=np.float64)
        norm = np.linalg.norm(centred, axis=-1, keepdims=True)
        unit.append(centred / np.where(norm > 0, norm, 1))
    distance: NDArray[np.float64] = 1 - (unit[0] * unit[1]).sum(-1)
    return distance


def background_variation(images: NDArray[np.uint8], border: int = 4) -> NDArray[np.float64]:
    """Return how far from plain the border of each image is: the sd of its pixels' colours.

    Parameters
    ----------
    images : ndarray of uint8, shape (..., 3, rows, columns)
    border : int
        Width of the frame that counts as background, pixels.

    Returns
    -------
    ndarray, shape (...,)
        Root mean square over the channels, RGB in [0, 1]; 0 for a frame of one colour.
    """
    frame = np.ones(images.shape[-2:], bool)
    frame[border:-border, border:-border] = False
    variance = (images[..., frame] / 255).var(-1).mean(-1)
    variation: NDArray[np.float64] = np.sqrt(variance)
    return variation


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return Spearman's rank correlation; ties share their rank.

    Parameters
    ----------
    first, second : ndarray, shape (n,)
    """
    return float(np.corrcoef(_ranks(first), _ranks(second))[0, 1])
