"""The runner: makes a job's file, and first what it needs, unless they exist."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from logit_distributions import choice, images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job
from logit_distributions.make.capacity import capacity, manifold_settings
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.distances import distances
from logit_distributions.make.distill import own_targets, teacher_logits
from logit_distributions.make.history import epochs, log
from logit_distributions.make.logits import adversarial, logits
from logit_distributions.make.masking import masking, settings_of
from logit_distributions.make.options import Options
from logit_distributions.make.steps import theory
from logit_distributions.make.train import checkpoint, train
from logit_distributions.store.files import locked

Stage = Callable[[Job, Options], xr.Dataset | Checkpoint]

STAGES: dict[str, Stage] = {
    "train": train,
    "checkpoint": checkpoint,
    "targets": teacher_logits,
    "log": log,
    "logits": logits,
    "epochs": epochs,
    "capacity": capacity,
    "theory": theory,
    "masking": masking,
    "distances": distances,
    "adversarial": adversarial,
}
"""By kind of job: each a plain function that returns what goes into the job's one file."""


def make(job: Job, options: Options) -> Path:
    """Return a job's file, made if it is missing, after what it needs.

    No process holds a lock while it waits for another, but for that on the registry, which is held
    for one rename: needs are made before, and a stage makes nothing else.

    Raises
    ------
    OutOfTime
        If the budget is spent; all that was done is saved, and the same call goes on.
    ReproError
        If a file is there that was made by another recipe or with other settings.
    """
    if is_done(job):
        return job.path
    for need in job.needs:
        make(need, options)
    with locked(job.lock, f"{job.stage} of {job.run}", options.budget.check):
        if not is_done(job):  # another process may have been faster
            options.budget.check(f"{job.stage} of {job.run}")
            store.save(STAGES[job.kind](job, options), job.path)
            if job.kind != "train" and job.partial is not None:  # a training goes on from its own
                job.partial.unlink(missing_ok=True)
    return job.path


def is_done(job: Job) -> bool:
    """True if a job's file exists; it is entered in the registry if it is not yet.

    Raises
    ------
    ReproError
        If it is damaged, or of another recipe or other settings than the job's.
    """
    if not job.path.exists():
        return False
    if job.path.suffix == ".safetensors":
        Checkpoint.of(job)
    elif job.holds_own_targets:
        own_targets(job)
    else:
        dataset = store.open_dataset(job.path, job.kind)
        if dataset.attrs["recipe_hash"] != job.recipe.hash:
            raise ReproError(
                f"{job.path}: expected results of recipe {job.recipe.hash}, got "
                f"{dataset.attrs['recipe_hash']}; likely made with other settings: move it away, "
                "or give another folder with --data"
            )
        for setting, (wanted, got) in _settings(job, dataset).items():
            if wanted != got:
                raise ReproError(
                    f"{job.path}: expected {setting} {wanted}, got {got}; move it away, or give "
                    "another folder with --data"
                )
    store.enter(job.path)
    return True


def _settings(job: Job, dataset: xr.Dataset) -> dict[str, tuple[Any, Any]]:
    """Return what a stored dataset must agree in with the job beside the recipe: wanted and got."""
    if job.kind == "logits":
        count = images.spec_of(job.recipe.dataset).count["test"]
        asked = (recipes.evaluated_images(job.stage, job.recipe), job.recipe.images)
        wanted = min(each or count for each in (*asked, count))
        evaluation = dataclasses.asdict(recipes.evaluation(job.stage, job.recipe))
        return {
            "an evaluation by": (evaluation, json.loads(dataset.attrs["evaluation"])),
            "a number of images of": (wanted, dataset.sizes["sample"]),
        }
    if job.kind == "capacity":
        settings = dataclasses.asdict(recipes.manifolds(job.stage, job.recipe))
        stored = manifold_settings(dataset)
        return {name: (each, stored[name]) for name, each in settings.items()}
    if job.kind == "epochs":
        return {"epochs": (choice.recorded_epochs(job.recipe), dataset["epoch"].values.tolist())}
    if job.kind == "masking":
        return {"evaluations by": (recipes.masking(job.recipe), settings_of(dataset))}
    if job.kind == "targets":
        return {"passes": (job.passes, int(dataset.attrs["passes"]))}
    return {}
