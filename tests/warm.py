"""Processes of their own that begin with torch imported, which takes seconds elsewhere.

They are forked from a server that has imported what commands need and has computed nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from logit_distributions.store import places

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["logit_distributions.make.run", "snakemake.cli", "tests.warm"])

TIMEOUT = 600


class Begun:
    """``python -m MODULE ARGUMENTS...``, begun."""

    def __init__(
        self, module: str, *arguments: str, env: Mapping[str, str], cwd: Path = places.ROOT
    ) -> None:
        self.command = (module, *arguments)
        self.folder = tempfile.TemporaryDirectory()
        self.files = [Path(self.folder.name) / name for name in ("output", "error")]
        self.process = SERVER.Process(
            target=_main, args=(self.command, dict(env), str(cwd), [str(f) for f in self.files])
        )
        self.process.start()

    def ended(self) -> subprocess.CompletedProcess[str]:
        """Return how it ended, once it has."""
        self.process.join(TIMEOUT)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"{' '.join(self.command)} took more than {TIMEOUT} s")
        output, error = (file.read_text() for file in self.files)
        self.folder.cleanup()
        code = self.process.exitcode
        assert code is not None
        return subprocess.CompletedProcess(self.command, code, output, error)


def run(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path = places.ROOT
) -> subprocess.CompletedProcess[str]:
    """Return how ``python -m MODULE ARGUMENTS...`` ended."""
    return Begun(module, *arguments, env=env, cwd=cwd).ended()


def _main(command: list[str], env: dict[str, str], cwd: str, files: list[str]) -> None:
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = list(command)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
