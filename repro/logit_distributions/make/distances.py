"""Stage ``distances``: how far the boundary is, and how far the gap's slope says it is."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from logit_distributions import images
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job
from logit_distributions.make.attack import withstands
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.logits import asked_before_every_pass
from logit_distributions.make.options import Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.progress import Bar
from logit_distributions.recipes import DISTANCE_IMAGES, FARTHEST, RESOLUTION, Evaluation
from logit_distributions.store import files

CHUNK = 250
"""Images bisected together; what is finished survives a kill."""


def distances(job: Job, options: Options) -> xr.Dataset:
    """Measure how far test images are from being misclassified by the network of a run."""
    checkpoint = Checkpoint.of(job.needs[0])
    recipe = job.recipe
    data = images.load(recipe.dataset, "test", options.images, recipe.images)
    data = data.take(np.arange(min(DISTANCE_IMAGES, len(data))))
    model = checkpoint.model(len(data.classes))
    assert job.partial is not None
    key = f"{checkpoint.weights_sha256} {data.sha256} {len(data)} {RESOLUTION} {FARTHEST}"
    saved = files.resume(job.partial, key) or {}
    arrays = {name: each for name, each in saved.items() if name != "key"}
    done = len(arrays.get("gap", ()))
    with Bar(total=len(data), initial=done, unit="img", desc=f"{job.run}: distances") as bar:
        for start in range(done, len(data), CHUNK):
            some = data.take(np.arange(start, min(start + CHUNK, len(data))))
            what = f"image {start:,} of the distances of {job.run}"
            with asked_before_every_pass(model, options.budget, what):
                measured = measure(model, some, options)
            for name, values in measured.items():
                arrays[name] = np.concatenate([arrays.get(name, values[:0]), values])
            files.keep(job.partial, key, **arrays)
            bar.update(len(some))
    return xr.Dataset(
        {
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
            **{name: ("sample", values) for name, values in arrays.items()},
        },
        coords={"class": list(data.classes)},
        attrs={
            **checkpoint.attributes("distances", data),
            "resolution": RESOLUTION,
            "farthest": FARTHEST,
        },
    )


def measure(model: nn.Module, data: ImageSet, options: Options) -> dict[str, NDArray[np.generic]]:
    """Return the variables of a dataset of kind ``distances`` of any network, by name."""
    device = options.machine.resolve().device
    model = model.to(device)
    pixels = to_float(torch.from_numpy(data.images).to(device))
    labels, index = torch.from_numpy(data.labels).to(device), torch.from_numpy(data.index)
    gap, slope, right = gaps(model, pixels, labels)
    radius = smallest_radius(model, pixels, labels, index)
    return {
        "natural": right.cpu().numpy(),
        "gap": gap.cpu().numpy(),
        "gradient_l1": slope.cpu().numpy(),
        "radius": radius.cpu().numpy(),
    }


@strict_float32()
def gaps(model: nn.Module, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logit gap, the L1 norm of its gradient, and which images are classified correctly.

    To first order the gap closes within the Linf ball of radius gap / norm, as no step of that
    length changes it by more than the dual norm of its gradient.

    Parameters
    ----------
    model : Module
    pixels : Tensor, shape (n, channels, rows, columns)
    labels : Tensor of int64, shape (n,)

    Returns
    -------
    gap, norm : Tensor of float32, shape (n,)
    right : Tensor of bool, shape (n,)
    """
    leaf = pixels.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        top = logits.topk(2, dim=1).values
        gap = top[:, 0] - top[:, 1]
        (gradient,) = torch.autograd.grad(gap.sum(), leaf)
    return gap.detach(), gradient.flatten(1).abs().sum(1), logits.argmax(1) == labels


def smallest_radius(
    model: nn.Module,
    pixels: Tensor,
    labels: Tensor,
    index: Tensor,
    settings: Evaluation = Evaluation(),  # noqa: B008  (frozen)
    resolution: float = RESOLUTION,
    farthest: float = FARTHEST,
) -> Tensor:
    """Return the smallest Linf radius at which our attack fools the network, by bisection.

    An attack need not succeed in every ball larger than one in which it did: what is bisected is a
    place where it turns from failing to succeeding.

    Parameters
    ----------
    model, pixels, labels, index
        As in `attack.verdicts`.
    settings : Evaluation
        The attacks, their iterations and seed; its radius is left aside.
    resolution, farthest : float
        In pixel units; the second a multiple of the first by a power of two.

    Returns
    -------
    Tensor of float32, shape (n,)
        0 where the image is misclassified as it is, NaN where the largest ball holds out.
    """
    steps = round(farthest / resolution)
    fails = torch.zeros(len(pixels), dtype=torch.int64, device=pixels.device)
    succeeds = torch.full_like(fails, steps)
    with torch.no_grad():
        wrong = model(pixels).argmax(1) != labels

    def attacked(rows: Tensor, number: Tensor) -> Tensor:
        eps = number.to(pixels.dtype) * resolution
        return withstands(model, pixels[rows], labels[rows], index[rows.cpu()], settings, eps)

    rows = (~wrong).nonzero().squeeze(1)
    beyond = torch.zeros_like(wrong)
    if len(rows):
        beyond[rows] = attacked(rows, succeeds[rows])
    while len(rows := ((succeeds - fails > 1) & ~wrong & ~beyond).nonzero().squeeze(1)):
        middle = (succeeds[rows] + fails[rows]) // 2
        holds = attacked(rows, middle)
        fails[rows] = torch.where(holds, middle, fails[rows])
        succeeds[rows] = torch.where(holds, succeeds[rows], middle)
    radius = succeeds.to(pixels.dtype) * resolution
    radius[wrong] = 0.0
    return radius.masked_fill(beyond, torch.nan)
