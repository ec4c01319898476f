"""What becomes of logits on their way to a dataset."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logit_distributions import cli, recipes, store
from logit_distributions.make import logits as attacked_logits
from logit_distributions.read import describe
from tests import naive, others
from tests.conftest import STORED

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


def test_logits_of_anybodys_network_stand_beside_the_stored_ones(place, capsys):
    output = place / "mine.nc"
    state = {f"module.{name}": each for name, each in others.own_network().state_dict().items()}
    torch.save({"state_dict": state}, place / "mine.pt")
    arguments = [
        "attack", "--checkpoint", place / "mine.pt", "--model", "tests.others:own_network",
        "--limit", "40", "--iterations", "5", "--output", output,
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    found = store.open_dataset(output, "logits")
    assert dict(found.sizes) == {"sample": 40, "class": 10, "attack": 2}
    at = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    np.testing.assert_array_equal(found["label"], at["label"][:40])
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert {"mine", "ST, scale small", "AT, scale small"} <= rows.keys()
    shown = [float(number) for number in rows["mine"].split()[1:]]
    assert shown == pytest.approx(list(describe.profile(found).values()), abs=0.006)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ([], "expected a recipe, or --checkpoint"),
        (["st", "--checkpoint", "mine.pt"], "expected a recipe, or --checkpoint"),
        (["--checkpoint", "{}", "--model", "tests.others:hundred"], "10 logits, got 100"),
    ],
)
def test_an_attack_on_nothing_or_on_the_wrong_thing_is_one_line(more, problem, place, capsys):
    torch.save(others.hundred().state_dict(), place / "hundred.pt")
    more = [each.format(place / "hundred.pt") for each in more]
    assert cli.main(["attack", "--limit", "20", *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error
