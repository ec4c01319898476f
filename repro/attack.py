"""Attacks: PGD to train with, APGD to evaluate with; the official suite to check ours.

All of them work on pixels in [0, 1] and in the Linf ball around an image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from repro.network import frozen
from repro.recipes import PGD


def pgd(model: nn.Module, images: Tensor, labels: Tensor, settings: PGD, noise: Tensor) -> Tensor:
    """Return adversarial images by projected gradient ascent on the cross-entropy.

    The model is attacked in evaluation mode, as in the code of TRADES (Zhang et al. 2019),
    whose PGD the paper uses (A.2); the start is uniform in the ball (Madry et al. 2018).

    Parameters
    ----------
    model : Module
        Maps pixels to logits; left as it is, in the mode it is in.
    images : Tensor, shape (n, 3, rows, columns)
        In [0, 1].
    labels : Tensor of int64, shape (n,)
    settings : PGD
    noise : Tensor, shape of `images`
        Uniform in [-1, 1]; times ``settings.eps`` it is the start.
    """
    attacked = frozen(model)
    low = (images - settings.eps).clamp_(min=0)
    high = (images + settings.eps).clamp_(max=1)
    adversarial = torch.clamp(images + settings.eps * noise, low, high)
    for _ in range(settings.steps):
        adversarial.requires_grad_()
        loss = functional.cross_entropy(attacked(adversarial).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, adversarial)
        step = adversarial.detach() + settings.step * gradient.sign()
        adversarial = torch.clamp(step, low, high)
    return adversarial
