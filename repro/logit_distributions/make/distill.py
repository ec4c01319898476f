"""Distillation: a teacher's averaged logits, a student's targets."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn
from tqdm import tqdm

from logit_distributions import store
from logit_distributions.errors import ReproError
from logit_distributions.images import ImageSet
from logit_distributions.make.augment import Epoch, crop_and_flip, to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes
from logit_distributions.make.options import Budget
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.train import Machine
from logit_distributions.store import places
from logit_distributions.store.files import atomic, resume


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
    saved_passes = resume(partial, checkpoint.weights_sha256)
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
            with atomic(partial) as temporary, temporary.open("wb") as file:
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
