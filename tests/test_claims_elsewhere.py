"""Section 4.1's claims on other networks."""

from __future__ import annotations

import numpy as np
import pytest

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from paper.claims import elsewhere, terms, verdicts
from paper.claims.__main__ import main
from tests import toy_results
from tests.conftest import STORED


def test_which_claims_speak_of_one_network():
    chosen = {claim.id: elsewhere.network(claim) for claim in elsewhere.claims()}
    assert chosen["at-max-positive-skew"] == "at"
    assert {"small-gap-less-robust", "low-gaps-not-robust"} <= chosen.keys()
    others = {claim.id for claim in verdicts.register()} - chosen.keys()
    assert {"max-lower", "confidence-differs", "b5-gap-indicates"} <= others


def test_a_stored_network_gets_the_numbers_of_the_register(capsys):
    path = STORED / "logits" / "cifar10-small-at-seed0.nc"
    data = store.open_dataset(path)
    assert main(["--on", str(path), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("cifar10-small-at-seed0 (") for line in lines) == 2
    (line,) = {each for each in lines if "at-max-positive-skew " in each}
    skewness = distribution.skewness(distribution.max_logit(data["logits"].values))
    assert f" {verdicts.number(skewness)} [" in line
    for claim in elsewhere.claims():
        value = terms.evaluate_on(claim.measure, "at", data).values[(0,)]
        assert value == terms.evaluate(claim.measure, "cifar10", "small").values[(0,)]


@pytest.mark.parametrize(("power", "verdict"), [(6, "holds"), (1 / 3, "does not hold")])
def test_a_network_of_others_is_judged_by_the_same_rule(power, verdict, tmp_path, capsys):
    """The largest logit is a draw in [0, 1] to a power, which skews it either way."""
    data = toy_results.logits(recipes.recipe("at"), 0, toy_results.SAMPLES)
    top = (np.random.default_rng(0).random(toy_results.SAMPLES) ** power).astype(np.float32)
    values = np.eye(10, dtype=np.float32)[data["label"].values] * (1 + top[:, None])
    right = np.ones((2, toy_results.SAMPLES), bool)
    data = data.assign(
        logits=(("sample", "class"), values), adversarial_logits=(("sample", "class"), values),
        robust=(("attack", "sample"), right),
    )  # fmt: skip
    data.attrs["run"] = "theirs"
    store.write(data, tmp_path / "theirs.nc")
    assert main(["--on", str(tmp_path / "theirs.nc")]) == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if "-skew" in each)
    assert f" {verdict}: as stated if > 0.5" in line


def test_what_is_no_dataset_of_logits_is_one_line(tmp_path, capsys):
    assert main(["--on", str(tmp_path / "none.nc")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
