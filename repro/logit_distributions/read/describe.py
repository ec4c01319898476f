"""The logit distribution of a network in one line, beside the paper's kinds of network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr

from logit_distributions import recipes, store
from logit_distributions.read import distribution

COLUMNS = {
    "natural": "natural accuracy, %",
    "robust": "adversarial accuracy, %",
    "max": "mean largest logit",
    "skew": "its skewness",
    "gap": "mean gap to the second largest",
    "sure": "largest softmax value, mean",
    "low": "adversarial accuracy of the quarter with the smallest gaps, %",
    "high": "of the quarter with the largest gaps, %",
}


def profile(dataset: xr.Dataset) -> dict[str, float]:
    """Return what section 4.1 of the paper looks at, of one dataset of kind ``logits``.

    Returns
    -------
    dict
        By the names of `COLUMNS`; of natural images, but for what is adversarial.
    """
    logits, robust = dataset["logits"].values, dataset["robust"].values[-1]
    gaps = distribution.logit_gap(logits)
    rank = distribution.relative_ranks(gaps)
    largest = distribution.max_logit(logits)
    return {
        "natural": 100 * float(distribution.is_correct(logits, dataset["label"].values).mean()),
        "robust": 100 * float(robust.mean()),
        "max": float(largest.mean()),
        "skew": distribution.skewness(largest),
        "gap": float(gaps.mean()),
        "sure": float(np.exp(distribution.log_confidence(logits)).mean()),
        "low": 100 * float(robust[rank <= 0.25].mean()),
        "high": 100 * float(robust[rank >= 0.75].mean()),
    }


def teachers(dataset: str) -> dict[str, xr.Dataset]:
    """Return the stored ST and AT networks of seed 0, by scale and name."""
    return {
        f"{name.upper()}, scale {scale}": each
        for scale in recipes.SCALES
        for name in recipes.TEACHERS
        for each in store.find("logits", name, dataset, scale)
        if each.attrs["seed"] == 0
    }


def lines(networks: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Yield a table of profiles, a network a line, and what its columns are."""
    width = max(map(len, networks))
    yield f"{'':{width}s}" + "".join(f"{name:>9s}" for name in COLUMNS)
    for name, dataset in networks.items():
        numbers = "".join(f"{value:9.2f}" for value in profile(dataset).values())
        yield f"{name:{width}s}{numbers}"
    yield "; ".join(f"{name}: {meaning}" for name, meaning in COLUMNS.items()) + "."
