"""The paper's plan in slices of time, rehearsed at the scale ``miniature``.

Each slice runs in a fresh folder, as on another machine: without a network, with what
``logitdist list … --files`` names of the slice before, and the images from a folder.
"""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from logit_distributions.cli import GO_ON
from tests import miniature, toy, warm

CHOICE = (*miniature.STUDENTS, "--scale", "miniature", "--seed", "0")
ASKED = (3, 9, 15, 20)
"""How often the budget of the first slices is asked before it is spent; of the others more.

The first two are cut in the first epochs of training, the others later on; all of it asks some 60
times. A chunk of an attack that is cut is begun anew.
"""


def slice_of_time(world: Path, asked: int, sheets: Path) -> int:
    """Work in a folder until the budget is spent, and return the exit code."""
    settings = ("--budget", "1h", "--images", str(sheets), "--threads", "1", "--device", "cpu")
    environment = miniature.environment(world) | {"ASKED": str(asked)}
    done = warm.run(miniature.MODULE, "make", *CHOICE, *settings, env=environment)
    assert done.returncode in (0, GO_ON), done.stderr
    if done.returncode:
        assert "the same command goes on there" in done.stderr.splitlines()[-1]
    return done.returncode


def carry(world: Path, other: Path) -> None:
    """Take results and unfinished state along, as the README says."""
    other.mkdir()
    environment = miniature.environment(world) | {"REPRO_DATA": "data", "REPRO_CACHE": "cache"}
    command = (miniature.MODULE, "list", *CHOICE, "--files")
    files = warm.run(*command, env=environment, cwd=world)
    names = files.stdout.splitlines()
    assert names
    assert not any(Path(name).is_absolute() or "SHA256SUMS" in name for name in names)
    packed = subprocess.run(
        ["tar", "-c", "-T", "-"],
        cwd=world,
        input=files.stdout.encode(),
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "-x"], cwd=other, input=packed.stdout, check=True)


@pytest.mark.slow
def test_slices_on_machine_after_machine_end_in_the_same_bits(tmp_path, rehearsal):
    toy.write_sheets(tmp_path / "sheets", miniature.parts())
    budgets = itertools.chain(ASKED, itertools.count(300, 60))
    for number, asked in enumerate(budgets):
        world = tmp_path / f"machine-{number}"
        if number:
            carry(tmp_path / f"machine-{number - 1}", world)
        if slice_of_time(world, asked, tmp_path / "sheets") == 0:
            break
    assert number >= len(ASKED)
    assert miniature.results(world) == rehearsal
