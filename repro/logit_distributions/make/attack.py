"""Attacks: PGD to train with, APGD to evaluate with; the official suite to check ours.

All of them work on pixels in [0, 1] and in the Linf ball around an image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from logit_distributions.errors import ReproError
from logit_distributions.make.network import attackable, cast_once, frozen
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.randomness import generator
from logit_distributions.recipes import PGD, Evaluation


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
    attacked = cast_once(frozen(model), images.device.type)
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


Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each sample, shape (n,)."""
    return functional.cross_entropy(logits, labels, reduction="none")


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio of each sample (Croce and Hein 2020, eq. 6), shape (n,).

    Minus the margin of the true class, over the distance from the largest to the third
    largest logit; so there must be three classes at least.
    """
    ordered = logits.sort(dim=1).values
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = torch.where(own == ordered[:, -1], ordered[:, -2], ordered[:, -1])
    return -(own - other) / (ordered[:, -1] - ordered[:, -3] + 1e-12)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest wrong logit minus the true one, of each sample, shape (n,)."""
    own = logits.gather(1, labels[:, None])
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return (wrong - own).amax(1)


LOSSES: dict[str, Loss] = {"apgd-ce": cross_entropy, "apgd-dlr": dlr, "apgd-margin": margin}
"""What each APGD increases."""


def attacks_on(classes: int, settings: Evaluation) -> tuple[str, ...]:
    """Return the attacks of an evaluation, in order, without those that need more classes.

    DLR needs three classes, its targeted form four. In their place our engine takes the margin, to
    which DLR is proportional where there are two; the official ones what their losses allow.
    """
    if classes >= 4 or (classes == 3 and settings.engine != "autoattack-full"):
        return settings.attacks
    fewer = {
        "repro": ("apgd-ce", "apgd-margin"),
        "autoattack": ("apgd-ce",),
        "autoattack-full": ("apgd-ce", *(["apgd-dlr"] * (classes == 3)), "fab-t", "square"),
    }
    return fewer.get(settings.engine, settings.attacks)


COMPARED = 8
"""Images on which the network that is attacked is compared with the given one."""


@dataclass
class _Points:
    """The samples that are not fooled yet, and all that APGD remembers of each."""

    row: Tensor
    labels: Tensor
    low: Tensor
    high: Tensor
    adversarial: Tensor
    previous: Tensor
    gradient: Tensor
    loss: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    checked_loss: Tensor
    increases: Tensor
    reduced: Tensor
    step: Tensor

    def keep(self, which: Tensor) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[which])


