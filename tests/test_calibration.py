"""Calibration and abstention against slow, obvious ways to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from logit_distributions.read import calibration as cal
from logit_distributions.read import describe, distribution
from tests.test_describe import stored


def draw(count, seed, temperature=1.0):
    """Return logits whose labels are drawn from their softmax at a temperature."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(0, 2, (count, 5))
    shares = np.exp(logits / temperature)
    shares /= shares.sum(1, keepdims=True)
    labels = np.array([draws.choice(5, p=row) for row in shares])
    return logits, labels


def naive_error(confidences, hits, bins):
    total = 0.0
    for b in range(bins):
        inside = [
            i
            for i, c in enumerate(confidences)
            if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)
        ]
        if inside:
            sure = sum(confidences[i] for i in inside) / len(inside)
            right = sum(bool(hits[i]) for i in inside) / len(inside)
            total += len(inside) / len(hits) * abs(sure - right)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_error_is_that_of_a_loop_over_bins(bins):
    logits, labels = draw(300, 0)
    hits = distribution.is_correct(logits, labels)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    sure = softmax.max(1)
    np.testing.assert_allclose(cal.confidence(logits), sure)
    assert cal.calibration_error(sure, hits, bins) == pytest.approx(naive_error(sure, hits, bins))


def test_edges_belong_to_the_bin_below():
    mean, accuracy, count = cal.reliability(np.array([0.0, 0.5, 0.51, 1.0]), np.ones(4, bool), 2)
    assert count.tolist() == [2, 2]
    assert accuracy.tolist() == [1, 1]
    assert mean.tolist() == [0.25, 0.755]


def test_the_interval_holds_the_true_error():
    """Of samples from one network whose calibration error is known from a very large one."""
    logits, labels = draw(60_000, 1, temperature=2.0)
    hits, sure = distribution.is_correct(logits, labels), cal.confidence(logits)
    truth = cal.calibration_error(sure, hits)
    inside = 0
    for part in np.split(np.arange(60_000), 60):
        low, high = cal.calibration_interval(sure[part], hits[part])
        assert low <= high
        inside += low <= truth <= high
    assert inside >= 52  # 57 of 60 expected


def test_the_temperature_is_recovered_and_calibrates():
    logits, labels = draw(20_000, 2, temperature=2.5)
    assert cal.temperature(logits, labels) == pytest.approx(2.5, rel=0.05)
    read = cal.calibration(logits, labels)
    assert read.after < 0.03 < 0.1 < read.before
    assert read.low < read.error < read.high
    losses = {}
    for t in np.geomspace(0.5, 10, 60):
        softmax = np.exp(logits / t) / np.exp(logits / t).sum(1, keepdims=True)
        losses[t] = -np.log(softmax[np.arange(len(labels)), labels]).mean()
    assert cal.temperature(logits, labels) == pytest.approx(min(losses, key=losses.get), rel=0.06)


def test_risk_against_coverage_is_that_of_a_loop():
    draws = np.random.default_rng(3)
    scores, hits = draws.integers(0, 20, 90).astype(float), draws.random(90) < 0.7
    coverage, risk = cal.risk_coverage(scores, hits)
    naive = []
    for threshold in sorted(set(scores), reverse=True):
        answered = [
            bool(hit) for score, hit in zip(scores, hits, strict=True) if score >= threshold
        ]
        naive.append((len(answered) / 90, 1 - sum(answered) / len(answered)))
    np.testing.assert_allclose(np.stack([coverage, risk], 1), naive)
    assert coverage[-1] == 1
    before, area = 0.0, 0.0
    for share, each in naive:
        area += (share - before) * each
        before = share
    assert cal.risk_area(scores, hits) == pytest.approx(area)


def test_a_perfect_score_has_the_smallest_area():
    hits = np.arange(50) < 40
    perfect = cal.risk_area(hits.astype(float), hits)
    assert perfect < cal.risk_area(np.zeros(50), hits) < cal.risk_area(-hits.astype(float), hits)
    assert cal.risk_area(np.zeros(50), hits) == pytest.approx(0.2)


def test_describe_has_a_line_on_it():
    at = stored(400).assign_attrs(run="mine")
    read = cal.calibration(at["logits"].values, at["label"].values)
    (line,) = (each for each in describe.describe(at).splitlines() if "calibration" in each)
    low, high = 100 * read.low, 100 * read.high
    assert f": mine {100 * read.error:.1f} [{low:.1f}, {high:.1f}], {read.temperature:.2f};" in line
    assert "AT, scale small" in line
    assert "nan" not in describe.describe(stored(1))
