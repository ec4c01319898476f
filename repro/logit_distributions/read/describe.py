"""The logit distribution of a network in one line, beside the paper's kinds of network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import calibration, distribution

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

BESIDE = {10: "cifar10", 100: "cifar100"}
"""By number of classes, the data set whose stored networks others are set beside."""


def describe(*datasets: xr.Dataset) -> str:
    """Return a table of logit distributions, the stored ST and AT networks in its last rows.

    Parameters
    ----------
    *datasets : Dataset
        Of kind ``logits``, as `evaluate` and `from_arrays` return them and `open_dataset` opens
        them.

    Returns
    -------
    str
        A line for each network: the images and the attack, both accuracies with 95 % intervals,
        and what section 4.1 of the paper looks at. Below it whatever of a network makes its
        verdicts mean less than they say, and how far its confidence is from its accuracy.

    Raises
    ------
    ReproError
        If there is no dataset, or one is of another kind.

    Examples
    --------
    >>> from logit_distributions import describe, from_arrays
    >>> mine = from_arrays([[2.0, 0.5], [0.1, 0.3], [1.0, 0.0]], [0, 1, 1], name="mine")
    >>> describe(mine).splitlines()[1].split()[:4]  # of 3 images, not attacked, 66.67 % right
    ['mine', '3', '-', '66.67']
    """
    if not datasets:
        raise ReproError("expected datasets of kind logits to describe, got none")
    networks: dict[str, xr.Dataset] = {}
    for dataset in datasets:
        if dataset.attrs.get("kind") != "logits":
            raise ReproError(
                f"expected datasets of kind logits, got {dataset.attrs.get('kind')!r}; likely not "
                "made by evaluate or 'logitdist attack'"
            )
        name = str(dataset.attrs["run"])
        count = sum(each.rpartition(" (")[0] == name or each == name for each in networks)
        networks[f"{name} ({count + 1})" if count else name] = dataset
    for classes in sorted({dataset.sizes["class"] for dataset in datasets}):
        networks |= teachers(BESIDE[classes]) if classes in BESIDE else {}
    return "\n".join(lines(networks))


def profile(dataset: xr.Dataset) -> dict[str, float]:
    """Return what section 4.1 of the paper looks at, of one dataset of kind ``logits``.

    Returns
    -------
    dict
        By the names of `COLUMNS`; of natural images, but for what is adversarial. NaN where there
        are no images to tell, or no attack.
    """
    logits = dataset["logits"].values
    unknown = np.full(len(logits), np.nan)
    robust = dataset["robust"].values[-1] if "robust" in dataset else unknown
    gaps = distribution.logit_gap(logits)
    rank = distribution.relative_ranks(gaps) if len(gaps) > 1 else np.full(1, np.nan)
    largest = distribution.max_logit(logits)
    return {
        "natural": 100 * float(distribution.is_correct(logits, dataset["label"].values).mean()),
        "robust": _share(robust),
        "max": float(largest.mean()),
        "skew": distribution.skewness(largest),
        "gap": float(gaps.mean()),
        "sure": float(np.exp(distribution.log_confidence(logits)).mean()),
        "low": _share(robust[rank <= 0.25]),
        "high": _share(robust[rank >= 0.75]),
    }


def _share(hits: NDArray[np.bool_ | np.floating]) -> float:
    return 100 * float(hits.mean()) if len(hits) else float("nan")


def teachers(dataset: str) -> dict[str, xr.Dataset]:
    """Return the stored ST and AT networks of seed 0, by scale and name."""
    return {
        f"{name.upper()}, scale {scale}": each
        for scale in recipes.SCALES
        for name in recipes.TEACHERS
        for each in store.find("logits", name, dataset, scale)
        if each.attrs["seed"] == 0
    }


def attack(dataset: xr.Dataset) -> str:
    """Return engine, radius, iterations and restarts of a dataset's attack in a few words.

    Of an attack that somebody else ran their words for it; a dash where there was none.
    """
    if "evaluation" not in dataset.attrs:
        return str(dataset["attack"].values[-1]) if "robust" in dataset else "-"
    settings = json.loads(dataset.attrs["evaluation"])
    engine, words = settings["engine"], f"{settings['engine']} {255 * settings['eps']:.3g}/255"
    if engine in ("repro", "autoattack"):
        words += f" {settings['iterations']}it"
    return words + ("" if engine == "autoattack-full" else f" x{settings['restarts']}")


def lines(networks: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Yield a table of profiles, a network a line, what its columns are, and remarks."""
    attacks = {name: attack(dataset) for name, dataset in networks.items()}
    width, wide = max(map(len, networks)), max(6, *map(len, attacks.values()))
    heads = [f"{head:>{24 if head in INTERVALS else 7}s}" for head in COLUMNS]
    yield f"{'':{width}s} {'images':>7s}  {'attack':{wide}s}{''.join(heads)}"
    for name, dataset in networks.items():
        count = dataset.sizes["sample"]
        cells = [_cell(head, value, count) for head, value in profile(dataset).items()]
        yield f"{name:{width}s} {count:7,d}  {attacks[name]:{wide}s}{''.join(cells)}"
    yield "; ".join(f"{name}: {meaning}" for name, meaning in COLUMNS.items()) + "."
    yield "[95 % interval]; attack: engine, radius, iterations of APGD, x restarts."
    calibrated = "; ".join(_calibration(name, each) for name, each in networks.items())
    yield f"expected calibration error, % [95 % interval], and the best temperature: {calibrated}."
    for name, dataset in networks.items():
        for remark in json.loads(dataset.attrs.get("remarks", "[]")):
            yield f"{name}: {remark}."


def _calibration(name: str, dataset: xr.Dataset) -> str:
    read = calibration.calibration(dataset["logits"].values, dataset["label"].values)
    error, low, high = (100 * each for each in (read.error, read.low, read.high))
    return f"{name} {error:.1f} [{low:.1f}, {high:.1f}], {read.temperature:.2f}"


INTERVALS = ("natural", "robust")


def _cell(head: str, value: float, count: int) -> str:
    """Return a number as it stands in the table; a dash for what is not known."""
    if np.isnan(value):
        return f"{'-':>{24 if head in INTERVALS else 7}s}"
    if head not in INTERVALS:
        return f"{value:7.2f}"
    low, high = (100 * end for end in distribution.wilson_interval(value / 100, count))
    return f"{value:7.2f} {f'[{low:.2f}, {high:.2f}]':>16s}"
