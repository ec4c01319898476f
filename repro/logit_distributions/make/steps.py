"""Stage ``theory``: the gradient step of eq. (6) on trained networks."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from logit_distributions import images
from logit_distributions.jobs import Job
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.network import frozen
from logit_distributions.make.options import Options
from logit_distributions.progress import Bar
from logit_distributions.read.distribution import margins
from logit_distributions.recipes import STEPPED_IMAGES, STEPS

BATCH = 250


def loss_direction(model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy by the pixels, each of L2 length one (eq. 6).

    The loss is ln(1 + exp(-m)) of the soft margin m, so its gradient is along that of -m,
    which does not underflow for a confident network.

    Parameters
    ----------
    model : Module
    pixels : Tensor, shape (n, channels, rows, columns)
    labels : Tensor of int64, shape (n,)

    Returns
    -------
    Tensor, shape of `pixels`
        Zero for an image whose gradient is exactly zero.
    """
    pixels = pixels.detach().requires_grad_()
    logits = model(pixels).double()
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], True)
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    (gradient,) = torch.autograd.grad((others - logits[own]).sum(), pixels)
    length = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    unit: Tensor = gradient / length[:, None, None, None]
    return unit


def gradient_steps(
    model: nn.Module, pixels: Tensor, labels: Tensor, eps: tuple[float, ...] = STEPS
) -> Tensor:
    """Return the logits before and after steps of several lengths up the loss (eq. 6).

    Parameters
    ----------
    model : Module
    pixels : Tensor, shape (n, channels, rows, columns)
        In [0, 1]; the stepped images are not clipped, as in eq. (6).
    labels : Tensor of int64, shape (n,)
    eps : tuple of float
        Lengths of the steps over the L2 length of the image.

    Returns
    -------
    Tensor, shape (1 + len(eps), n, N)
        The first without a step.
    """
    unit = loss_direction(model, pixels, labels)
    length = pixels.flatten(1).norm(dim=1)[:, None, None, None]
    with torch.no_grad():
        return torch.stack([model(pixels + e * length * unit) for e in (0.0, *eps)])


def theory(job: Job, options: Options) -> xr.Dataset:
    """Take the gradient step of eq. (6) on test images; return the margins before and after."""
    saved = Checkpoint.of(job.needs[0])
    test = images.load(job.recipe.dataset, "test", options.images, job.recipe.images)
    test = test.take(np.arange(min(STEPPED_IMAGES, len(test))))
    model = frozen(saved.model(len(test.classes)))
    parts = []
    for start in Bar(range(0, len(test), BATCH), desc=job.run, unit="batch"):
        options.budget.check(f"image {start:,} of the gradient steps of {job.run}")
        part = slice(start, start + BATCH)
        pixels = to_float(torch.from_numpy(test.images[part]))
        parts.append(gradient_steps(model, pixels, torch.from_numpy(test.labels[part])))
    margins_of = [margins(logits, test.labels) for logits in torch.cat(parts, 1).numpy()]
    dataset = xr.Dataset(
        {
            f"{kind}_margin": (
                ("eps", "sample"),
                np.stack([getattr(each, kind) for each in margins_of]).astype(np.float32),
            )
            for kind in ("hard", "soft", "mean")
        },
        {"eps": [0.0, *STEPS], "sample": test.index.astype(np.int32)},
        saved.attributes("theory", test),
    )
    dataset["eps"].attrs["long_name"] = "L2 length of the step over that of the image"
    dataset["sample"].attrs["long_name"] = "position in the original files of the part"
    return dataset
