"""Statistics of logits and verdicts, one image at a time: pure functions of arrays. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp, ndtri

from logit_distributions.manipulations import Logits


def is_correct(logits: Logits, labels: NDArray[np.integer]) -> NDArray[np.bool_]:
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


def ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return each value's rank in the sample, 1 the smallest; ties share the mean of theirs.

    As ``scipy.stats.rankdata`` does; importing that would take half as long as all of Table 2.

    Parameters
    ----------
    values : ndarray, shape (n,)
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    shared: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return shared


def relative_ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each value's rank in the sample, 0 the smallest, 1 the largest; ties share theirs.

    Parameters
    ----------
    values : ndarray, shape (n,)
        At least two.
    """
    return (ranks(values) - 1) / (len(values) - 1)


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
