"""Stages ``log`` and ``epochs``: what a training was like."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

from logit_distributions import choice, images, store
from logit_distributions.jobs import Job
from logit_distributions.make import distill
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.logits import to_multiples
from logit_distributions.make.network import natural_logits
from logit_distributions.make.options import Options
from logit_distributions.make.randomness import key
from logit_distributions.progress import Bar

EPOCH_IMAGES = 10_000
"""Training images whose logits are recorded epoch by epoch."""

EPOCH_PRECISION = 1 / 64
"""Step to which the logits recorded epoch by epoch are rounded, so that they compress."""


def log(job: Job, options: Options) -> xr.Dataset:
    """Return the log of a finished training, and of a student what its targets were."""
    last = Checkpoint.of(job.needs[0])
    recipe = job.recipe
    about = {} if recipe.distillation is None else distill.student_targets(job)[1]
    data = images.load(recipe.dataset, "train", options.images, recipe.images)
    epochs = np.array([int(entry["epoch"]) for entry in last.log], np.int32)
    return xr.Dataset(
        {
            name: ("epoch", np.array([entry.get(name, np.nan) for entry in last.log], np.float64))
            for name in store.KINDS["log"]
        },
        coords={"epoch": epochs},
        attrs={
            **last.attributes("log", data),
            "epochs": recipe.epochs,
            "training_images": len(data),
            **about,
            "evaluated_epoch": choice.evaluated_epoch(recipe, last.log),
            "evaluated_because": choice.reason(recipe),
        },
    )


def epochs(job: Job, options: Options) -> xr.Dataset:
    """Return the two largest logits of many images after every recorded epoch.

    In evaluation mode, without augmentation. Of the training part, at most `EPOCH_IMAGES` images
    count, drawn at random but the same for every run; of the test part all. Values are rounded to
    `EPOCH_PRECISION`.
    """
    recipe, machine = job.recipe, options.machine.resolve()
    train, test = (
        images.load(recipe.dataset, part, options.images, recipe.images)
        for part in ("train", "test")
    )
    draws = np.random.default_rng(key("images recorded by epoch", train.sha256))
    chosen = draws.choice(len(train), min(EPOCH_IMAGES, len(train)), replace=False)
    train = train.take(np.sort(chosen))
    pixels = np.concatenate([train.images, test.images])
    largest, second, prediction, weights = [], [], [], []
    recorded = choice.recorded_epochs(recipe)
    for epoch in Bar(recorded, unit="epoch", desc=f"{job.run} by epoch"):
        options.budget.check(f"epoch {epoch} of {job.run} by epoch")
        checkpoint = Checkpoint.of(Job("train", recipe, job.seed, epoch))
        model = checkpoint.model(len(train.classes)).to(machine.device)
        logits = natural_logits(model, pixels, machine.device)
        top = to_multiples(np.sort(logits, axis=1)[:, :-3:-1], EPOCH_PRECISION)
        largest.append(top[:, 0])
        second.append(top[:, 1])
        prediction.append(logits.argmax(1).astype(np.int16))
        weights.append(checkpoint.weights_sha256)
    return xr.Dataset(
        {
            "largest": (("epoch", "sample"), np.stack(largest)),
            "second": (("epoch", "sample"), np.stack(second)),
            "prediction": (("epoch", "sample"), np.stack(prediction)),
            "label": ("sample", np.concatenate([train.labels, test.labels]).astype(np.int16)),
            "index": ("sample", np.concatenate([train.index, test.index]).astype(np.int32)),
            "test": ("sample", np.repeat([False, True], [len(train), len(test)])),
        },
        coords={"epoch": np.array(recorded, np.int32), "class": list(train.classes)},
        attrs={
            **checkpoint.attributes("epochs", train),
            "test_data_sha256": test.sha256,
            "checkpoints_sha256": json.dumps(weights),
            "rounded_to": EPOCH_PRECISION,
            "mode": "evaluation mode, no augmentation",
        },
    )
