"""The runs as a graph: teacher, targets, student, attack, dataset; what is done is skipped."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from logit_distributions import foreign, store
from logit_distributions import images as image_files
from logit_distributions.capacity import Settings
from logit_distributions.errors import ReproError
from logit_distributions.make import capacity as manifolds
from logit_distributions.make import distill, history
from logit_distributions.make import logits as attacked_logits
from logit_distributions.make.attack import Evaluation
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.options import Budget
from logit_distributions.make.randomness import key
from logit_distributions.make.train import Machine, best_epoch, recorded_epochs, train
from logit_distributions.manipulations import MANIPULATIONS
from logit_distributions.recipes import FIGURE5, Recipe, base, evaluated_images, recipe
from logit_distributions.recipes import plan as recipe_plan
from logit_distributions.schedule import Job, known_epoch
from logit_distributions.store import files, places
from logit_distributions.store.places import epoch_file

KEPT_SEED = 0
KEPT_RECIPES = frozenset(recipe_plan("table2", "small")) | set(FIGURE5)
"""The runs whose checkpoints are stored beside the datasets: Table 2's and Figure 5's."""
KEPT_SCALE = "small"
"""Checkpoints of others are too large to be stored with the results."""


@dataclass(frozen=True)
class Options:
    """How to run, as opposed to what: nothing here changes what a recipe means."""

    machine: Machine = field(default_factory=Machine)
    images: Path | None = None
    save_every: float = 60.0
    budget: Budget = field(default_factory=Budget)


def do(job: Job, options: Options) -> Path:
    """Return the path of the dataset that a job makes, making all that it needs."""
    options.budget.check(f"{job.kind} of {job.run}")
    if job.recipe.method == "given" and job.kind in ("train", "epochs"):
        raise ReproError(f"{job.run}: is given, so it is not trained and has no epochs")
    if job.kind == "attack":
        return recorded(job.recipe, job.seed, options)
    if job.kind == "epochs":
        return recorded_by_epoch(job.recipe, job.seed, options)
    if job.kind == "manifolds":
        return measured(job.recipe, job.seed, options, Settings.planned(job.recipe))
    if not _is_done(job.path, job.recipe):
        trained(job.recipe, job.seed, options, to_the_end=True)
    return job.path


def stored_checkpoint(run: str) -> Path:
    """Path of a checkpoint that is stored with the datasets."""
    return places.data() / "checkpoints" / f"{run}.safetensors"


def trained(
    wanted: Recipe,
    seed: int,
    options: Options,
    *,
    epoch: int | None = None,
    to_the_end: bool = False,
) -> Checkpoint:
    """Return the checkpoint of a run that is evaluated and taught from, training if need be.

    That is the last epoch, but for adversarial training the one with the best trade-off
    between natural and adversarial accuracy on the validation images, if there are any (paper,
    section 3), or epoch 40 at the scale at which the paper found it. A run is trained no
    further than is asked for; its log is stored once it is at its end. A process that wants what
    another is training waits for it. A given network is taken as it is.

    Parameters
    ----------
    wanted : Recipe
    seed : int
    options : Options
    epoch : int, optional
        Return the checkpoint after this epoch instead.
    to_the_end : bool
        Train all epochs, even if an earlier one is returned.
    """
    if wanted.method == "given":
        return foreign.adopted(wanted, seed)
    known = epoch or known_epoch(wanted)
    stored = stored_checkpoint(wanted.run(seed))
    if stored.exists() and not to_the_end:
        checkpoint = Checkpoint.load(stored)
        if checkpoint.recipe_hash == wanted.hash and epoch in (None, checkpoint.epoch):
            return checkpoint
    log = store.path_of("log", wanted.run(seed))
    logged = _is_done(log, wanted)
    extra: dict[str, object] = {}
    targets = None
    if wanted.distillation is not None and not logged:
        targets, extra = student_targets(wanted, seed, options)
    last = _train(wanted, seed, options, targets, None if to_the_end else known)
    chosen = known or best_epoch(last.log)
    checkpoint = last
    if chosen != last.epoch:
        checkpoint = Checkpoint.load(epoch_file(wanted, seed, chosen))
    if not logged and last.epoch == wanted.epochs:
        extra["evaluated_epoch"] = known_epoch(wanted) or best_epoch(last.log)
        extra["evaluated_because"] = _reason(wanted)
        data = _images(wanted, "train", options)
        with store.registering(log):
            store.write(history.log(last, wanted, data, extra), log)
    kept = wanted.scale == KEPT_SCALE and wanted.name in KEPT_RECIPES and seed == KEPT_SEED
    if kept and epoch is None:
        with store.registering(stored):
            checkpoint.save(stored)
    return checkpoint


def _train(
    wanted: Recipe,
    seed: int,
    options: Options,
    targets: np.ndarray | None = None,
    until: int | None = None,
) -> Checkpoint:
    """Train a run, or wait for the process that does."""
    with files.locked(places.run_folder(wanted, seed)):
        return train(
            wanted,
            seed,
            machine=options.machine,
            images=options.images,
            targets=targets,
            save_every=options.save_every,
            until=until,
            budget=options.budget,
        )


def _images(wanted: Recipe, part: str, options: Options) -> image_files.ImageSet:
    return image_files.load(wanted.dataset, part, options.images, wanted.images)


def _reason(wanted: Recipe) -> str:
    if wanted.pgd is None:
        return "last epoch"
    if base(wanted.scale) == "paper":
        return "the paper's choice, section 3"
    if not image_files.spec_of(wanted.dataset).validation_per_class:
        return "last epoch: no images are set aside to choose by"
    return "largest sum of natural and PGD accuracy on the validation images"


def teacher_logits(name: str, student: Recipe, seed: int, options: Options) -> xr.Dataset:
    """Return the averaged training logits of a student's teacher, by name of its recipe."""
    how = student.distillation
    assert how is not None
    teacher = recipe(name, student.scale, student.dataset)
    checkpoint = trained(teacher, seed, options, epoch=how.epoch if name == how.teacher else None)
    data = _images(student, "train", options)
    return distill.targets(checkpoint, data, how.passes, options.machine, options.budget)


