"""From a checkpoint to a dataset: logits under attack, targets, logs, logits by epoch."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from logit_distributions import store
from logit_distributions.attack import Evaluation, evaluate
from logit_distributions.augment import Epoch, crop_and_flip, to_float
from logit_distributions.budget import Budget
from logit_distributions.checkpoints import Checkpoint
from logit_distributions.errors import ReproError
from logit_distributions.images import ImageSet
from logit_distributions.precision import strict_float32
from logit_distributions.randomness import key
from logit_distributions.recipes import Recipe, parse
from logit_distributions.store import files, places
from logit_distributions.training import Machine

CHUNK = {"cpu": 500, "cuda": 2000}
"""Images attacked together, by kind of device; results do not depend on it.

They take an estimated 6 GB on a GPU at width 64, where two forward and backward passes of each
are enough work to hide what starting it costs. A budget is asked for between chunks only.
"""

EPOCH_IMAGES = 10_000
"""Training images whose logits are recorded epoch by epoch."""

LOGIT_PRECISION = 1 / 1024
"""Step to which logits under attack are rounded: at most 0.1 % of a probability."""

EPOCH_PRECISION = 1 / 64
"""Step to which the logits recorded epoch by epoch are rounded, so that they compress."""


def attributes(checkpoint: Checkpoint, kind: str, data: ImageSet) -> dict[str, Any]:
    """Return what every dataset made from `checkpoint` says of its origin."""
    recipe = parse(checkpoint.recipe)
    return {
        "kind": kind,
        "run": checkpoint.run,
        "method": recipe.method,
        "dataset": recipe.dataset,
        "data_sha256": data.sha256,
        "recipe": recipe.to_json(),
        "recipe_hash": checkpoint.recipe_hash,
        "seed": checkpoint.seed,
        "scale": recipe.scale,
        "checkpoint_epoch": checkpoint.epoch,
        "checkpoint_sha256": checkpoint.weights_sha256,
        "training": json.dumps(checkpoint.settings),
        "seconds_training": sum(entry["seconds"] for entry in checkpoint.log),
        **store.provenance(),
    }


@strict_float32()
def natural_logits(model: nn.Module, images: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """Return float32 logits of uint8 images, shape (n, classes), of a model in eval mode."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 1000):
            batch = to_float(torch.from_numpy(images[start : start + 1000]).to(device))
            parts.append(model(batch).float().cpu().numpy())
    return np.concatenate(parts)


