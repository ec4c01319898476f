import numpy as np
import pytest
from scipy import stats

from logit_distributions.errors import ReproError
from logit_distributions.read import distribution, pictures, ranking
from tests import naive


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 50, 10_000])
def test_wilson_interval_solves_its_equation(share, count):
    computed = distribution.wilson_interval(share, count)
    np.testing.assert_allclose(computed, naive.wilson_interval(share, count), atol=1e-9)
    assert 0 <= computed[0] <= share <= computed[1] <= 1


@pytest.mark.parametrize("bad", [(-0.1, 10, 0.95), (0.5, 0, 0.95), (0.5, 10, 1.0)])
def test_wilson_interval_refuses(bad):
    with pytest.raises(ValueError, match="expected a share"):
        distribution.wilson_interval(*bad)


def test_correct_and_mean():
    logits = np.array([[0.0, 2.0], [3.0, 1.0], [0.0, 0.5]])
    assert distribution.is_correct(logits, np.array([1, 0, 0])).tolist() == [True, True, False]
    assert distribution.mean_and_sd(np.array([1.0, 3.0])) == pytest.approx((2.0, 2**0.5))
    mean, spread = distribution.mean_and_sd(np.array([4.0]))
    assert mean == 4.0
    assert np.isnan(spread)


@pytest.fixture
def sample():
    """Logits of two networks on the same sixty images of six classes, with ties."""
    draws = np.random.default_rng(4)
    labels = draws.permutation(np.repeat(np.arange(6), 10))
    signal = 2.0 * np.eye(6)[labels]
    logits = np.round(signal + draws.normal(size=(2, 60, 6)), 1).astype(np.float32)
    return logits, labels


@pytest.fixture
def sheet():
    return np.random.default_rng(5).integers(0, 256, (4, 3, 32, 32)).astype(np.uint8)


def test_max_gap_and_confidence(sample):
    logits = sample[0]
    rows = logits.reshape(-1, 6).astype(float).tolist()
    for fast, slow in (
        (distribution.max_logit(logits), naive.max_logit),
        (distribution.logit_gap(logits), naive.logit_gap),
        (np.exp(distribution.log_confidence(logits)), naive.confidence),
    ):
        assert fast.shape == (2, 60)
        np.testing.assert_allclose(fast.ravel(), [slow(row) for row in rows], atol=1e-6)


def test_log_confidence_tells_apart_what_the_softmax_rounds_to_one():
    logits = np.array([[60.0, 0.0, 1.0], [61.0, 0.0, 1.0]], np.float32)
    low, high = distribution.log_confidence(logits)
    assert low < high < 0
    assert np.exp([low, high]).tolist() == [1.0, 1.0]


def test_skewness(sample):
    values = np.exp(sample[0][0, :, 0])
    assert distribution.skewness(values) == pytest.approx(naive.skewness(values.tolist()))
    assert distribution.skewness(np.array([1.0, 2.0, 3.0])) == pytest.approx(0, abs=1e-12)
    assert np.isnan(distribution.skewness(np.ones(3)))


@pytest.mark.parametrize("values", [[3.0], [2, 2, 2], [0.5, -1, 0.5, 7, -1, 0.5], []])
def test_ranks_share_ties(values):
    values = np.array(values)
    assert np.array_equal(distribution.ranks(values), stats.rankdata(values))


def test_relative_ranks_reach_from_zero_to_one():
    draws = np.random.default_rng(4).integers(50, size=200) / 8
    expected = (stats.rankdata(draws) - 1) / 199
    assert np.array_equal(distribution.relative_ranks(draws), expected)


@pytest.mark.parametrize("threshold", [0.2, 0.5])
def test_rank_disagreement(sample, threshold):
    logits, labels = sample
    values = distribution.max_logit(logits)
    disagreement = ranking.rank_disagreement(*values, labels, threshold)
    slow = naive.rank_disagreement(*values.tolist(), labels.tolist(), threshold)
    assert disagreement.tolist() == slow
    assert 0 < disagreement.mean() < 1
    matrix = ranking.disagreement_matrix(values, labels, threshold)
    assert matrix.tolist() == [[0, disagreement.mean()], [disagreement.mean(), 0]]


def test_rank_disagreement_of_a_ranking_and_its_reverse():
    values, labels = np.arange(9.0), np.zeros(9, int)
    # Differences are 8, 6, 4, ...: only the outer two on either side exceed half of 8.
    assert ranking.rank_disagreement(values, -values, labels).tolist() == [4 / 9]
    assert ranking.rank_disagreement(values, values**3, labels).tolist() == [0]


def test_errors_by_rank(sample):
    logits, labels = sample
    means = ranking.mean_correct_logits(logits[0], labels)
    for predictions in (logits[0].argmax(1), logits[1].argmax(1)):
        errors = ranking.errors_by_rank(means, labels, predictions)
        slow = naive.errors_by_rank(logits[0].tolist(), labels.tolist(), predictions.tolist())
        np.testing.assert_allclose(errors, slow)
    assert np.isnan(ranking.errors_by_rank(means, labels, labels)).all()