def _ascend(model: nn.Module, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, ...]:
    """Return loss, gradient and "is fooled" of each sample."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(images)
        values = loss(logits, labels)
        (gradient,) = torch.autograd.grad(values.sum(), images)
    return values.detach(), gradient, logits.detach().argmax(1) != labels


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    *,
    loss: Loss,
    eps: float | Tensor,
    iterations: int = 100,
) -> Tensor:
    """Auto-PGD in the Linf ball (Croce and Hein 2020, algorithm 1).

    Step sizes and checkpoints are those of the official code, including that the first
    increase is counted from a loss of zero; given the same start and a model that computes
    the same logits, each sample gets the same verdict. A sample that is fooled leaves the
    batch at once, which cannot change the others.

    Parameters
    ----------
    model : Module
        In evaluation mode; `network.frozen` makes the fastest.
    images : Tensor, shape (n, 3, rows, columns)
        In [0, 1].
    labels : Tensor of int64, shape (n,)
    start : Tensor, shape of `images`
        Where each sample starts; clipped to [0, 1].
    loss : callable
        Maps logits and labels to one value per sample, to be increased.
    eps : float or Tensor, shape (n, 1, 1, 1)
        Radius of the ball, or of each sample's, in pixel units.
    iterations : int

    Returns
    -------
    Tensor, shape of `images`
        The first image that fools the model, or where none does the one of highest loss.
    """
    result = start.clamp(0, 1)
    values, gradient, fooled = _ascend(model, result, labels, loss)
    points = _Points(
        row=torch.arange(len(images), device=images.device),
        labels=labels,
        low=(images - eps).clamp_(min=0),
        high=(images + eps).clamp_(max=1),
        adversarial=result.clone(),
        previous=result.clone(),
        gradient=gradient,
        loss=torch.zeros_like(values),
        best=result.clone(),
        best_gradient=gradient.clone(),
        best_loss=values,
        checked_loss=values.clone(),
        increases=torch.zeros_like(values),
        reduced=torch.ones_like(fooled),
        step=2 * eps * torch.ones_like(values)[:, None, None, None],
    )
    points.keep(_positions(~fooled))
    period, shortest = max(int(0.22 * iterations), 1), max(int(0.06 * iterations), 1)
    since_check = 0
    for iteration in range(iterations):
        if not len(points.row):
            break
        _move(points, momentum=0.25 if iteration else 0.0)
        values, points.gradient, fooled = _ascend(model, points.adversarial, points.labels, loss)
        points.increases += values > points.loss
        points.loss = values
        better = values > points.best_loss
        points.best_loss = torch.where(better, values, points.best_loss)
        rows = better[:, None, None, None]
        points.best = torch.where(rows, points.adversarial, points.best)
        points.best_gradient = torch.where(rows, points.gradient, points.best_gradient)
        leaving = _positions(fooled)
        if len(leaving):
            result[points.row[leaving]] = points.adversarial[leaving]
            points.keep(_positions(~fooled))
        since_check += 1
        if since_check == period:
            _check(points, period)
            period, since_check = max(period - max(int(0.03 * iterations), 1), shortest), 0
    result[points.row] = points.best
    return result


def _positions(mask: Tensor) -> Tensor:
    """Return where a mask is set; the one thing in an iteration for which a GPU is waited for.

    Some 20 microseconds, while an iteration on a batch that is worth a GPU takes milliseconds:
    less than what images already fooled would cost in a batch that is thinned out less often.
    """
    return mask.nonzero().squeeze(1)


def _move(points: _Points, momentum: float) -> None:
    inertia = points.adversarial - points.previous
    points.previous = points.adversarial
    step = points.adversarial + points.step * points.gradient.sign()
    step = torch.clamp(step, points.low, points.high)
    moved = points.adversarial + (step - points.adversarial) * (1 - momentum)
    points.adversarial = torch.clamp(moved + inertia * momentum, points.low, points.high)


def _check(points: _Points, period: int, rho: float = 0.75) -> None:
    """Halve the step, and go back to the best point, where the loss rose too rarely."""
    oscillates = points.increases <= rho * period
    stalls = ~points.reduced & (points.checked_loss >= points.best_loss)
    reduce = oscillates | stalls
    points.reduced = reduce
    points.checked_loss = points.best_loss.clone()
    points.increases = torch.zeros_like(points.increases)
    rows = reduce[:, None, None, None]
    points.step = torch.where(rows, points.step / 2, points.step)
    points.adversarial = torch.where(rows, points.best, points.adversarial)
    points.gradient = torch.where(rows, points.best_gradient, points.gradient)


def odi(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    direction: Tensor,
    *,
    eps: float,
    step: float = 2 / 255,
    diversify: int = 2,
    steps: int = 20,
) -> Tensor:
    """PGD on the margin from an output-diversified start (Tashiro et al. 2020, section 3).

    Parameters
    ----------
    model, images, labels, start, eps
        As in `apgd`.
    direction : Tensor, shape (n, classes)
        Uniform in [-1, 1]: the direction in logit space that the start moves along.
    step : float
        Of the PGD steps; the diversifying steps are `eps` long.
    diversify, steps : int
        Number of diversifying and of PGD steps.

    Returns
    -------
    Tensor, shape of `images`
        The last iterate, or the first that fools the model.
    """
    low, high = (images - eps).clamp_(min=0), (images + eps).clamp_(max=1)
    adversarial = torch.clamp(start, low, high)
    for _ in range(diversify):
        _, gradient, _ = _ascend(
            model, adversarial, labels, lambda logits, _: (logits * direction).sum(1)
        )
        adversarial = torch.clamp(adversarial + eps * gradient.sign(), low, high)
    for _ in range(steps):
        _, gradient, fooled = _ascend(model, adversarial, labels, margin)
        moved = torch.clamp(adversarial + step * gradient.sign(), low, high)
        adversarial = torch.where(fooled[:, None, None, None], adversarial, moved)
    return adversarial


@dataclass(frozen=True)
class Verdicts:
    """What an evaluation says of each image.

    Attributes
    ----------
    logits, adversarial_logits : Tensor of float32, shape (n, classes)
        On the image, and on the strongest adversarial image found; the image itself where
        it is misclassified already.
    robust : Tensor of bool, shape (attacks, n)
        Still classified correctly after this attack and all before it.
    strongest : Tensor of float32, shape (n, channels, rows, columns)
        That strongest image.
    """

    logits: Tensor
    adversarial_logits: Tensor
    robust: Tensor
    strongest: Tensor


@torch.no_grad()
@strict_float32()
def withstands(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    settings: Evaluation,
    eps: Tensor,
) -> Tensor:
    """Return which samples our attacks do not fool, each in a ball of its own.

    Parameters
    ----------
    model, images, labels, index, settings
        As in `verdicts`; of the engine ``"repro"``, whose radius is left aside.
    eps : Tensor, shape (n,)
        Radius of each sample's ball, in pixel units.

    Returns
    -------
    Tensor of bool, shape (n,)
    """
    index = index.to(images.device)
    correct: Tensor = model(images).argmax(1) == labels
    attacked = attackable(model, images[:COMPARED])
    for attack in attacks_on(model(images[:1]).shape[1], settings):
        rows = _positions(correct)
        if not len(rows):
            break
        draws = functools.partial(_draws, index[rows], settings.seed, attack, 0)
        radius = eps[rows, None, None, None]
        adversarial = _ours(attacked, images[rows], labels[rows], attack, draws, settings, radius)
        low, high = images[rows] - radius, images[rows] + radius
        adversarial = torch.clamp(adversarial, low, high).clamp_(0, 1)
        correct[rows] = model(adversarial).argmax(1) == labels[rows]
    return correct


@torch.no_grad()
@strict_float32()
def verdicts(
    model: nn.Module, images: Tensor, labels: Tensor, index: Tensor, settings: Evaluation
) -> Verdicts:
    """Attack a batch and return the logits before and after.

    Every adversarial image is clipped, checked to lie in the ball, and judged by a fresh
    float32 pass through the model as it was given. The attack ascends in float32 too, on
    every device: with TF32 an image that only the rounded network takes for fooled would
    leave the attack too early, and its verdict would be milder than a CPU's.

    Parameters
    ----------
    model : Module
        Maps pixels to logits, in evaluation mode.
    images : Tensor of float32, shape (n, 3, rows, columns)
        In [0, 1].
    labels, index : Tensor of int64, shape (n,)
        True classes; and the numbers that key each sample's random draws.
    settings : Evaluation
    """
    index = index.to(images.device)
    natural = model(images)
    strongest, strongest_logits = images.clone(), natural.clone()
    correct = natural.argmax(1) == labels
    attacked = attackable(model, images[:COMPARED])
    robust = []
    for attack in attacks_on(natural.shape[1], settings):
        for restart in range(settings.restarts if settings.engine != "autoattack-full" else 1):
            rows = _positions(correct)
            if not len(rows):
                break
            if settings.engine.startswith("autoattack"):
                if restart:
                    break
                adversarial = _official(model, images[rows], labels[rows], attack, settings)
            else:
                draws = functools.partial(_draws, index[rows], settings.seed, attack, restart)
                adversarial = _ours(
                    attacked, images[rows], labels[rows], attack, draws, settings, settings.eps
                )
            low, high = images[rows] - settings.eps, images[rows] + settings.eps
            adversarial = torch.clamp(adversarial, low, high)
            adversarial = adversarial.clamp_(0, 1)
            assert (adversarial - images[rows]).abs().max() <= settings.eps + 1e-6
            logits = model(adversarial)
            strongest[rows], strongest_logits[rows] = adversarial, logits
            correct[rows] = logits.argmax(1) == labels[rows]
        robust.append(correct.clone())
    return Verdicts(natural, strongest_logits, torch.stack(robust), strongest)


def _draws(
    index: Tensor, seed: int, attack: str, restart: int, shape: tuple[int, ...], what: str
) -> Tensor:
    """Return uniform draws in [-1, 1] of `shape` for each sample, keyed by its number."""
    rows = []
    for number in index.tolist():
        draws = generator("attack", seed, attack, restart, number, what)
        rows.append(torch.rand(shape, generator=draws))
    return torch.stack(rows).mul_(2).sub_(1).to(index.device)


def _ours(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: str,
    draws: Callable[..., Tensor],
    settings: Evaluation,
    eps: float | Tensor,
) -> Tensor:
    noise = draws(shape=tuple(images.shape[1:]), what="start").to(memory_format=torch.channels_last)
    if attack == "odi":
        start = images + eps * noise
        classes = model(images[:1]).shape[1]
        direction = draws(shape=(classes,), what="direction")
        return odi(model, images, labels, start, direction, eps=settings.eps)
    start = images + eps * noise / noise.abs().amax((1, 2, 3), keepdim=True)
    return apgd(
        model,
        images,
        labels,
        start,
        loss=LOSSES[attack],
        eps=eps,
        iterations=settings.iterations,
    )


class _Contiguous(nn.Module):
    """Takes and returns contiguous tensors and gradients, which the official code needs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        contiguous: Callable[[Tensor], Tensor] = _ContiguousGradient.apply
        return contiguous(self.model(contiguous(images)))


