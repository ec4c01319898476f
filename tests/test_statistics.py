import numpy as np
import pytest

from repro import statistics
from tests import naive


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 50, 10_000])
def test_wilson_interval_solves_its_equation(share, count):
    computed = statistics.wilson_interval(share, count)
    np.testing.assert_allclose(computed, naive.wilson_interval(share, count), atol=1e-9)
    assert 0 <= computed[0] <= share <= computed[1] <= 1


@pytest.mark.parametrize("bad", [(-0.1, 10, 0.95), (0.5, 0, 0.95), (0.5, 10, 1.0)])
def test_wilson_interval_refuses(bad):
    with pytest.raises(ValueError, match="expected a share"):
        statistics.wilson_interval(*bad)


def test_correct_and_mean():
    logits = np.array([[0.0, 2.0], [3.0, 1.0], [0.0, 0.5]])
    assert statistics.correct(logits, np.array([1, 0, 0])).tolist() == [True, True, False]
    assert statistics.mean_and_sd(np.array([1.0, 3.0])) == pytest.approx((2.0, 2**0.5))
    mean, spread = statistics.mean_and_sd(np.array([4.0]))
    assert mean == 4.0
    assert np.isnan(spread)
