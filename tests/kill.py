"""Kill the pipeline with SIGKILL while it trains, makes targets, attacks and writes.

``python -m tests.kill [WORD...]`` runs a plan, by default everything behind Table 2, on the toy
set: once left alone, and again in other folders, killed over and over and resumed until it is
done. Each kill falls at a random moment during a random stage. Logits, verdicts, logs and weights
must be the same bit for bit, no file may be damaged, and nothing half-written may count as a
result.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from logit_distributions import cli, store
from logit_distributions.make import attack, checkpoint, distill, train
from logit_distributions.store import files, places
from tests import toy

OPTIONS = ["--seed", "0", "--threads", "1", "--save-every", "0"]

STAGES = {"training": 12, "targets": 12, "attacking": 60, "writing": 12}
"""Where kills fall, and the largest number of steps of that stage to let pass before."""


def child(stage: str, steps: int, delay: float) -> int:
    """Run the pipeline; once `stage` has made so many steps, wait a moment, then die."""
    toy.install()
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done == steps:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    def counted(function: Callable) -> Callable:
        def call(*arguments, **settings):
            count()
            return function(*arguments, **settings)

        return call

    atomic = files.atomic

    @contextmanager
    def slow_atomic(path: Path):
        with atomic(path) as temporary:
            yield temporary
            count()
            if done == steps:
                time.sleep(2 * delay)  # so that death comes between writing and renaming

    if stage == "training":
        train.Trainer.one_step = counted(train.Trainer.one_step)
    elif stage == "targets":
        distill.crop_and_flip = counted(distill.crop_and_flip)
    elif stage == "attacking":
        attack._ascend = counted(attack._ascend)
    elif stage == "writing":
        files.atomic = slow_atomic
    words = os.environ["TOY_PLAN"].split()
    return cli.main(["make", *words, *OPTIONS, "--images", os.environ["TOY_SHEETS"]])


def run(world: Path, stage: str = "none", steps: int = 0, delay: float = 0.0) -> int:
    """Run a child in a world of its own and return its exit code, -9 if killed."""
    folders = {f"REPRO_{name.upper()}": str(world / name) for name in ("data", "cache", "build")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill", "--child", stage, str(steps), str(delay)],
        cwd=places.ROOT, env=os.environ | folders, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(done.stderr)
    return done.returncode


def results(world: Path) -> dict[str, bytes]:
    """Return every stored number that does not measure time."""
    contents = {}
    for file in sorted((world / "data").rglob("*.nc")):
        for name, variable in store.open_dataset(file).variables.items():
            if name != "seconds":
                contents[f"{file.name} {name}"] = np.asarray(variable.values).tobytes()
    for file in sorted((world / "data").rglob("*.safetensors")):
        for name, tensor in checkpoint.Checkpoint.load(file).tensors.items():
            contents[f"{file.name} {name}"] = tensor.numpy().tobytes()
    return contents


def differences(reference: dict[str, bytes], computed: dict[str, bytes]) -> list[str]:
    """Return the names of the arrays that differ or are in one only."""
    names = reference.keys() | computed.keys()
    return sorted(name for name in names if reference.get(name) != computed.get(name))


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print what was found; exit code 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="default: table2")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.child is not None:
        stage, steps, delay = parsed.child
        return child(stage, int(steps), float(delay))
    draws = random.Random(parsed.seed)
    kills: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    worlds = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOY_SHEETS"] = str(Path(folder) / "sheets")
        os.environ["TOY_PLAN"] = " ".join(parsed.words or ["table2"])
        toy.write_sheets(Path(folder) / "sheets")
        run(Path(folder) / "whole")
        reference = results(Path(folder) / "whole")
        while kills.total() < parsed.kills:
            world = Path(folder) / f"killed-{worlds}"
            worlds += 1
            while kills.total() < parsed.kills:
                stage = draws.choice(list(STAGES))
                steps, delay = draws.randint(1, STAGES[stage]), draws.uniform(0, 0.05)
                if run(world, stage, steps, delay) == 0:
                    break
                kills[stage] += 1
                print(
                    f"kill {kills.total()}: {stage}, step {steps} + {1000 * delay:.0f} ms",
                    flush=True,
                )
            run(world)
            faults += differences(reference, results(world))
            for file, named in store.validate_folder(world / "data"):
                faults += [f"{file}: {fault}" for fault in named]
    print(
        f"{kills.total()} kills ({', '.join(f'{n} {stage}' for stage, n in kills.items())}) of "
        f"{worlds} runs: {len(reference)} stored arrays each, {len(faults)} differ or are damaged"
    )
    for line in faults:
        print(f"  {line}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
