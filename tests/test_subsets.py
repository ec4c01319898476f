"""Whatever part of the stored results is there: what can be made is, the rest is one line."""

from __future__ import annotations

import importlib

import matplotlib as mpl
import numpy as np
import pytest

from logit_distributions.errors import ReproError
from logit_distributions.store import files
from paper import __main__ as driver
from paper import style
from paper.claims import terms
from paper.claims import verdicts as claims
from paper.claims.__main__ import verdicts
from tests.conftest import STORED

SEEDS = (1, 6, 57, 90)
"""The third leaves a loss of Figure A.7 without a point."""


def subset(folder, seed):
    """Link a random part of the stored files, each with the same random chance."""
    draws = np.random.default_rng(seed)
    share = draws.choice([0.1, 0.5, 0.8, 0.95])
    for path in sorted(STORED.rglob("*")):
        if path.is_file() and path.name != files.REGISTRY and draws.random() < share:
            target = folder / path.relative_to(STORED)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)


def make_all():
    """Make every artefact, without drawing it; return what those lack that could not be made."""
    problems = {}
    for name in driver.names():
        if name.startswith("figureC"):
            continue  # of formulas alone
        try:
            with mpl.rc_context(style.STYLE):
                importlib.import_module(f"paper.{name}").make()
        except ReproError as error:
            problems[name] = str(error)
    return problems


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_of_the_results_is_never_a_traceback(seed, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    subset(tmp_path, seed)
    for name, problem in make_all().items():
        assert "\n" not in problem, name
        assert "make it with 'logitdist" in problem, (name, problem)
    some = [claim.id for claim in claims.register()][seed % 12 :: 12]
    for verdict in verdicts(some):
        assert verdict.verdict in claims.VERDICTS
    terms.forget()
