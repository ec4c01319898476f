"""A data set and a scale so small that every stage of the pipeline runs in seconds.

``python -m tests.toy FOLDER ARGUMENTS...`` is the ``logitdist`` command on them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from logit_distributions import cli, images, recipes

TRAIN, TEST, VALIDATION = 36, 10, 10
"""Images of each class; those for validation are taken from the training images."""

SHOWN = 10 * (TRAIN - VALIDATION)
"""Images that a network is trained on, in three steps an epoch."""


def arrays(per_class: int, seed: int) -> images.Arrays:
    """Return images of ten classes that differ in colour and stripes, with noise."""
    draws = np.random.default_rng(seed)
    labels = draws.permutation(np.repeat(np.arange(10), per_class)).astype(np.int64)
    colour = np.random.default_rng(0).integers(60, 196, (10, 3, 1, 1))
    stripes = np.sin(np.arange(32)[None, :] * (1 + np.arange(10)[:, None]) / 4)
    pixels = colour[labels] + 40 * stripes[labels][:, None, None, :]
    noisy = pixels + draws.normal(0, 25, (len(labels), 3, 32, 32))
    return noisy.clip(0, 255).astype(np.uint8), labels


def parts() -> dict[str, images.Arrays]:
    """Return both parts of the data set."""
    return {"train": arrays(TRAIN, 1), "test": arrays(TEST, 2)}


def spec() -> images.Spec:
    """Return the description of the toy data set, in the place of CIFAR-10."""
    return dataclasses.replace(
        images.CIFAR10,
        count={"train": 10 * TRAIN, "test": 10 * TEST},
        sha256={part: images.content_hash(*both) for part, both in parts().items()},
        npm=None,
        url="file:///nowhere/cifar-10-python.tar.gz",
        validation_per_class=VALIDATION,
    )


def write_sheets(folder: Path, both: dict[str, images.Arrays] | None = None) -> None:
    """Write both parts of a data set, by default the toy's, as PNG sheets with JSON labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (pixels, labels) in (both or parts()).items():
        names = images.CIFAR10.sheets[part]
        for name, rows in zip(names, np.array_split(pixels, len(names)), strict=True):
            sheet = rows.transpose(0, 2, 3, 1).reshape(len(rows), 1024, 3)
            Image.fromarray(sheet).save(folder / name)
        label_file = folder / images.CIFAR10.sheet_labels[part][-1]
        label_file.write_text(json.dumps(labels.tolist()))


def write_batches(folder: Path) -> None:
    """Write the data set as the pickled batches of the original."""
    folder = folder / images.CIFAR10.folder
    folder.mkdir(parents=True, exist_ok=True)
    for part, (pixels, labels) in parts().items():
        names = images.CIFAR10.batches[part]
        for name, rows, some in zip(
            names,
            np.array_split(pixels, len(names)),
            np.array_split(labels, len(names)),
            strict=True,
        ):
            batch = {b"data": rows.reshape(len(rows), -1), b"labels": some.tolist()}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def install() -> None:
    """Put the toy data set and scale in the place of the real ones."""
    images.SPECS["cifar10"] = spec()
    recipes.SCALES["small"] = dataclasses.replace(
        recipes.SCALES["small"], epochs=2, teacher_epochs=(1, 2)
    )


def note_steps(file: Path) -> None:
    """Append a line to a file for each training step: run, epoch, step."""
    from logit_distributions.make.train import Trainer

    plain = Trainer.one_step

    def noted(trainer: Trainer, draws: Any) -> int:
        with file.open("a") as lines:
            lines.write(f"{trainer.name} {trainer.epoch} {trainer.step}\n")
        return plain(trainer, draws)

    Trainer.one_step = noted  # type: ignore[method-assign]


if __name__ == "__main__":
    install()
    if steps := os.environ.get("TOY_STEPS"):
        note_steps(Path(steps))
    sys.exit(cli.main(sys.argv[1:]))