def test_average_overlap(sample):
    first, second = sample[0]
    overlap = ranking.average_overlap(first, second)
    for i, row in enumerate(overlap):
        slow = [naive.average_overlap(first[i], second[i], k) for k in range(1, 7)]
        np.testing.assert_allclose(row, slow)
    np.testing.assert_allclose(ranking.average_overlap(first, first), 1)


def test_average_overlap_of_unrelated_rankings():
    draws = np.random.default_rng(6).normal(size=(2, 20_000, 5))
    overlap = ranking.average_overlap(*draws).mean(0)
    np.testing.assert_allclose(overlap, (np.arange(1, 6) + 1) / 10, atol=0.01)


def test_deranged_within_keeps_classes_and_no_image(sample):
    labels = sample[1]
    order = ranking.deranged_within(labels, 1)
    assert sorted(order) == list(range(60))
    assert (labels[order] == labels).all()
    assert (order != np.arange(60)).all()
    assert (order == ranking.deranged_within(labels, 1)).all()
    assert (order != ranking.deranged_within(labels, 2)).any()
    with pytest.raises(ReproError, match="expected two images or more of every class, got one"):
        ranking.deranged_within(np.array([0, 0, 1]), 1)


def test_every_other_image_of_the_class_is_as_likely():
    labels = np.zeros(4, int)
    partners = [ranking.deranged_within(labels, seed)[0] for seed in range(3000)]
    np.testing.assert_allclose(np.bincount(partners) / 3000, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.03)


def test_accuracy_by_gap(sample):
    logits, labels = sample
    gaps, hits = distribution.logit_gap(logits[0]), distribution.is_correct(logits[0], labels)
    edges = np.array([0.0, 0.5, 1.0, 2.0, 10.0, 20.0, float(gaps.max()) + 20])
    accuracy, counts = distribution.accuracy_by_gap(gaps, hits, edges)
    slow = naive.accuracy_by_gap(gaps.tolist(), hits.tolist(), edges.tolist())
    np.testing.assert_array_equal(np.transpose([accuracy, counts]), slow)
    assert counts[-1] == 0
    assert counts.sum() == 60


def test_nearest(sample):
    logits = sample[0][0] + np.random.default_rng(7).normal(scale=1e-3, size=(60, 6))
    seeds = np.array([3, 17, 59])
    neighbours = ranking.nearest(logits, seeds, 7)
    assert neighbours.tolist() == [naive.nearest(logits.tolist(), seed, 7) for seed in seeds]


def distance(by, first, second):
    describe, measure = pictures.COMPARED[by]
    return measure(describe(first), describe(second))


def test_visual_distances(sheet):
    first, second = sheet[:2], sheet[2:]
    colour, shape = distance("colour", first, second), distance("shape", first, second)
    for i in range(2):
        assert colour[i] == pytest.approx(naive.colour_distance(first[i], second[i]))
        assert shape[i] == pytest.approx(naive.shape_distance(first[i], second[i], 8))
    assert distance("colour", first, 255 - second[:1]).shape == (2,)
    np.testing.assert_allclose(distance("shape", first, 255 - first), 0, atol=1e-12)
    assert distance("shape", first, np.zeros_like(first)).tolist() == [1, 1]


def test_background_variation(sheet):
    variation = pictures.background_variation(sheet, 5)
    slow = [naive.background_variation(picture, 5) for picture in sheet]
    np.testing.assert_allclose(variation, slow)
    plain = np.zeros((3, 32, 32), np.uint8)
    plain[:, 4:28, 4:28] = sheet[0, :, 4:28, 4:28]
    assert pictures.background_variation(plain) == 0


def test_rank_correlation(sample):
    first, second = sample[0][:, :, 0]
    correlation = ranking.rank_correlation(first, second)
    assert correlation == pytest.approx(naive.rank_correlation(first.tolist(), second.tolist()))
    assert ranking.rank_correlation(first, np.exp(first)) == pytest.approx(1)


def test_margins_by_loop():
    draws = np.random.default_rng(0)
    z, labels = draws.normal(size=(40, 5)), draws.integers(0, 5, 40)
    margins = distribution.margins(z, labels)
    for i, (row, label) in enumerate(zip(z, labels, strict=True)):
        others = np.delete(row, label)
        assert margins.hard[i] == pytest.approx(row[label] - max(others))
        assert margins.soft[i] == pytest.approx(row[label] - np.log(np.exp(others).sum()))
        assert margins.mean[i] == pytest.approx(row[label] - others.mean())


def test_loss_is_a_function_of_the_soft_margin():
    draws = np.random.default_rng(1)
    z, labels = draws.normal(size=(40, 5)), draws.integers(0, 5, 40)
    loss = np.log(np.exp(z).sum(1)) - z[np.arange(40), labels]
    np.testing.assert_allclose(loss, np.log1p(np.exp(-distribution.margins(z, labels).soft)))
