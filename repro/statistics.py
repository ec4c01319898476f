"""Statistics of logits and verdicts: pure functions of arrays, no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri


def correct(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.bool_]:
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
