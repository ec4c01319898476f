"""What becomes of logits on their way to a dataset; an attack in slices of time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logit_distributions import images
from logit_distributions.make import logits as attacked_logits
from logit_distributions.make.network import ResNet18
from logit_distributions.make.options import Machine, Options, OutOfTime
from logit_distributions.recipes import ENGINES, Evaluation
from tests import miniature, naive, toy

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


def attacked(model, data, settings, budget, partial=None):
    options = Options(Machine("cpu", "float32"), budget=budget)
    return attacked_logits.attack(model, data, settings, options, ("toy", "0"), partial)


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "autoattack-full"])
def test_an_attack_is_cut_within_a_chunk_and_goes_on_to_the_same_bits(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setitem(attacked_logits.CHUNK, "cpu", 10)
    torch.manual_seed(0)
    model = ResNet18(10, 8).eval()
    pixels, labels = toy.arrays(2, 2)
    labels[:] = model(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()
    data = images.ImageSet(pixels, labels, np.arange(20), images.CIFAR10.classes, "")
    settings = Evaluation(engine, eps=1e-4, iterations=6)
    plenty = miniature.spent_after(1000)(60)
    whole = attacked(model, data, settings, plenty)
    in_second_chunk = (1000 - plenty.left) * 3 // 4
    partial = tmp_path / "attack.npz"
    with pytest.raises(OutOfTime, match="next comes image 0 of the attack on toy"):
        attacked(model, data, settings, miniature.spent_after(5)(60), partial)
    assert not partial.exists()
    with pytest.raises(OutOfTime, match="next comes image 10 of the attack on toy"):
        attacked(model, data, settings, miniature.spent_after(in_second_chunk)(60), partial)
    kept = partial.read_bytes()
    with pytest.raises(OutOfTime, match="next comes image 10"):
        attacked(model, data, settings, miniature.spent_after(3)(60), partial)
    assert partial.read_bytes() == kept
    again = attacked(model, data, settings, miniature.spent_after(1000)(60), partial)
    for name in ("logits", "adversarial_logits", "robust"):
        np.testing.assert_array_equal(again[name], whole[name])
    assert not model._forward_pre_hooks
