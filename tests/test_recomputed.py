"""Ten printed numbers again, from the netCDF files by xarray and numpy alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import xarray as xr

from paper import selection, table1, table2
from paper.claims.verdicts import judge, register
from tests.conftest import STORED

CLAIMS = {claim.id: claim for claim in register()}


def runs(stage, name, scale, dataset="cifar10"):
    """Open every seed of a recipe, by seed."""
    opened = {}
    for path in sorted((STORED / stage).glob(f"{dataset}-{scale}-{name}-seed?.nc")):
        with xr.open_dataset(path) as data:
            opened[int(path.stem[-1])] = data.load()
    return opened


def judged(name):
    verdict = judge(CLAIMS[name])
    assert verdict.scale is not None
    return verdict, verdict.scale


def both(name, scale):
    """Return natural and adversarial accuracy of every seed, in percent."""
    shares = {}
    for seed, data in runs("logits", name, scale).items():
        hit = data.logits.argmax("class") == data.label
        held = data.adversarial_logits.argmax("class") == data.label
        shares[seed] = (100 * float(hit.mean()), 100 * float((hit & held).mean()))
    return shares


def gap(data):
    """Return the largest less the second largest logit."""
    ordered = np.sort(data.logits.values, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def skewness(values):
    values = values.astype(float)
    return np.mean((values - values.mean()) ** 3) / np.std(values) ** 3


@pytest.mark.parametrize("name", ["at", "st"])
def test_table_1(name):
    runs_of_table = selection.printed("logits", ["st", "at"])[0]
    row = table1.make().rows[["st", "at"].index(name)]
    natural, adversarial = np.mean(list(both(name, runs_of_table.scale).values()), axis=0)
    assert float(row[3].split(" ")[0]) == pytest.approx(natural, abs=0.005)
    assert float(row[6].split(" ")[0]) == pytest.approx(adversarial, abs=0.005)


def test_table_2():
    row = table2.make().rows[3]
    shares = both("hybrid", row[1])
    shared = set(shares).intersection(
        *(both(n, row[1]) for n in ("normal", "fix-1-permute", "correct-fix-1"))
    )
    natural = [shares[seed][0] for seed in shared]
    assert row[3] == f"{np.mean(natural):.2f} ± {np.std(natural, ddof=1):.2f}"


def test_mean_gap():
    verdict, scale = judged("gap-lower")
    means = [
        [gap(data).mean() for data in runs("logits", name, scale).values()] for name in ("st", "at")
    ]
    assert verdict.value == pytest.approx(np.mean(means[0]) - np.mean(means[1]), rel=1e-4)


def test_skewness_of_the_largest_logit():
    verdict, scale = judged("at-max-positive-skew")
    largest = [data.logits.max("class").values for data in runs("logits", "at", scale).values()]
    assert verdict.value == pytest.approx(np.mean([skewness(v) for v in largest]), rel=1e-4)


def test_accuracy_of_the_largest_gaps():
    verdict, scale = judged("gap-indicates")
    ratios = []
    for data in runs("logits", "at", scale).values():
        held = (data.adversarial_logits.argmax("class") == data.label).values
        held &= (data.logits.argmax("class") == data.label).values
        large = gap(data) >= np.quantile(gap(data), 0.75)
        ratios.append(held[large].mean() / held.mean())
    assert verdict.value == pytest.approx(np.mean(ratios), rel=1e-4)


def test_images_ranked_far_apart():
    verdict, scale = judged("rank-at-consistent")

    def ranks(data):
        """Return the rank of the largest softmax value within the class, by counting."""
        logits = data.logits.values.astype(float)
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        # The largest softmax value rises as the sum of the others falls, which does not round to 1.
        others = -np.sort(shifted, 1)[:, :-1].sum(1)
        ranked = np.empty(len(others))
        for label in range(10):
            some = (data.label == label).values
            value = others[some]
            less = (value[:, None] > value).sum(1)
            ranked[some] = (less + ((value[:, None] == value).sum(1) - 1) / 2) / (some.sum() - 1)
        return ranked

    at, st = ([ranks(d) for d in runs("logits", n, scale).values()] for n in ("at", "st"))
    alike = [np.mean(np.abs(a - b) > 0.5) for a, b in combinations(at, 2)]
    between = [np.mean(np.abs(a - b) > 0.5) for a in at for b in st]
    assert verdict.value == pytest.approx(np.mean(alike) / np.mean(between), rel=1e-3)


def test_overlap_of_class_rankings():
    verdict, scale = judged("overlap-at-high")  # AO@5
    tops = [
        np.argsort(-d.logits.values, axis=1, kind="stable")[:, :5]
        for d in runs("logits", "at", scale).values()
    ]
    overlaps = []
    for first, second in combinations(tops, 2):
        shares = [
            (first[:, :i, None] == second[:, None, :i]).any(2).sum(1) / i for i in range(1, 6)
        ]
        overlaps.append(np.mean(shares))
    assert verdict.value == pytest.approx(np.mean(overlaps), rel=1e-4)


def test_share_of_robustness_in_the_order_of_classes():
    verdict, scale = judged("incorrect-classes")
    normal, fixed = both("normal", scale), both("fix-1-permute", scale)
    lost = [1 - fixed[seed][1] / normal[seed][1] for seed in normal.keys() & fixed.keys()]
    assert verdict.value == pytest.approx(np.mean(lost), rel=1e-4)


def test_largest_logits_over_the_epochs():
    verdict, scale = judged("fig1-st-rises-everywhere")
    shares = []
    for data in runs("epochs", "st", scale).values():
        train = data.largest.isel(sample=~data.test.values)
        shares.append(100 * float((train.isel(epoch=-1) > train.isel(epoch=0)).mean()))
    assert verdict.value == pytest.approx(np.mean(shares), rel=1e-4)
