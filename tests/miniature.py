"""The scale ``miniature`` on real images: the 1,000 stored ones, in the place of CIFAR-10.

``python -m tests.miniature ARGUMENTS...`` is the ``logitdist`` command on them. Where ``KILL_ONCE``
names a file that does not exist yet, the first process that saves a rolling checkpoint writes
its run there and kills itself. Where ``ASKED`` is a number, a budget is spent once it was asked so
often, whatever the clock says.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from logit_distributions import cli, images, store
from logit_distributions.store import places
from tests import warm

if TYPE_CHECKING:  # it brings torch, which takes seconds that `list` does not need
    from logit_distributions.make.options import Budget

TRAIN, TEST = 600, 100
STUDENTS = ("hybrid",)
"""Of AT and ST."""

MODULE = "tests.miniature"
COMMAND = (sys.executable, "-m", MODULE)


def parts() -> dict[str, images.Arrays]:
    """Return some of the stored images with their labels, as a training and a test part."""
    stored = places.ROOT / "data"
    pixels = images.read_sheet(stored / "images" / "cifar10-test-first-1000.png")
    logits = store.open_dataset(stored / "logits" / "cifar10-small-st-seed0.nc")
    labels = logits["label"].values[: len(pixels)].astype(np.int64)
    return {"train": (pixels[:TRAIN], labels[:TRAIN]), "test": (pixels[-TEST:], labels[-TEST:])}


def install() -> None:
    """Put these images in the place of CIFAR-10, in the description and in the cache."""
    both = parts()
    images.SPECS["cifar10"] = dataclasses.replace(
        images.CIFAR10,
        count={part: len(labels) for part, (_, labels) in both.items()},
        sha256={part: images.content_hash(*each) for part, each in both.items()},
        validation_per_class=10,
    )
    images.write_cache("cifar10", both)


def dying(save: Callable, mark: Path) -> Callable:
    """Return `save` of a run such that the first process that calls it dies afterwards."""

    def call(run, rolling):
        save(run, rolling)
        try:
            claimed = mark.open("x")
        except FileExistsError:
            return
        with claimed:
            claimed.write(run.name)
        os.kill(os.getpid(), signal.SIGKILL)

    return call


def spent_after(asked: int) -> type[Budget]:
    """Return a budget that is spent once it was asked so often."""
    from logit_distributions.make.options import Budget

    class Asked(Budget):
        left = asked

        @property
        def spent(self) -> bool:
            Asked.left -= 1
            return Asked.left < 0

    return Asked


def environment(world: Path) -> dict[str, str]:
    """Return the variables of a process that works in `world`, wherever it is started."""
    folders = {f"REPRO_{name.upper()}": str(world / name) for name in ("data", "cache", "build")}
    return os.environ | folders | {"OMP_NUM_THREADS": "1"}


def run_alone(world: Path, networks: Sequence[str] = STUDENTS) -> None:
    """Make networks, and what they need, in one process, and attack them."""
    choice = ["--scale", "miniature", "--seed", "0", "--threads", "1", "--device", "cpu"]
    done = warm.run(MODULE, "make", *networks, *choice, env=environment(world))
    assert done.returncode == 0, done.stderr


def snakemake(
    world: Path, profile: str, *arguments: str, networks: Sequence[str] = STUDENTS
) -> subprocess.CompletedProcess[str]:
    """Make the same through the workflow, with a profile of it."""
    workflow = places.ROOT / "repro" / "logit_distributions" / "workflow"
    settings = {
        "plan": " ".join(networks), "scale": "miniature", "seeds": "0",
        "data": world / "data", "cache": world / "cache", "command": " ".join(COMMAND),
    }  # fmt: skip
    return warm.run(
        "snakemake", "--directory", str(world),
        "--snakefile", str(workflow / "Snakefile"),
        "--profile", str(workflow / "profiles" / profile),
        "--config", *(f"{name}={value}" for name, value in settings.items()), *arguments,
        env=environment(world),
    )  # fmt: skip


def results(world: Path, networks: Sequence[str] = STUDENTS) -> dict[str, bytes]:
    """Return the bytes of every array of the logits; all that was made is valid."""
    contents = {}
    for name in networks:
        dataset = store.open_dataset(file(world, "logits", name), "logits")
        for variable in dataset.data_vars:
            contents[f"{name} {variable}"] = dataset[variable].values.tobytes()
    for name in networks:
        assert store.open_dataset(file(world, "log", name), "log").sizes["epoch"] == 2
    return contents


def file(world: Path, kind: str, name: str) -> Path:
    """Path of a dataset by kind and recipe."""
    return world / "data" / kind / f"cifar10-miniature-{name}-seed0.nc"


if __name__ == "__main__":
    if "KILL_ONCE" in os.environ:
        from logit_distributions.make import train

        train.Trainer.save = dying(train.Trainer.save, Path(os.environ["KILL_ONCE"]))
    if "ASKED" in os.environ:
        from logit_distributions.make import options

        options.Budget = spent_after(int(os.environ["ASKED"]))
    install()
    often = ["--save-every", "0"] if sys.argv[1] == "make" else []
    sys.exit(cli.main([*sys.argv[1:], *often]))