def _to_multiples(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    return (np.round(values / step) * step).astype(np.float32)


def rounded(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits at the precision at which they are stored.

    Every value goes to the nearest multiple of `LOGIT_PRECISION`, but an image whose two
    largest logits would become equal keeps its own, so that no prediction changes.

    Parameters
    ----------
    logits : array of shape (images, classes)
    """
    near = _to_multiples(logits, LOGIT_PRECISION)
    second, largest = np.sort(near, axis=1)[:, -2:].T
    return np.where((second == largest)[:, None], logits, near)


def attack(
    checkpoint: Checkpoint,
    data: ImageSet,
    settings: Evaluation,
    machine: Machine,
    budget: Budget | None = None,
    chunk: int | None = None,
) -> xr.Dataset:
    """Attack `data` and return a dataset of kind ``logits``; resumes where it was cut.

    Parameters
    ----------
    checkpoint : Checkpoint
    data, settings, machine, budget, chunk
        As in `attacked`.
    """
    model = checkpoint.model(len(data.classes))
    found = attacked(
        model, checkpoint.run, checkpoint.weights_sha256, data, settings, machine, budget, chunk
    )
    return found.assign_attrs(attributes(checkpoint, "logits", data))


def attacked(
    model: nn.Module,
    name: str,
    weights_sha256: str,
    data: ImageSet,
    settings: Evaluation,
    machine: Machine,
    budget: Budget | None = None,
    chunk: int | None = None,
) -> xr.Dataset:
    """Return the variables of a dataset of kind ``logits`` of any network.

    Logits are computed and judged in float32, then `rounded`.

    Parameters
    ----------
    model : Module
        Maps pixels in [0, 1] to logits; in evaluation mode.
    name, weights_sha256 : str
        What finished chunks are kept under, and by what they are known again.
    data : ImageSet
    settings : Evaluation
    machine : Machine
        Attacks run in float32, whatever its precision.
    budget : Budget, optional
        Asked before every chunk.
    chunk : int, optional
        Images attacked together; finished chunks survive a kill.
    """
    machine = machine.resolve()
    model = model.to(machine.device)
    size = chunk or CHUNK[machine.kind]
    partial = _Partial(name, weights_sha256, data, settings)
    with tqdm(
        total=len(data),
        initial=partial.count,
        unit="img",
        desc=f"{name} {settings.engine}",
        disable=None,
    ) as bar:
        while partial.count < len(data):
            if budget:
                budget.check(f"image {partial.count:,} of the attack on {name}")
            began = time.monotonic()
            some = data.take(np.arange(partial.count, min(partial.count + size, len(data))))
            found = evaluate(
                model,
                to_float(torch.from_numpy(some.images).to(machine.device)),
                torch.from_numpy(some.labels).to(machine.device),
                torch.from_numpy(some.index),
                settings,
            )
            partial.add(
                found.logits.cpu().numpy(),
                found.adversarial_logits.cpu().numpy(),
                found.robust.cpu().numpy(),
                time.monotonic() - began,
            )
            bar.update(len(some))
            bar.set_postfix(robust=f"{partial.robust[-1].mean():.1%}")
    return xr.Dataset(
        {
            "logits": (("sample", "class"), rounded(partial.logits)),
            "adversarial_logits": (("sample", "class"), rounded(partial.adversarial_logits)),
            "robust": (("attack", "sample"), partial.robust),
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
        },
        coords={"class": list(data.classes), "attack": list(settings.attacks)},
        attrs={
            "evaluation": json.dumps(dataclasses.asdict(settings)),
            "rounded_to": LOGIT_PRECISION,
            "seconds_attack": partial.seconds,
            **{f"attack_{k}": v for k, v in machine.describe().items()},
            "attack_precision": "float32",
        },
    )


class _Partial:
    """The chunks attacked so far, in the cache until the dataset is written."""

    def __init__(
        self, name: str, weights_sha256: str, data: ImageSet, settings: Evaluation
    ) -> None:
        self.key = f"{weights_sha256} {data.sha256} {len(data)} {settings}"
        self.path = places.cache() / "attacks" / f"{name}-{settings.engine}.npz"
        classes, attacks = len(data.classes), len(settings.attacks)
        self.logits = np.empty((0, classes), np.float32)
        self.adversarial_logits = np.empty((0, classes), np.float32)
        self.robust = np.empty((attacks, 0), bool)
        self.seconds = 0.0
        saved = _resume(self.path, self.key)
        if saved is not None:
            self.logits, self.adversarial_logits = saved["logits"], saved["adversarial"]
            self.robust, self.seconds = saved["robust"], float(saved["seconds"])

    @property
    def count(self) -> int:
        return len(self.logits)

    def add(
        self,
        logits: NDArray[np.float32],
        adversarial_logits: NDArray[np.float32],
        robust: NDArray[np.bool_],
        seconds: float,
    ) -> None:
        self.logits = np.concatenate([self.logits, logits])
        self.adversarial_logits = np.concatenate([self.adversarial_logits, adversarial_logits])
        self.robust = np.concatenate([self.robust, robust], axis=1)
        self.seconds += seconds
        with files.atomic(self.path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                key=np.array(self.key),
                logits=self.logits,
                adversarial=self.adversarial_logits,
                robust=self.robust,
                seconds=self.seconds,
            )


def _resume(path: Path, key: str) -> dict[str, NDArray[Any]] | None:
    """Return what a killed call left at `path`; None if nothing, or of other settings."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            saved = {name: file[name] for name in file.files}
        return saved if str(saved["key"]) == key else None
    except Exception as error:
        raise ReproError(
            f"{path}: expected the finished part of a run, got something unreadable "
            f"({type(error).__name__}); likely damaged: delete it to begin anew"
        ) from error


@strict_float32()
def targets(
    checkpoint: Checkpoint,
    data: ImageSet,
    passes: int,
    machine: Machine,
    budget: Budget | None = None,
    batch_size: int = 128,
) -> xr.Dataset:
    """Return each training image's logits, averaged over augmented passes (paper, A.3).

    As in the paper a target "varies based on the current batch statistics and data
    augmentations", so the teacher normalises with the statistics of each batch, batches
    and augmentations are drawn anew for every pass, and the passes are averaged. The
    teacher itself is not changed. Finished passes survive a kill.

    Parameters
    ----------
    checkpoint : Checkpoint
        The teacher.
    data : ImageSet
    passes : int
    machine : Machine
    budget : Budget, optional
        Asked before every pass.
    batch_size : int
    """
    machine = machine.resolve()
    path = targets_file(checkpoint, passes)
    if path.exists():
        saved = store.open_dataset(path, "targets")
        _same_weights(saved, checkpoint, path)
        if saved.attrs["passes"] == passes:
            return saved
    model = _in_batch_mode(checkpoint, len(data.classes)).to(machine.device)
    images = torch.from_numpy(data.images).to(machine.device)
    total = np.zeros((len(data), len(data.classes)))
    done, seconds = 0, 0.0
    partial = path.with_suffix(".partial.npz")
    saved_passes = _resume(partial, checkpoint.weights_sha256)
    if saved_passes is not None:
        total, done = saved_passes["total"], int(saved_passes["done"])
        seconds = float(saved_passes["seconds"])
    name = checkpoint.run
    sums = torch.from_numpy(total).to(machine.device)
    with tqdm(
        total=passes * len(data),
        initial=done * len(data),
        unit="img",
        unit_scale=True,
        desc=f"{name} targets",
        disable=None,
    ) as bar:
        for number in range(done, passes):
            if budget:
                budget.check(f"pass {number + 1} of {name} for targets")
            began = time.monotonic()
            draws = Epoch(len(data), "targets", name, number, device=machine.device)
            for start in range(0, len(data), batch_size):
                index, shift, flip = draws.batch(start, start + batch_size)
                with torch.no_grad():
                    logits = model(to_float(crop_and_flip(images[index], shift, flip)))
                sums[index] += logits.double()
                bar.update(len(index))
            total = sums.cpu().numpy()
            seconds += time.monotonic() - began
            with files.atomic(partial) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    key=np.array(checkpoint.weights_sha256),
                    total=total,
                    done=number + 1,
                    seconds=seconds,
                )
    dataset = xr.Dataset(
        {
            "logits": (("sample", "class"), (total / passes).astype(np.float32)),
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
        },
        coords={"class": list(data.classes)},
        attrs={
            **attributes(checkpoint, "targets", data),
            "passes": passes,
            "seconds_targets": seconds,
        },
    )
    store.write(dataset, path)
    partial.unlink(missing_ok=True)
    return store.open_dataset(path, "targets")


def targets_file(checkpoint: Checkpoint, passes: int) -> Path:
    """Path, in the cache, of the averaged logits of a teacher."""
    name = f"{checkpoint.run}-epoch{checkpoint.epoch}-passes{passes}.nc"
    return places.cache() / "targets" / name


def _same_weights(saved: xr.Dataset, checkpoint: Checkpoint, path: Path) -> None:
    if saved.attrs["checkpoint_sha256"] != checkpoint.weights_sha256:
        raise ReproError(
            f"{path}: made from other weights than those of {checkpoint.run}; likely the "
            "teacher was trained again: delete the file"
        )


def _in_batch_mode(checkpoint: Checkpoint, classes: int) -> nn.Module:
    """Return the network normalising by batch statistics, with running ones left alone."""
    model = checkpoint.model(classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 0.0
    return model


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
        top = _to_multiples(np.sort(logits, axis=1)[:, :-3:-1], EPOCH_PRECISION)
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