def student_targets(
    student: Recipe, seed: int, options: Options
) -> tuple[np.ndarray, dict[str, object]]:
    """Return the manipulated targets of a student, and what to record of them."""
    how = student.distillation
    assert how is not None
    if how.manipulation not in MANIPULATIONS:
        raise ReproError(
            f"unknown manipulation {how.manipulation!r}: expected one of {', '.join(MANIPULATIONS)}"
        )
    teacher = teacher_logits(how.teacher, student, seed, options)
    partner = None
    if how.partner is not None:
        partner = teacher_logits(how.partner, student, seed, options)["logits"].values
    logits, labels = teacher["logits"].values, teacher["label"].values.astype(np.int64)
    draw = key("manipulation", student.run(seed))
    manipulated = MANIPULATIONS[how.manipulation](logits, labels, how.k, draw, partner)
    return manipulated.astype(np.float32), {
        "teacher_run": teacher.attrs["run"],
        "teacher_epoch": teacher.attrs["checkpoint_epoch"],
        "teacher_training_error": float((logits.argmax(1) != labels).mean()),
        "target_error": float((manipulated.argmax(1) != labels).mean()),
        "target_passes": how.passes,
        "seconds_targets": teacher.attrs["seconds_targets"],
    }


def recorded(
    wanted: Recipe,
    seed: int,
    options: Options,
    settings: Evaluation | None = None,
    limit: int | None = None,
) -> Path:
    """Return the path of the logit dataset of a run, making all that it needs.

    The main evaluation, with the default settings in the recipe's ball on all test images (a
    sweep's on the first `recipes.SWEEP_IMAGES`), is stored under the run's name; any other
    in a folder of the engine's name.

    Raises
    ------
    ReproError
        If what is stored there was evaluated with other settings or on other images.
    """
    settings = settings or Evaluation(eps=wanted.eps)
    path = store.path_of("logits", wanted.run(seed))
    if settings == Evaluation(eps=wanted.eps) and limit is None:
        limit = evaluated_images(wanted)
    else:
        path = store.path_of(f"logits/{settings.engine}", wanted.run(seed))
    if _is_done(path, wanted):
        _check_evaluation(path, wanted, settings, limit)
        return path
    checkpoint = trained(wanted, seed, options)
    data = _images(wanted, "test", options)
    if limit is not None:
        data = data.take(np.arange(min(limit, len(data))))
    dataset = attacked_logits.attack(checkpoint, data, settings, options.machine, options.budget)
    with store.registering(path):
        store.write(dataset, path)
    return path


