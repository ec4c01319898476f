import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logit_distributions import manipulations
from logit_distributions.errors import ReproError
from tests import naive

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(2, 12)),
    elements=st.integers(-8, 8).map(lambda v: v / 4),  # few values, so that ties are common
)


@st.composite
def cases(draw):
    values = draw(logits)
    n, classes = values.shape
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return values, labels, draw(st.integers(0, classes)), draw(st.integers(0, 2**63))


few = settings(max_examples=60, deadline=None, derandomize=True)


@few
@given(cases())
def test_ranking_equals_naive_and_starts_with_argmax(case):
    values, *_ = case
    computed = manipulations.ranking(values)
    assert computed.tolist() == [naive.ranking(row) for row in values.tolist()]
    np.testing.assert_array_equal(computed[:, 0], values.argmax(1))


@few
@given(cases())
def test_permute_keeps_values_and_the_top_k(case):
    values, _, k, seed = case
    result = manipulations.permute(values, k, seed)
    np.testing.assert_array_equal(np.sort(result, 1), np.sort(values, 1))
    top = manipulations.ranking(values)[:, :k]
    np.testing.assert_array_equal(
        np.take_along_axis(result, top, 1), np.take_along_axis(values, top, 1)
    )
    np.testing.assert_array_equal(result, manipulations.permute(values, k, seed))
    if k:
        rows = np.arange(len(values))
        np.testing.assert_array_equal(result[rows, top[:, 0]], values.max(1))


@few
@given(cases())
def test_mistakes_are_as_many_and_elsewhere(case):
    values, labels, _, seed = case
    result = manipulations.mistake(values, labels, seed)
    np.testing.assert_array_equal(np.sort(result, 1), np.sort(values, 1))
    np.testing.assert_array_equal(result, manipulations.mistake(values, labels, seed))
    rows = np.arange(len(values))
    predicted = values.argmax(1)
    right = predicted == labels
    np.testing.assert_array_equal(result[right], values[right])
    for row in rows[~right]:
        assert naive.swapped(values[row].tolist(), predicted[row]) >= {tuple(result[row].tolist())}
        assert result[row, labels[row]] == values[row, labels[row]]


def test_mistakes_are_uniform_over_the_wrong_classes():
    values = np.tile(np.array([4.0, 3.0, 2.0, 1.0]), (30_000, 1))
    result = manipulations.mistake(values, np.full(len(values), 2), seed=0)
    classes, counts = np.unique(result.argmax(1), return_counts=True)
    assert classes.tolist() == [0, 1, 3]
    assert abs(counts - 10_000).max() < 5 * np.sqrt(10_000)


def test_permute_is_uniform():
    values = np.tile(np.arange(4, 0, -1.0), (24_000, 1))
    result = manipulations.permute(values, 1, seed=0)
    assert (result[:, 0] == 4).all()
    orders, counts = np.unique(result[:, 1:], axis=0, return_counts=True)
    assert len(orders) == 6
    assert abs(counts - 4000).max() < 5 * np.sqrt(4000)  # five standard deviations


@few
@given(cases())
def test_average_equals_naive(case):
    values, _, k, _ = case
    np.testing.assert_allclose(
        manipulations.average(values, k), naive.average(values, k), atol=1e-6
    )
    np.testing.assert_allclose(manipulations.average(values, k).sum(1), values.sum(1), atol=1e-4)


@few
@given(cases())
def test_correct_equals_naive_and_is_right(case):
    values, labels, *_ = case
    result = manipulations.correct(values, labels)
    np.testing.assert_array_equal(result, naive.correct(values, labels))
    assert (result[np.arange(len(values)), labels] == values.max(1)).all()
    right = values.argmax(1) == labels
    np.testing.assert_array_equal(result[right], values[right])


@few
@given(cases())
def test_hybrid_equals_naive(case):
    values, _, _, seed = case
    ranks = np.random.default_rng(seed).normal(size=values.shape)
    result = manipulations.hybrid(values, ranks)
    np.testing.assert_array_equal(result, naive.hybrid(values, ranks))
    np.testing.assert_array_equal(np.sort(result, 1), np.sort(values, 1))
    np.testing.assert_array_equal(manipulations.hybrid(values, values), values)


def test_registry_of_manipulations():
    draws = np.random.default_rng(0)
    values, partner = draws.normal(size=(2, 30, 10))
    labels = draws.integers(0, 10, 30)
    made = {
        name: manipulate(values, labels, 1, 5, partner)
        for name, manipulate in manipulations.MANIPULATIONS.items()
    }
    np.testing.assert_array_equal(made["none"], values)
    np.testing.assert_array_equal(made["permute"], manipulations.permute(values, 1, 5))
    np.testing.assert_array_equal(made["average"], manipulations.average(values, 1))
    assert (made["correct-permute"].argmax(1) == labels).all()
    np.testing.assert_array_equal(made["hybrid"].argmax(1), partner.argmax(1))


def test_bad_input_is_named():
    values = np.zeros((2, 3))
    with pytest.raises(ReproError, match="k from 0 to 3, got 4"):
        manipulations.permute(values, 4, 0)
    with pytest.raises(ReproError, match="k from 0 to 3, got -1"):
        manipulations.average(values, -1)
    with pytest.raises(ReproError, match="one shape"):
        manipulations.hybrid(values, np.zeros((2, 4)))
    with pytest.raises(ReproError, match="second teacher"):
        manipulations.MANIPULATIONS["hybrid"](values, np.zeros(2, int), 0, 0, None)
