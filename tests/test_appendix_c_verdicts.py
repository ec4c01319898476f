"""The claims of Appendix C: all judged, by the rules that hold for every claim."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from paper.appendix_c import verdicts
from paper.appendix_c.networks import Fit, LogitStudy, StepStudy, Studies
from paper.claims.verdicts import MISSING, NEEDS_SCALE, register

FIT = Fit(linear=0.1, quadratic=0.9, exponent=2.0, growing=0.0, count=100)
LOGITS = LogitStudy(
    "run", "at", "paper", 0, 100, ratio=(0.01, 0.05, 0.2), ratio_small=0.9, largest=3.4,
    largest_wrong=3.0, wrong_above=0.2, bound=3.5, attacked=FIT, survivors=FIT,
)  # fmt: skip
STEPS = StepStudy("run", "at", "paper", 0, 100, (0.01,), (FIT,), (FIT,), (FIT,))


def judged(studies):
    return {verdict.claim.id: verdict for verdict in verdicts.verdicts(studies)}


def test_every_claim_without_a_measure_is_judged():
    claims = [claim for claim in register() if claim.measure is None]
    assert [claim.id for claim in claims] == list(verdicts.JUDGES)
    assert all(claim.id.startswith("C-") and claim.decision for claim in claims)
    assert list(judged(Studies([], []))) == list(verdicts.JUDGES)


def test_networks_that_are_not_stored_are_named_with_the_command():
    without = judged(Studies([], []))
    for name, command in (
        ("C-mean", "table2"),
        ("C-assumption", "table2"),
        ("C-quadratic", "figureC3"),
    ):
        assert without[name].verdict == MISSING
        assert f"{command}`" in without[name].reason
    assert without["C-shrink"].verdict == "holds"


@pytest.mark.parametrize("name", ["C-mean", "C-assumption", "C-quadratic"])
def test_networks_of_the_papers_scale_decide(name):
    verdict = judged(Studies([LOGITS], [STEPS]))[name]
    assert (verdict.verdict, verdict.scale) == ("holds", "paper")
    assert verdict.reason.startswith("at scale paper: ")
    far = dataclasses.replace(LOGITS, largest=np.inf, ratio=(1.0, 1.0, 1.0))
    steps = dataclasses.replace(STEPS, hard=(dataclasses.replace(FIT, linear=1.0),))
    assert judged(Studies([far], [steps]))[name].verdict == "does not hold"
    assert judged(Studies([LOGITS, far], [STEPS, steps]))[name].verdict == "holds in direction"


def test_small_networks_say_less():
    logits, steps = (dataclasses.replace(study, scale="small") for study in (LOGITS, STEPS))
    small = judged(Studies([logits], [steps]))
    assert small["C-quadratic"].verdict == "holds in direction"
    assert small["C-assumption"].verdict == NEEDS_SCALE
    assert small["C-mean"].verdict == NEEDS_SCALE  # a number of the paper's networks
    assert small["C-mean"].reason.startswith("the paper's number is of width 64")
    assert judged(Studies([LOGITS, logits], []))["C-assumption"].verdict == NEEDS_SCALE
