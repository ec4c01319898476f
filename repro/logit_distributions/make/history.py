"""Stages ``log`` and ``epochs``: what a training was like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm

from logit_distributions import store
from logit_distributions.images import ImageSet
from logit_distributions.make.checkpoint import Checkpoint, attributes
from logit_distributions.make.logits import to_multiples
from logit_distributions.make.network import natural_logits
from logit_distributions.make.randomness import key
from logit_distributions.make.train import Machine
from logit_distributions.recipes import Recipe

EPOCH_IMAGES = 10_000
"""Training images whose logits are recorded epoch by epoch."""

EPOCH_PRECISION = 1 / 64
"""Step to which the logits recorded epoch by epoch are rounded, so that they compress."""


def log(
    checkpoint: Checkpoint, recipe: Recipe, data: ImageSet, extra: dict[str, Any]
) -> xr.Dataset:
    """Return the training log of a finished run as a dataset of kind ``log``."""
    entries = checkpoint.log
    epochs = np.array([int(entry["epoch"]) for entry in entries], np.int32)
    return xr.Dataset(
        {
            name: ("epoch", np.array([entry.get(name, np.nan) for entry in entries], np.float64))
            for name in store.KINDS["log"]
        },
        coords={"epoch": epochs},
        attrs={
            **attributes(checkpoint, "log", data),
            "epochs": recipe.epochs,
            "training_images": len(data),
            **extra,
        },
    )


def by_epoch(
    checkpoints: Sequence[Checkpoint], train: ImageSet, test: ImageSet, machine: Machine
) -> xr.Dataset:
    """Return the two largest logits of many images after every kept epoch, kind ``epochs``.

    In evaluation mode, without augmentation. Of `train`, at most `EPOCH_IMAGES` images
    count, drawn at random but the same for every run; of `test` all. Values are rounded to
    `EPOCH_PRECISION`.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
        Of one run, in the order of epochs.
    train, test : ImageSet
    machine : Machine
    """
    machine = machine.resolve()
    draws = np.random.default_rng(key("images recorded by epoch", train.sha256))
    chosen = draws.choice(len(train), min(EPOCH_IMAGES, len(train)), replace=False)
    train = train.take(np.sort(chosen))
    images = np.concatenate([train.images, test.images])
    largest, second, prediction = [], [], []
    last = checkpoints[-1]
    for checkpoint in tqdm(checkpoints, unit="epoch", desc=f"{last.run} by epoch", disable=None):
        model = checkpoint.model(len(train.classes)).to(machine.device)
        logits = natural_logits(model, images, machine.device)
        top = to_multiples(np.sort(logits, axis=1)[:, :-3:-1], EPOCH_PRECISION)
        largest.append(top[:, 0])
        second.append(top[:, 1])
        prediction.append(logits.argmax(1).astype(np.int16))
    return xr.Dataset(
        {
            "largest": (("epoch", "sample"), np.stack(largest)),
            "second": (("epoch", "sample"), np.stack(second)),
            "prediction": (("epoch", "sample"), np.stack(prediction)),
            "label": ("sample", np.concatenate([train.labels, test.labels]).astype(np.int16)),
            "index": ("sample", np.concatenate([train.index, test.index]).astype(np.int32)),
            "test": ("sample", np.repeat([False, True], [len(train), len(test)])),
        },
        coords={
            "epoch": np.array([checkpoint.epoch for checkpoint in checkpoints], np.int32),
            "class": list(train.classes),
        },
        attrs={
            **attributes(last, "epochs", train),
            "test_data_sha256": test.sha256,
            "checkpoints_sha256": json.dumps([each.weights_sha256 for each in checkpoints]),
            "rounded_to": EPOCH_PRECISION,
            "mode": "evaluation mode, no augmentation",
        },
    )
