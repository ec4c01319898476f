"""The reader's commands need no torch, everything right of the datasets, and explain themselves."""

import os
import runpy
import subprocess
import sys

import pytest

from logit_distributions.store import places
from paper.__main__ import names

WITHOUT_TORCH = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "safetensors", "pyautoattack"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NotInstalled())
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a module in a process without torch, as is every process that it starts."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(WITHOUT_TORCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "start"), prepend=os.pathsep)

    def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True)

    return _run


def test_torch_is_not_there(run):
    assert "No module named 'torch'" in run("torch").stderr


def test_tables_and_figures_run_without_torch(run, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path))
    tables = ["table1", "table2", "table3"]
    done = run("paper", *tables, "figure4")
    assert done.returncode == 0, done.stderr
    for table in tables:
        for suffix in ("txt", "csv", "md", "tex"):
            assert (tmp_path / "tables" / f"{table}.{suffix}").stat().st_size > 100
    assert (tmp_path / "figures" / "figure4.png").stat().st_size > 10_000


def test_reading_commands_run_without_torch(run):
    few = str(places.ROOT / "tests" / "stored" / "2026-11-25")
    for arguments in (["list", "--data", few], ["validate", "data/targets"], ["--help"]):
        done = run("logit_distributions", *arguments)
        assert done.returncode == 0, done.stderr


def test_training_without_torch_says_what_to_install(run, tmp_path):
    done = run("logit_distributions", "make", "st", "--data", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "install the extra 'train'" in done.stderr


COMMANDS = ("", ".beyond", ".claims", ".audit", ".appendix_c", ".report", ".release")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # runs a fresh copy
@pytest.mark.parametrize("name", [*COMMANDS, *(f".{each}" for each in names())])
def test_every_command_explains_itself(name, monkeypatch, capsys):
    def called_with(argument: str) -> int:
        monkeypatch.setattr(sys, "argv", [f"paper{name}", argument])
        with pytest.raises(SystemExit) as left:
            runpy.run_module(f"paper{name}", run_name="__main__")
        return left.value.code

    assert called_with("--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m paper{name} [-h] [--debug]")
    assert called_with("--wrong") == 2
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: --wrong\n")