def recorded_by_epoch(wanted: Recipe, seed: int, options: Options) -> Path:
    """Return the path of a run's logits by epoch, making all that it needs.

    The checkpoints of all kept epochs are in the cache only: where they are gone, but the
    record is wanted, the run is trained again.
    """
    path = store.path_of("epochs", wanted.run(seed))
    if _is_done(path, wanted):
        return path
    _train(wanted, seed, options)
    checkpoints = [
        Checkpoint.load(epoch_file(wanted, seed, epoch)) for epoch in recorded_epochs(wanted)
    ]
    training, test = _images(wanted, "train", options), _images(wanted, "test", options)
    dataset = history.by_epoch(checkpoints, training, test, options.machine)
    with store.registering(path):
        store.write(dataset, path)
    return path


def measured(
    wanted: Recipe, seed: int, options: Options, settings: Settings, threads: int | None = None
) -> Path:
    """Return the path of the capacities of a run's manifolds, making all that they need.

    Raises
    ------
    ReproError
        If what is stored there was measured with other settings.
    """
    path = manifolds.path_of(wanted.run(seed), settings.kind)
    if _is_done(path, wanted):
        stored = store.open_dataset(path, "capacity").attrs
        for name, value in dataclasses.asdict(settings).items():
            if stored[f"manifold_{name}"] != value:
                raise ReproError(
                    f"{path}: expected {name} {value}, got {stored[f'manifold_{name}']}; move it "
                    "away, or give another folder with --data"
                )
        return path
    checkpoint = trained(wanted, seed, options)
    try:
        data = manifolds.stored_images(wanted.dataset)
    except ReproError:  # the same images, from the whole data set
        data = _images(wanted, "test", options)
        data = data.take(data.index[: image_files.SHEET_IMAGES])
    dataset = manifolds.recorded(checkpoint, data, settings, options.machine, threads)
    with store.registering(path):
        store.write(dataset, path)
    return path


def _check_evaluation(path: Path, wanted: Recipe, settings: Evaluation, limit: int | None) -> None:
    stored = store.open_dataset(path, "logits")
    count = wanted.images or image_files.spec_of(wanted.dataset).count["test"]
    expected = (dataclasses.asdict(settings), min(limit or count, count))
    got = (json.loads(stored.attrs["evaluation"]), stored.sizes["sample"])
    if got != expected:
        raise ReproError(
            f"{path}: expected an evaluation by {expected[0]} of {expected[1]:,} images, got "
            f"{got[0]} of {got[1]:,}; move it away, or give another folder with --data"
        )


def _is_done(path: Path, wanted: Recipe) -> bool:
    if not path.exists():
        return False
    found = store.open_dataset(path).attrs["recipe_hash"]
    if found != wanted.hash:
        raise ReproError(
            f"{path}: expected results of recipe {wanted.hash}, got {found}; likely made with "
            "other settings: move it away, or give another folder with --data"
        )
    if store.registry(path) is None:
        with store.registering(path):
            pass
    return True