class _ContiguousGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:
        return images.contiguous()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous()


def _set_iterations(official: Any, iterations: int) -> None:
    """Set what the official APGD derives from its number of iterations when it is made."""
    official.n_iter = official.n_iter_orig = iterations
    official.n_iter_2 = max(int(0.22 * iterations), 1)
    official.n_iter_min = max(int(0.06 * iterations), 1)
    official.size_decr = max(int(0.03 * iterations), 1)


def _official(
    model: nn.Module, images: Tensor, labels: Tensor, attack: str, settings: Evaluation
) -> Tensor:
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ReproError(
            f"engine {settings.engine!r} needs pyautoattack, which is not installed; "
            "install the extra 'train'"
        ) from error
    standard = settings.engine == "autoattack-full"
    classes = model(images[:1]).shape[1]
    with torch.random.fork_rng():
        official = AutoAttack(
            _Contiguous(model),
            attacks=None if standard else [attack],
            version="standard" if standard else "custom",
            eps=settings.eps,
            norm="Linf",
            seed=settings.seed,
            device=images.device,
        )
        if standard:
            official.attacks_to_run = [attack]
            for each in (official.apgd_targeted, official.fab):
                each.n_target_classes = min(each.n_target_classes, classes - 1)
        else:
            official.apgd.n_restarts = settings.restarts
            _set_iterations(official.apgd, settings.iterations)
        adversarial: Tensor
        adversarial, _ = official.run_standard_evaluation(
            images.contiguous(), labels, batch_size=len(images)
        )
    return adversarial.detach()
