"""Stage ``masking``: what attacks of other strengths and kinds find, to tell masked gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from logit_distributions import images, recipes
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job
from logit_distributions.make.attack import cross_entropy, verdicts
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.logits import asked_before_every_pass
from logit_distributions.make.options import Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.progress import Bar
from logit_distributions.recipes import Evaluation
from logit_distributions.store import files

BATCH = 250


def masking(job: Job, options: Options) -> xr.Dataset:
    """Attack the network of a run in every way that shows whether its gradients are masked."""
    checkpoint = Checkpoint.of(job.needs[0])
    recipe = job.recipe
    data = images.load(recipe.dataset, "test", options.images, recipe.images)
    data = data.take(np.arange(min(recipes.MASKING_IMAGES, len(data))))
    others = {need.recipe.name: Checkpoint.of(need) for need in job.compared}
    networks = {name: other.model(len(data.classes)) for name, other in others.items()}
    weights = [checkpoint.weights_sha256, *(other.weights_sha256 for other in others.values())]
    assert job.partial is not None
    done = Done(job, hashlib.sha256(f"{weights} {data.sha256}".encode()).hexdigest())
    model = checkpoint.model(len(data.classes))
    measured = measure(model, networks, data, recipes.masking(recipe), recipe.eps, options, done)
    return measured.assign_attrs(checkpoint.attributes("masking", data))


class Done:
    """The attacks of a job that are finished, which survive a kill."""

    def __init__(self, job: Job, key: str) -> None:
        assert job.partial is not None
        self.path, self.key, self.name = job.partial, key, job.run
        saved = files.resume(self.path, key) or {}
        self.arrays = {name: each for name, each in saved.items() if name != "key"}

    def add(self, name: str, array: NDArray[np.bool_]) -> None:
        """Keep what an attack found."""
        self.arrays[name] = array
        files.keep(self.path, self.key, **self.arrays)


def measure(
    model: nn.Module,
    others: Mapping[str, nn.Module],
    data: ImageSet,
    evaluations: list[Evaluation],
    eps: float,
    options: Options,
    done: Done | None = None,
) -> xr.Dataset:
    """Return the variables of a dataset of kind ``masking`` of any network.

    Parameters
    ----------
    model : Module
        Maps pixels in [0, 1] to logits; in evaluation mode.
    others : mapping
        By name, networks on which the adversarial images are tried.
    data : ImageSet
    evaluations : list of Evaluation
        By our engine, all with the same two attacks.
    eps : float
        Radius of the ball of Square, and of the images that are tried on the others.
    options : Options
        The budget is asked before every pass through the network.
    done : Done, optional
        Where finished attacks survive a kill.
    """
    device = options.machine.resolve().device
    model = model.to(device)
    pixels = to_float(torch.from_numpy(data.images).to(device))
    labels, index = torch.from_numpy(data.labels).to(device), torch.from_numpy(data.index)
    arrays: dict[str, NDArray[np.bool_]] = {} if done is None else done.arrays
    name = "a network" if done is None else done.name

    def keep(what: str, array: Tensor) -> None:
        arrays[what] = array.cpu().numpy()
        if done is not None:
            done.add(what, arrays[what])

    square = Evaluation("autoattack-square", eps=eps)
    for settings in Bar([*evaluations, square], desc=f"{name}: masking", unit="attack"):
        if str(settings) in arrays:
            continue
        with asked_before_every_pass(model, options.budget, f"{settings} of {name}"):
            judged = verdicts(model, pixels, labels, index, settings)
        if settings == Evaluation(eps=eps):
            for other, network in others.items():
                right = _predictions(network.to(device), judged.strongest) == labels
                keep(f"transferred to {other}", right)
        keep(str(settings), judged.robust)
    if "natural" not in arrays:
        keep("no gradient", _without_gradient(model, pixels, labels))
        keep("natural", _predictions(model, pixels) == labels)
    transferred = [arrays[f"transferred to {other}"] for other in others]
    shape = (len(others), len(data))
    return xr.Dataset(
        {
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
            "natural": ("sample", arrays["natural"]),
            "no_gradient": ("sample", arrays["no gradient"]),
            "eps": ("setting", np.array([each.eps for each in evaluations])),
            **{
                word: ("setting", np.array([getattr(each, word) for each in evaluations], np.int32))
                for word in ("iterations", "restarts")
            },
            "survives": (
                ("setting", "attack", "sample"), np.stack([arrays[str(e)] for e in evaluations]),
            ),
            "survives_square": ("sample", arrays[str(square)][-1]),
            "transferred": (("target", "sample"), np.array(transferred, bool).reshape(shape)),
        },
        coords={
            "class": list(data.classes),
            "attack": list(evaluations[0].attacks),
            "target": np.array(list(others), dtype=str),
        },
    )  # fmt: skip


@torch.no_grad()
@strict_float32()
def _predictions(model: nn.Module, pixels: Tensor) -> Tensor:
    return torch.cat([model(some).argmax(1) for some in torch.split(pixels, BATCH)])


@strict_float32()
def _without_gradient(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return which images have exactly no gradient of the cross-entropy."""
    none = []
    for some, true in zip(torch.split(pixels, BATCH), torch.split(labels, BATCH), strict=True):
        leaf = some.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(leaf), true).sum(), leaf)
        none.append(gradient.flatten(1).abs().amax(1) == 0)
    return torch.cat(none)


def settings_of(dataset: xr.Dataset) -> list[Evaluation]:
    """Return the evaluations behind a stored dataset of kind ``masking``."""
    columns = (dataset[name].values.tolist() for name in ("eps", "iterations", "restarts"))
    return [
        Evaluation(eps=eps, iterations=iterations, restarts=restarts)
        for eps, iterations, restarts in zip(*columns, strict=True)
    ]
