"""How far confidence is from accuracy, and what abstaining is worth: pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from logit_distributions.manipulations import Logits
from logit_distributions.read import distribution

BINS = 15
"""Of equal width (Guo et al. 2017)."""

RESAMPLES = 500

Labels = NDArray[np.integer]
Hits = NDArray[np.bool_]

SCORES = {
    "max logit": distribution.max_logit,
    "softmax": distribution.log_confidence,
    "gap": distribution.logit_gap,
}
"""By which a network may abstain: from those with the smallest values."""


def confidence(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the largest softmax value of each sample, shape (n,), at a temperature."""
    values: NDArray[np.float64] = np.exp(
        distribution.log_confidence(np.asarray(logits, np.float64) / temperature)
    )
    return values


def reliability(
    confidences: NDArray[np.floating], hits: Hits, bins: int = BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Return mean confidence, accuracy and number of samples of each bin of confidence.

    Parameters
    ----------
    confidences : ndarray, shape (n,)
        In [0, 1].
    hits : ndarray of bool, shape (n,)
    bins : int
        Of equal width; each holds its upper edge, the first 0 too.

    Returns
    -------
    confidence, accuracy, count : ndarray, shape (bins,)
        The first two NaN where a bin is empty.
    """
    place = _bins(confidences, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean, accuracy = (
            np.bincount(place, weights=values.astype(np.float64), minlength=bins) / count
            for values in (confidences, hits)
        )
    return mean, accuracy, count


def _bins(confidences: NDArray[np.floating], bins: int) -> NDArray[np.intp]:
    place: NDArray[np.intp] = np.ceil(confidences * bins).astype(np.intp) - 1
    return place.clip(0, bins - 1)


def calibration_error(confidences: NDArray[np.floating], hits: Hits, bins: int = BINS) -> float:
    """Return the expected calibration error (Guo et al. 2017, eq. 3).

    The mean over samples of the distance between mean confidence and accuracy of their bin.

    Parameters
    ----------
    confidences, hits, bins
        As in `reliability`.
    """
    mean, accuracy, count = reliability(confidences, hits, bins)
    apart = np.nan_to_num(np.abs(mean - accuracy))
    return float((apart * count).sum() / max(count.sum(), 1))


def calibration_interval(
    confidences: NDArray[np.floating], hits: Hits, bins: int = BINS, level: float = 0.95
) -> tuple[float, float]:
    """Return the basic bootstrap interval of `calibration_error`, not below 0.

    That of a sample is too large, as noise only adds distance, and that of a resample of it too
    large once more: so the resamples' quantiles are mirrored at the sample's.

    Parameters
    ----------
    confidences, hits, bins
        As in `reliability`.
    level : float
        Coverage.
    """
    place = _bins(confidences, bins)
    excess = np.asarray(confidences, np.float64) - hits
    draws = np.random.default_rng(len(hits)).integers(len(hits), size=(RESAMPLES, len(hits)))
    errors = [
        np.abs(np.bincount(place[draw], weights=excess[draw], minlength=bins)).sum() / len(hits)
        for draw in draws
    ]
    low, high = np.quantile(errors, (0.5 - level / 2, 0.5 + level / 2))
    value = calibration_error(confidences, hits, bins)
    return max(0.0, 2 * value - float(high)), max(0.0, 2 * value - float(low))


def temperature(logits: Logits, labels: Labels) -> float:
    """Return the temperature whose softmax gives the labels the largest likelihood.

    It divides the logits and changes no prediction (Guo et al. 2017, section 4.2); sought from
    1/1000 to 1000.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
    labels : ndarray of int, shape (n,)
    """
    values, rows = np.asarray(logits, np.float64), np.arange(len(labels))

    def loss(log_inverse: float) -> float:
        log = log_softmax(np.exp(log_inverse) * values, axis=1)
        return float(-log[rows, labels].mean())

    bound = np.log(1000.0)
    best = minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(-best.x))


@dataclass(frozen=True)
class Calibration:
    """Of one network on one set of images.

    Attributes
    ----------
    error, low, high : float
        Expected calibration error of all images, with its 95 % interval.
    temperature : float
        Fitted on the images of even place.
    before, after : float
        Expected calibration error of the other images, without and with it; 0 if there are none.
    """

    error: float
    low: float
    high: float
    temperature: float
    before: float
    after: float


def calibration(logits: Logits, labels: Labels) -> Calibration:
    """Return how well calibrated logits are, and what a temperature does to that.

    Parameters
    ----------
    logits : ndarray, shape (n, classes)
        Natural or adversarial.
    labels : ndarray of int, shape (n,)
    """
    hits, sure = distribution.is_correct(logits, labels), confidence(logits)
    fitted = temperature(logits[::2], labels[::2])
    cooled = confidence(logits[1::2], fitted)
    return Calibration(
        calibration_error(sure, hits),
        *calibration_interval(sure, hits),
        fitted,
        calibration_error(sure[1::2], hits[1::2]),
        calibration_error(cooled, hits[1::2]),
    )


def risk_coverage(
    scores: NDArray[np.floating], hits: Hits
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the share of errors among the samples that are answered, for each coverage.

    Answered are those with the largest scores (El-Yaniv and Wiener 2010); samples of one score are
    answered together, so that their order decides nothing.

    Parameters
    ----------
    scores : ndarray, shape (n,)
    hits : ndarray of bool, shape (n,)

    Returns
    -------
    coverage, risk : ndarray, shape (distinct scores,)
        Coverage increases to 1.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    answered = last + 1.0
    errors = np.cumsum(~hits[order])[last]
    return answered / len(hits), errors / answered


def risk_area(scores: NDArray[np.floating], hits: Hits) -> float:
    """Return the mean risk over all coverages, the area under `risk_coverage` (steps)."""
    coverage, risk = risk_coverage(scores, hits)
    return float(np.sum(np.diff(coverage, prepend=0.0) * risk))
