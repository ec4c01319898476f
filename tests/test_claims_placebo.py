"""Rules judged where there is nothing to find, and with the roles of two networks exchanged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from logit_distributions import recipes, store
from paper.claims import placebo, terms
from paper.claims.verdicts import Claim, judge
from tests import toy_results

DIFFERENCE = Claim(
    "x", "", "quotation", "", "figure2", 'mean("gap", "st") - mean("gap", "at")', stated="> 0"
)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Three seeds of ST and AT."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    for name in recipes.TEACHERS:
        for seed in recipes.SEEDS:
            recipe = recipes.recipe(name)
            made = toy_results.logits(recipe, seed, toy_results.SAMPLES)
            store.write(made, store.path_of("logits", recipe.run(seed)))
    terms.forget()
    yield tmp_path
    terms.forget()


def test_a_difference_between_networks_is_none_between_seeds_of_one(world):
    trial = placebo.trial(judge(DIFFERENCE))
    assert trial.verdict.verdict == "holds in direction"
    assert trial.placebos == 2 * 3 * 2
    assert trial.holding < trial.placebos / 2
    assert not trial.exchanged
    assert trial.discriminates
    assert trial.chance == pytest.approx((trial.holding / trial.placebos) ** 3)


def test_a_rule_that_any_two_networks_pass_does_not_discriminate(world):
    blunt = dataclasses.replace(DIFFERENCE, stated="-1000 to 1000")
    trial = placebo.trial(judge(blunt))
    assert (trial.holding, trial.exchanged, trial.discriminates) == (12, True, False)
    assert trial.chance == 1
    text = "\n".join(placebo.lines([trial]))
    assert "1 rules compare two networks; 1.0 of them would" in text
    assert "holds on 12 of 12 placebos; holds with the roles exchanged too" in text


def test_pairs_of_networks_take_two_seeds_against_one(world):
    pairs = dataclasses.replace(
        DIFFERENCE,
        measure='overlap(5, "at", "at") - overlap(5, "at", "st")',
    )
    trial = placebo.trial(judge(pairs))
    assert trial.placebos == 12
    formula = pairs.measure
    found = terms.evaluate(
        formula, "cifar10", "small", (("at", "st", (0, 2)), ("st", "st", (1,)))
    ).values
    logits = [
        toy_results.logits(recipes.recipe("st"), seed, toy_results.SAMPLES)["logits"].values
        for seed in recipes.SEEDS
    ]

    def overlap(first, second):
        tops = [np.argsort(-z, axis=1, kind="stable")[:, :5] for z in (first, second)]
        return np.mean(
            [(tops[0][:, :i, None] == tops[1][:, None, :i]).sum() / i for i in range(1, 6)]
        ) / len(first)

    between = np.mean([overlap(logits[0], logits[1]), overlap(logits[2], logits[1])])
    assert list(found.values()) == [pytest.approx(overlap(logits[0], logits[2]) - between)]


def test_roles_are_those_of_networks(world):
    assert placebo.roles(DIFFERENCE) == ("st", "at")
    for measure in (
        'mean("gap", "st", epoch="at", part="test")',
        'robust("at") - robust("st") - robust("normal")',
        'mean("gap", "st", dataset="cifar10") - mean("gap", "at")',
        None,
    ):
        assert placebo.roles(dataclasses.replace(DIFFERENCE, measure=measure)) is None
    exchanged = placebo._exchanged('a("st", epoch="at") - a("at")', ("st", "at"))
    assert exchanged == 'a("at", epoch="at") - a("st")'
