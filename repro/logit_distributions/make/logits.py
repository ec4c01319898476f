"""Stage ``logits``: attack a network, keep its logits."""

from __future__ import annotations

import dataclasses
import json
import time

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from logit_distributions.images import ImageSet
from logit_distributions.make.attack import Evaluation, evaluate
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes
from logit_distributions.make.options import Budget
from logit_distributions.make.train import Machine
from logit_distributions.store import places
from logit_distributions.store.files import atomic, resume

CHUNK = {"cpu": 500, "cuda": 2000}
"""Images attacked together, by kind of device; results do not depend on it.

They take an estimated 6 GB on a GPU at width 64, where two forward and backward passes of each
are enough work to hide what starting it costs. A budget is asked for between chunks only.
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
        saved = resume(self.path, self.key)
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
        with atomic(self.path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                key=np.array(self.key),
                logits=self.logits,
                adversarial=self.adversarial_logits,
                robust=self.robust,
                seconds=self.seconds,
            )
