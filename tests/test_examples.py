"""The examples on networks of one's own run as printed."""

import re
import shlex
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from logit_distributions import cli
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.network import ResNet18
from logit_distributions.store import places
from paper import figure2, style
from tests.conftest import STORED

README = (places.ROOT / "README.md").read_text()
TEXT = re.search(r"## Use it on your own network\n.*?(?=\n## )", README, flags=re.DOTALL)[0]


def published(name="cifar10-small-at-seed0", **_):
    """Return published weights in a plain torch module."""
    path = STORED / "checkpoints" / f"{name}.safetensors"
    model = ResNet18(10, 8)
    tensors = Checkpoint.load(path).tensors
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    return model


@pytest.fixture
def robustbench(monkeypatch):
    """Stand for RobustBench with a network of ours."""
    package, utils = types.ModuleType("robustbench"), types.ModuleType("robustbench.utils")
    utils.load_model = lambda *_, **__: published()
    monkeypatch.setitem(sys.modules, "robustbench", package)
    monkeypatch.setitem(sys.modules, "robustbench.utils", utils)


def test_the_python_examples_run(robustbench, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    assert re.search(r"^Wong2020Fast +20 +repro 8/255 100it x1 +\d", printed, flags=re.MULTILINE)
    assert "AT, scale small" in printed
    assert "\n1.0\n" in printed
    assert names["capacity"].sizes["layer"] == 2
    assert re.search(r"^theirs +20 +APGD 8/255 +\d", printed, flags=re.MULTILINE)
    (line,) = re.findall(r"`python -m paper.(figure2) (theirs.nc .*?)`", TEXT)
    shown = [each.replace("data/", f"{STORED}/") for each in line[1].split()]
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    assert style.main(line[0], figure2.make, shown, figure2.of_files) == 0


def make_network():
    return ResNet18(10, 8)


def test_the_commands_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    torch.save({"net": published().state_dict()}, "mine.pt")
    save_file(published().state_dict(), "mine.safetensors")
    (commands,) = (b for b in re.findall(r"```\n(logitdist.*?)```", TEXT, flags=re.DOTALL))
    quick = {
        "attack": ["--limit", "10", "--iterations", "5"],
        "capacity": ["--exemplars", "4", "--points", "4", "--draws", "4", "--layers", "logits"],
        "show": [],
    }
    for line in commands.splitlines():
        _, command, *arguments = shlex.split(line)
        arguments = [each.replace("mymodule", "tests.test_examples") for each in arguments]
        assert cli.main([command, *arguments, *quick[command]]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "mine: adversarial manifolds, P = 4, M = 4" in printed
    assert printed.count("\nmine") >= 2
