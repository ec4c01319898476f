"""Stage ``targets``: a teacher's averaged logits; a student's targets and its loss."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from logit_distributions import images, store
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import ImageSet
from logit_distributions.jobs import PUBLISHED_TARGETS, Job, teachers
from logit_distributions.make.augment import Epoch, crop_and_flip, to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.logits import rounded
from logit_distributions.make.options import Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.randomness import key
from logit_distributions.manipulations import MANIPULATIONS
from logit_distributions.progress import Bar
from logit_distributions.recipes import OWN, Distillation, recipe
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
    if job.holds_own_targets:
        raise ReproError(
            f"{job.path}: no such targets; 'logitdist adopt --targets FILE NAME' keeps them"
        )
    if job.stage == PUBLISHED_TARGETS:
        return published(job)
    checkpoint = Checkpoint.of(job.needs[0])
    device = options.machine.resolve().device
    name, passes = job.run, job.passes
    data = images.load(job.recipe.dataset, "train", options.images, job.recipe.images)
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
    teacher, *partners = (_targets(need) for need in teachers(student))
    logits, labels = teacher["logits"].values, teacher["label"].values.astype(np.int64)
    partner = partners[0]["logits"].values if partners else None
    draw = key("manipulation", student.run)
    manipulated = MANIPULATIONS[how.manipulation](logits, labels, how.k, draw, partner)
    weights = [each.attrs.get("checkpoint_sha256", "") for each in (teacher, *partners)]
    return manipulated.astype(np.float32), {
        "teacher_run": teacher.attrs["run"],
        **({"teacher_checkpoint_sha256": " ".join(weights)} if all(weights) else {}),
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
    teacher = _targets(teachers(student)[0])
    right = teacher["logits"].values.argmax(1) == teacher["label"].values
    return np.flatnonzero(right)


def _targets(job: Job) -> xr.Dataset:
    """Open targets; refuse those of other weights than the teacher has, where it is still there."""
    if job.holds_own_targets:
        return own_targets(job).isel(sample=slice(job.recipe.images))
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


PUBLISHED_PRECISION = 1 / 64
"""Step to which published targets are rounded: some 1 MB for the 45,000 images of CIFAR-10."""


def published(job: Job) -> xr.Dataset:
    """Return a copy of targets for readers, rounded; students train on those of the cache.

    Where rounding would make the two largest logits of an image equal, it keeps its own, so that
    nobody errs in the copy who does not err.
    """
    targets = store.open_dataset(job.needs[0].path, "targets")
    values = rounded(targets["logits"].values, PUBLISHED_PRECISION)
    copy = targets.assign(logits=(("sample", "class"), values))
    return copy.assign_attrs(rounded_to=PUBLISHED_PRECISION)


ORIGIN = {"checkpoint_epoch": 0, "passes": 0, "seconds_targets": 0.0}
"""What is recorded of targets that no checkpoint gave."""


def adopt_targets(
    name: str, file: Path, dataset: str = "cifar10", folder: Path | None = None
) -> tuple[str, Path]:
    """Keep targets of one's own, from which a student of a recipe then learns.

    Parameters
    ----------
    name : str
        Letters, digits and underscores.
    file : Path
        NetCDF with a variable ``logits`` (sample, class): one vector for each training image, in
        the order of ``images.load(dataset, "train")``. A variable ``index`` or ``label`` is held
        against that order; the published targets in ``data/targets`` have both.
    dataset : str
        What the images are of.
    folder : Path, optional
        A local copy of the images, as in `images.load`.

    Returns
    -------
    str, Path
        Name of the student's recipe, which ends with a hash of the targets; the file in the cache.

    Raises
    ------
    ReproError
        If the name is bad, or the targets are not one finite vector for each training image.
    """
    if not re.fullmatch(r"\w+", name):
        raise ReproError(f"name: expected letters, digits and underscores, got {name!r}")
    data = images.load(dataset, "train", folder)
    logits = _given_logits(file, data)
    student = recipe(f"{OWN}{name}-{targets_hash(logits)}", "small", dataset)
    (job,) = teachers(Job("train", student, 0, student.epochs))
    kept = xr.Dataset(
        {
            "logits": (("sample", "class"), logits),
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
        },
        coords={"class": list(data.classes)},
        attrs={
            "kind": "targets", "run": job.path.stem, "method": "given", "dataset": dataset,
            "data_sha256": data.sha256, "recipe": job.recipe.to_json(),
            "recipe_hash": job.recipe.hash, "seed": 0, "scale": "given", **ORIGIN,
            **store.provenance(),
        },
    )  # fmt: skip
    store.write(kept, job.path)
    return student.name, job.path


def targets_hash(logits: NDArray[np.float32]) -> str:
    """Return the first eight hexadecimal digits of the SHA-256 of targets."""
    return hashlib.sha256(np.ascontiguousarray(logits, "<f4").tobytes()).hexdigest()[:8]


def own_targets(job: Job) -> xr.Dataset:
    """Open adopted targets, those of the name's hash.

    Raises
    ------
    ReproError
        If the file holds others.
    """
    kept = store.open_dataset(job.path, "targets")
    got = targets_hash(kept["logits"].values)
    if got not in job.recipe.name.split("-"):
        raise ReproError(f"{job.path}: expected the targets that were adopted, got those of {got}")
    return kept


def _given_logits(file: Path, data: ImageSet) -> NDArray[np.float32]:
    """Return the logits in a file, one vector for each of these images, or refuse them."""
    try:
        given = store.read_file(file)
    except Exception as error:
        raise ReproError(f"{file}: cannot be read as netCDF ({brief(error)})") from error
    shape = (len(data), len(data.classes))
    if "logits" not in given or given["logits"].dims[:1] != ("sample",):
        raise ReproError(f"{file}: expected a variable logits (sample, class), got {list(given)}")
    logits = given["logits"].values
    if logits.shape != shape or logits.dtype.kind != "f":
        raise ReproError(
            f"{file}: expected one vector of {shape[1]} logits for each of {shape[0]:,} training "
            f"images, floats of shape {shape}, got {logits.dtype} of shape {logits.shape}"
        )
    for name, own in (("index", data.index), ("label", data.labels)):
        if name in given and (wrong := int((given[name].values != own).sum())):
            raise ReproError(
                f"{file}: {name} differs from the training images' in {wrong:,} places; likely in "
                "another order, or of the whole part with the images set aside for validation"
            )
    narrow = logits.astype(np.float32)
    if bad := int((~np.isfinite(narrow)).any(1).sum()):
        raise ReproError(f"{file}: logits of {bad:,} images are NaN or infinite")
    return narrow


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
