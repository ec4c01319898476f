"""The table of logit distributions."""

import numpy as np
import pytest

from logit_distributions import recipes, store
from logit_distributions.read import describe, distribution
from tests.conftest import STORED


def test_a_profile_holds_the_plain_statistics():
    at = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    found, logits = describe.profile(at), at["logits"].values
    robust = at["robust"].values[-1]
    order = np.argsort(distribution.logit_gap(logits))
    quarter = len(order) // 4
    assert found["low"] == pytest.approx(100 * robust[order[:quarter]].mean(), abs=0.1)
    assert found["high"] == pytest.approx(100 * robust[order[-quarter:]].mean(), abs=0.1)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["sure"] == pytest.approx(softmax.max(1).mean())
    assert found["max"] == pytest.approx(logits.max(1).mean())
