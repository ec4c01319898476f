"""Stage ``logits``: attack the network that stands for a run, keep its logits."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from logit_distributions import images, recipes
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job
from logit_distributions.make.attack import verdicts
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes_of_yours
from logit_distributions.make.network import check_outputs, load
from logit_distributions.make.options import Budget, Options
from logit_distributions.recipes import Evaluation
from logit_distributions.store import files

CHUNK = {"cpu": 500, "cuda": 2000}
"""Images attacked together, by kind of device; results do not depend on it.

They take an estimated 6 GB on a GPU at width 64, where two forward and backward passes of each
are enough work to hide what starting it costs. A chunk that the budget cuts is begun anew.
"""

LOGIT_PRECISION = 1 / 1024
"""Step to which logits under attack are rounded: at most 0.1 % of a probability."""


def to_multiples(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Return values rounded to the nearest multiple of `step`."""
    return (np.round(values / step) * step).astype(np.float32)


def rounded(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits at the precision at which they are stored.

    Every value goes to the nearest multiple of `LOGIT_PRECISION`, but an image whose two
    largest logits would become equal keeps its own, so that no prediction changes.

    Parameters
    ----------
    logits : array of shape (images, classes)
    """
    near = to_multiples(logits, LOGIT_PRECISION)
    second, largest = np.sort(near, axis=1)[:, -2:].T
    return np.where((second == largest)[:, None], logits, near)


def logits(job: Job, options: Options) -> xr.Dataset:
    """Attack test images with the network that stands for a run, and record its logits.

    The stage itself attacks them in the recipe's ball on all test images (of a sweep the first
    ones); ``logits/ENGINE`` the first `recipes.VERIFIED_IMAGES`, to verify.
    """
    recipe = job.recipe
    checkpoint = Checkpoint.of(job.needs[0])
    data = images.load(recipe.dataset, "test", options.images, recipe.images)
    count = min(recipes.evaluated_images(job.stage, recipe) or len(data), len(data))
    attacked = attack(
        checkpoint.model(len(data.classes)),
        data.take(np.arange(count)),
        recipes.evaluation(job.stage, recipe),
        options,
        (job.run, checkpoint.weights_sha256),
        job.partial,
    )
    return attacked.assign_attrs(checkpoint.attributes("logits", data))


def attack(
    model: nn.Module,
    data: ImageSet,
    settings: Evaluation,
    options: Options,
    name: tuple[str, str],
    partial: Path | None = None,
) -> xr.Dataset:
    """Return the variables of a dataset of kind ``logits`` of any network.

    Logits are computed and judged in float32, whatever the precision of training, then `rounded`.

    Parameters
    ----------
    model : Module
        Maps pixels in [0, 1] to logits; in evaluation mode.
    data : ImageSet
    settings : Evaluation
    options : Options
        The budget is asked before every pass through the network.
    name : tuple of str
        Of the network, and the hash of its weights.
    partial : Path, optional
        Where finished chunks survive a kill.
    """
    machine = options.machine.resolve()
    model = model.to(machine.device)
    done = _Done(partial, f"{name[1]} {data.sha256} {len(data)} {settings}", data, settings)
    with tqdm(
        total=len(data),
        initial=done.count,
        unit="img",
        desc=f"{name[0]} {settings.engine}",
        disable=None,
    ) as bar:
        while done.count < len(data):
            began = time.monotonic()
            chunk = np.arange(done.count, min(done.count + CHUNK[machine.kind], len(data)))
            some = data.take(chunk)
            what = f"image {done.count:,} of the attack on {name[0]}"
            with asked_before_every_pass(model, options.budget, what):
                judged = verdicts(
                    model,
                    to_float(torch.from_numpy(some.images).to(machine.device)),
                    torch.from_numpy(some.labels).to(machine.device),
                    torch.from_numpy(some.index),
                    settings,
                )
            done.add(
                judged.logits.cpu().numpy(),
                judged.adversarial_logits.cpu().numpy(),
                judged.robust.cpu().numpy(),
                time.monotonic() - began,
            )
            bar.update(len(some))
            bar.set_postfix(robust=f"{done.robust[-1].mean():.1%}")
    return xr.Dataset(
        {
            "logits": (("sample", "class"), rounded(done.logits)),
            "adversarial_logits": (("sample", "class"), rounded(done.adversarial_logits)),
            "robust": (("attack", "sample"), done.robust),
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
        },
        coords={"class": list(data.classes), "attack": list(settings.attacks)},
        attrs={
            "evaluation": json.dumps(dataclasses.asdict(settings)),
            "rounded_to": LOGIT_PRECISION,
            "seconds_attack": done.seconds,
            **{f"attack_{k}": v for k, v in machine.describe().items()},
            "attack_precision": "float32",
        },
    )


@contextmanager
def asked_before_every_pass(model: nn.Module, budget: Budget, what: str) -> Iterator[None]:
    """Ask the budget whenever the model, or a copy that an attack makes of it, is called."""
    handle = model.register_forward_pre_hook(lambda *_: budget.check(what))
    try:
        yield
    finally:
        handle.remove()


class _Done:
    """The chunks attacked so far, kept in a file until the dataset is written, if one is given."""

    def __init__(self, path: Path | None, key: str, data: ImageSet, settings: Evaluation) -> None:
        self.path, self.key = path, key
        classes, attacks = len(data.classes), len(settings.attacks)
        self.logits = np.empty((0, classes), np.float32)
        self.adversarial_logits = np.empty((0, classes), np.float32)
        self.robust = np.empty((attacks, 0), bool)
        self.seconds = 0.0
        saved = None if path is None else files.resume(path, key)
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
        if self.path is not None:
            files.keep(
                self.path,
                self.key,
                logits=self.logits,
                adversarial=self.adversarial_logits,
                robust=self.robust,
                seconds=self.seconds,
            )


def of_yours(
    weights: Path, factory: str, data: ImageSet, settings: Evaluation, options: Options
) -> xr.Dataset:
    """Return the logits of anybody's network, attacked, as a dataset of kind ``logits``.

    Parameters
    ----------
    weights, factory
        As in `network.load`.
    data : ImageSet
        With labels.
    settings : Evaluation
    options : Options
    """
    model = load(weights, factory)
    check_outputs(model, factory, len(data.classes))
    about = attributes_of_yours(weights, "logits", data, settings.seed)
    attacked = attack(model, data, settings, options, (weights.stem, about["checkpoint_sha256"]))
    return attacked.assign_attrs(about)
