"""Logits of others, as arrays."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from logit_distributions import cli, describe, from_arrays, store
from logit_distributions.errors import ReproError
from logit_distributions.read import distribution

LABELS = np.arange(40) % 10


def given(seed=0):
    """Return natural and adversarial logits of a network that is right on most images."""
    draws = np.random.default_rng(seed)
    natural = 2.0 * np.eye(10)[LABELS] + draws.normal(size=(40, 10))
    return natural, natural + draws.normal(size=(40, 10)) - np.eye(10)[LABELS]


def test_logits_stay_and_verdicts_are_told_from_both():
    natural, attacked = given()
    mine = from_arrays(natural, LABELS, adversarial_logits=attacked, name="mine")
    np.testing.assert_array_equal(mine["logits"].values, natural.astype(np.float32))
    np.testing.assert_array_equal(mine["label"].values, LABELS)
    expected = [
        max(range(10), key=list(n).__getitem__) == c == max(range(10), key=list(a).__getitem__)
        for n, a, c in zip(natural, attacked, LABELS, strict=True)
    ]
    assert 0 < sum(expected) < 40
    np.testing.assert_array_equal(mine["robust"].values, [expected])
    assert list(store.faults(mine)) == []


@pytest.mark.parametrize("half", ["both", "verdicts", "natural"])
def test_each_half_is_written_described_and_shown(half, tmp_path, capsys):
    natural, attacked = given()
    hits = natural.argmax(1) == LABELS
    more = {
        "both": {"adversarial_logits": attacked},
        "verdicts": {"robust": hits & (LABELS > 4), "attack": "Square 8/255"},
        "natural": {},
    }[half]
    path = tmp_path / "mine.nc"
    store.write(from_arrays(natural, LABELS, name="mine", **more), path)
    assert cli.main(["validate", str(path)]) == 0
    assert cli.main(["show", str(path)]) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("mine "))
    assert row in describe(store.open_dataset(path))
    low, high = (100 * end for end in distribution.wilson_interval(hits.mean(), 40))
    assert f"{100 * hits.mean():.2f} [{low:.2f}, {high:.2f}]" in " ".join(row.split())
    assert {"both": "an attack of yours", "verdicts": "Square 8/255", "natural": "40  - "}[
        half
    ] in row
    assert "nan" not in row
    assert row.count(" -") == (4 if half == "natural" else 0)
    assert "AT, scale small" in printed


def test_only_what_came_as_arrays_may_lack_an_attack():
    mine = from_arrays(given()[0], LABELS)
    assert list(store.faults(mine)) == []
    other = mine.drop_attrs(deep=False).assign_attrs(mine.attrs, method="given")
    assert {"missing variable 'robust'", "missing variable 'adversarial_logits'"} < set(
        store.faults(other)
    )


def test_arrays_of_other_kinds_are_taken():
    natural, attacked = given()
    plain = from_arrays(natural, LABELS, adversarial_logits=attacked)
    for kind in (np.float16, np.float64):
        close = from_arrays(natural.astype(kind), LABELS.astype(np.uint8))
        np.testing.assert_allclose(close["logits"], plain["logits"], rtol=2e-3)
    tensors = from_arrays(torch.tensor(natural), torch.tensor(LABELS), name="torch")
    np.testing.assert_array_equal(tensors["logits"], plain["logits"])
    lists = from_arrays(natural.tolist(), LABELS.tolist())
    np.testing.assert_array_equal(lists["logits"], plain["logits"])


def refused(**change):
    natural, _ = given()
    hits = natural.argmax(1) == LABELS
    arguments = {"logits": natural, "labels": LABELS, "robust": hits, **change}
    with pytest.raises(ReproError) as error:
        from_arrays(**arguments)
    return str(error.value)


def with_nan():
    natural = given()[0]
    natural[3, 1] = np.nan
    return natural


def numbers(count):
    return list(map(str, range(count)))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"logits": np.zeros(40)},
            "logits: expected the shape (n, classes) with an image or more and at least two "
            "classes, got (40,)",
        ),
        (
            {"logits": np.zeros((40, 10), int)},
            "logits: expected floating-point numbers, got int64; if these are logits, give "
            ".astype('float32')",
        ),
        (
            {"adversarial_logits": np.zeros((40, 9))},
            "adversarial_logits: expected the shape of logits, (40, 10), got (40, 9); likely of "
            "other images",
        ),
        (
            {"labels": LABELS + 1},
            "labels: expected classes from 0 to 9, as there are 10 logits, got 1 to 10; likely "
            "counted from 1, or of another set",
        ),
        (
            {"labels": np.eye(10)[LABELS]},
            "labels: expected the shape (40,), got (40, 10); likely one-hot: give labels.argmax(1)",
        ),
        (
            {"labels": LABELS[:30]},
            "labels: expected 40 numbers, one for each row of logits, got the shape (30,)",
        ),
        (
            {"labels": LABELS * 1.0},
            "labels: expected whole numbers (true classes), got float64",
        ),
        (
            {"robust": np.ones(40)},
            "robust: expected 40 of True and False, one for each image, got float64 of shape (40,)",
        ),
        ({"classes": numbers(9)}, "classes: expected 10 different names, got 9"),
        (
            {"index": np.arange(3)},
            "index: expected 40 numbers, one for each row of logits, got the shape (3,)",
        ),
    ],
)  # fmt: skip
def test_what_is_not_expected_is_one_line(change, line):
    assert refused(**change) == line


def test_numbers_that_are_none_name_the_image():
    assert refused(logits=with_nan()).startswith("logits: expected finite numbers, got [")
    assert refused(logits=with_nan()).endswith("for image 3")


def test_verdicts_that_contradict_say_how_many():
    natural, attacked = given()
    wrong = int((natural.argmax(1) != LABELS).sum())
    assert refused(robust=np.ones(40, bool)) == (
        f"robust: {wrong} of 40 images are misclassified without an attack, yet robust; likely "
        "verdicts of the attack alone, or in another order"
    )
    fooled = int(((natural.argmax(1) == LABELS) & (attacked.argmax(1) != LABELS)).sum())
    assert refused(adversarial_logits=attacked) == (
        f"robust: contradicts the adversarial logits of {fooled} of 40 images; likely of another "
        "attack, or in another order"
    )


def test_a_tensor_with_a_gradient_says_what_to_give():
    line = refused(logits=torch.zeros(40, 10, requires_grad=True))
    assert line.startswith("logits: expected an array, got torch.Tensor, which numpy does not read")
    assert line.endswith("a torch tensor: give logits.detach().cpu().numpy()")


def test_no_torch_is_needed():
    code = (
        "import sys; from logit_distributions import describe, from_arrays\n"
        "print(describe(from_arrays([[1.0, 0.0]], [0])))\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
