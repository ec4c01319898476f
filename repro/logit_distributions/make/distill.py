"""Stage ``targets``: a teacher's averaged logits; a student's targets and its loss."""

from __future__ import annotations

import time

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from logit_distributions import images, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job, teachers
from logit_distributions.make.augment import Epoch, crop_and_flip, to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.options import Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.randomness import key
from logit_distributions.manipulations import MANIPULATIONS
from logit_distributions.progress import Bar
from logit_distributions.recipes import Distillation
from logit_distributions.store import files

BATCH = 128


@strict_float32()
def teacher_logits(job: Job, options: Options) -> xr.Dataset:
    """Return each training image's logits, averaged over augmented passes (paper, A.3).

    As in the paper a target "varies based on the current batch statistics and data
    augmentations", so the teacher normalises with the statistics of each batch, batches
    and augmentations are drawn anew for every pass, and the passes are averaged. The
    teacher itself is not changed. Finished passes survive a kill.
    """
    checkpoint = Checkpoint.of(job.needs[0])
    device = options.machine.resolve().device
    recipe, name, passes = job.recipe, job.run, job.passes
    data = images.load(recipe.dataset, "train", options.images, recipe.images)
    model = in_batch_mode(checkpoint, len(data.classes)).to(device)
    pixels = torch.from_numpy(data.images).to(device)
    total = np.zeros((len(data), len(data.classes)))
    done, seconds = 0, 0.0
    assert job.partial is not None
    saved = files.resume(job.partial, checkpoint.weights_sha256)
    if saved is not None:
        total, done, seconds = saved["total"], int(saved["done"]), float(saved["seconds"])
    sums = torch.from_numpy(total).to(device)
    with Bar(
        total=passes * len(data),
        initial=done * len(data),
        unit="img",
        unit_scale=True,
        desc=f"{name} targets",
    ) as bar:
        for number in range(done, passes):
            options.budget.check(f"pass {number + 1} of {name} for targets")
            began = time.monotonic()
            draws = Epoch(len(data), "targets", name, number, device=device)
            for start in range(0, len(data), BATCH):
                index, shift, flip = draws.batch(start, start + BATCH)
                with torch.no_grad():
                    logits = model(to_float(crop_and_flip(pixels[index], shift, flip)))
                sums[index] += logits.double()
                bar.update(len(index))
            total = sums.cpu().numpy()
            seconds += time.monotonic() - began
            files.keep(
                job.partial,
                checkpoint.weights_sha256,
                total=total,
                done=number + 1,
                seconds=seconds,
            )
    return xr.Dataset(
        {
            "logits": (("sample", "class"), (total / passes).astype(np.float32)),
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
        },
        coords={"class": list(data.classes)},
        attrs={
            **checkpoint.attributes("targets", data),
            "passes": passes,
            "seconds_targets": seconds,
        },
    )


def in_batch_mode(checkpoint: Checkpoint, classes: int) -> nn.Module:
    """Return the network normalising by batch statistics, with running ones left alone."""
    model = checkpoint.model(classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = 0.0
    return model


def student_targets(student: Job) -> tuple[NDArray[np.float32], dict[str, object]]:
    """Return a student's manipulated targets, and what to record of them.

    They are made of its teachers' files, which must be those of today's teachers.

    Raises
    ------
    ReproError
        If there is no such manipulation, or targets were made from other weights.
    """
    how = student.recipe.distillation
    assert how is not None
    if how.manipulation not in MANIPULATIONS:
        raise ReproError(
            f"unknown manipulation {how.manipulation!r}: expected one of {', '.join(MANIPULATIONS)}"
        )
    teacher, *partners = (_of_these_weights(need) for need in teachers(student))
    logits, labels = teacher["logits"].values, teacher["label"].values.astype(np.int64)
    partner = partners[0]["logits"].values if partners else None
    draw = key("manipulation", student.run)
    manipulated = MANIPULATIONS[how.manipulation](logits, labels, how.k, draw, partner)
    return manipulated.astype(np.float32), {
        "teacher_run": teacher.attrs["run"],
        "teacher_epoch": teacher.attrs["checkpoint_epoch"],
        "teacher_training_error": float((logits.argmax(1) != labels).mean()),
        "target_error": float((manipulated.argmax(1) != labels).mean()),
        "target_passes": how.passes,
        "seconds_targets": teacher.attrs["seconds_targets"],
    }


def shown_images(student: Job) -> NDArray[np.intp] | None:
    """Return which training images a student is shown; None for all."""
    how = student.recipe.distillation
    if how is None or how.manipulation != "drop-errors":
        return None
    teacher = _of_these_weights(teachers(student)[0])
    right = teacher["logits"].values.argmax(1) == teacher["label"].values
    return np.flatnonzero(right)


def _of_these_weights(job: Job) -> xr.Dataset:
    """Open targets; refuse those of other weights than the teacher has, where it is still there."""
    saved = store.open_dataset(job.path, "targets")
    (teacher,) = job.needs
    if teacher.path.exists():
        weights = Checkpoint.of(teacher).weights_sha256
        if saved.attrs["checkpoint_sha256"] != weights:
            raise ReproError(
                f"{job.path}: made from other weights than those of {job.run}; likely the "
                "teacher was trained again: delete the file"
            )
    return saved


def loss(logits: Tensor, targets: Tensor, how: Distillation) -> Tensor:
    """Return how far a batch of logits is from its targets.

    ``"l1"``: the mean absolute difference over batch and classes; ``"kl"``: the KL divergence at
    a temperature T, summed over classes, averaged over the batch, times T².

    Parameters
    ----------
    logits, targets : Tensor, shape (n, classes)
    how : Distillation
    """
    if how.loss == "l1":
        return functional.l1_loss(logits, targets, reduction="mean")
    t = how.temperature
    divergence = functional.kl_div(
        functional.log_softmax(logits / t, 1),
        functional.log_softmax(targets / t, 1),
        reduction="batchmean",
        log_target=True,
    )
    return t * t * divergence
