"""The gradient step of eq. (6) on trained networks: checkpoint → a small dataset of margins.

This is the one part of Appendix C that needs torch; what reads the result, a dataset of kind
``theory``, does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from tqdm import tqdm

from logit_distributions import images, store
from logit_distributions.errors import ReproError
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes
from logit_distributions.make.network import frozen
from logit_distributions.statistics import margins
from logit_distributions.store import places

EPS = (0.001, 0.01, 0.1)
"""L2 lengths of the step over that of the image; figure C.3 has 0.1 and images of length 1."""

SAMPLES = 2000
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
    model: nn.Module, pixels: Tensor, labels: Tensor, eps: tuple[float, ...] = EPS
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


def record(checkpoint: Path, samples: int = SAMPLES) -> Path:
    """Take the steps on test images with a checkpoint; write the margins to data/theory.

    Parameters
    ----------
    checkpoint : Path
    samples : int
        How many test images, from the first.

    Returns
    -------
    Path
        ``data/theory/<run>.nc``.

    Raises
    ------
    ReproError
        If there are no samples, or the checkpoint or the images cannot be had.
    """
    if samples < 1:
        raise ReproError(f"samples: expected at least 1, got {samples}")
    saved = Checkpoint.load(checkpoint)
    run = saved.run
    test = images.load(saved.recipe["dataset"], "test")
    test = test.take(np.arange(min(samples, len(test))))
    model = frozen(saved.model(len(test.classes)))
    parts = []
    for start in tqdm(range(0, len(test), BATCH), desc=run, unit="batch", disable=None):
        part = slice(start, start + BATCH)
        pixels = to_float(torch.from_numpy(test.images[part]))
        parts.append(gradient_steps(model, pixels, torch.from_numpy(test.labels[part])))
    found = [margins(logits, test.labels) for logits in torch.cat(parts, 1).numpy()]
    data = xr.Dataset(
        {
            f"{kind}_margin": (
                ("eps", "sample"),
                np.stack([getattr(each, kind) for each in found]).astype(np.float32),
            )
            for kind in ("hard", "soft", "mean")
        },
        {"eps": [0.0, *EPS], "sample": test.index.astype(np.int32)},
        attributes(saved, "theory", test),
    )
    data["eps"].attrs["long_name"] = "L2 length of the step over that of the image"
    data["sample"].attrs["long_name"] = "position in the original files of the part"
    path = store.path_of("theory", run)
    with store.registering(path):
        store.write(data, path)
    return path


def record_all(runs: list[str], samples: int = SAMPLES) -> list[Path]:
    """Record the named runs, or every run that has a checkpoint in data/checkpoints.

    Raises
    ------
    ReproError
        If there is nothing to record.
    """
    folder = places.data() / "checkpoints"
    files = [folder / f"{run}.safetensors" for run in runs] or sorted(folder.glob("*.safetensors"))
    if not files:
        raise ReproError(
            f"{folder}: expected checkpoints, got none; make them: logitdist run table2"
        )
    return [record(file, samples) for file in files]
