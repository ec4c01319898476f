"""What becomes of logits on their way to a dataset."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logit_distributions.make import logits as attacked_logits
from tests import naive

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(2, 6)),
    # Steps of 1/4096 near each other, so that some become equal.
    elements=st.integers(-40, 40).map(lambda v: 3 + v / 4096),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(logits)
def test_rounding_equals_naive_and_changes_no_prediction(given_logits):
    stored = attacked_logits.rounded(given_logits)
    expected = [naive.rounded(row, 1024) for row in given_logits.tolist()]
    np.testing.assert_array_equal(stored, np.float32(expected))
    np.testing.assert_array_equal(stored.argmax(1), given_logits.argmax(1))
    assert np.abs(stored - given_logits).max() <= 1 / 2048
    np.testing.assert_array_equal(attacked_logits.rounded(stored), stored)
