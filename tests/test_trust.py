"""Code that a file names runs only where its user has said so."""

import sys

import pytest
import torch
from torch import nn

from logit_distributions import recipes
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job
from logit_distributions.make.checkpoint import Checkpoint, adopt

MODULE = """
from pathlib import Path
from torch import nn
Path(__file__).with_name("was-run").touch()
def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
"""
GIVEN = Job("checkpoint", recipes.recipe("at", "small+given-mine"), 0)


@pytest.fixture
def adopted(toy_world, monkeypatch):
    """A world in which a network was adopted, as a user has it whose results are a tar's."""
    (toy_world / "theirs.py").write_text(MODULE)
    monkeypatch.chdir(toy_world)
    weights = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)).state_dict()
    torch.save(weights, "weights.pt")
    adopt("mine", toy_world / "weights.pt", "theirs:network")
    del sys.modules["theirs"]
    (toy_world / "was-run").unlink()
    yield toy_world
    sys.modules.pop("theirs", None)


def test_an_adopted_network_runs(adopted):
    assert Checkpoint.of(GIVEN).model(10) is not None
    assert (adopted / "was-run").exists()


def test_a_network_from_elsewhere_is_never_imported(adopted, monkeypatch):
    """Neither on another machine, nor with other weights or other code than were named."""
    changed = Checkpoint.of(GIVEN)
    changed.tensors = {name: each + 1 for name, each in changed.tensors.items()}
    with pytest.raises(ReproError, match="nobody adopted on this machine"):
        changed.model(10)
    other = Checkpoint.of(GIVEN)
    other.settings = {"model": "theirs:__builtins__"}
    with pytest.raises(ReproError, match="names the code 'theirs:__builtins__'"):
        other.model(10)
    monkeypatch.setenv("XDG_STATE_HOME", str(adopted / "another machine"))
    with pytest.raises(ReproError, match="'logitdist adopt NAME --checkpoint FILE --model theirs"):
        Checkpoint.of(GIVEN).model(10)
    assert not (adopted / "was-run").exists()


def test_without_a_home_the_error_says_what_to_name(adopted, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(ReproError, match="name one in XDG_STATE_HOME"):
        Checkpoint.of(GIVEN).model(10)
