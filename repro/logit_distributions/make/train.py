"""Stages ``train`` and ``checkpoint``: one loop; methods differ in how a batch becomes a loss."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from logit_distributions import choice, images
from logit_distributions.errors import ReproError
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job, epoch_file, rolling_file
from logit_distributions.make import distill
from logit_distributions.make.attack import pgd
from logit_distributions.make.augment import Epoch, crop_and_flip, to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.graphs import Graphed
from logit_distributions.make.network import build, laid_out
from logit_distributions.make.options import Budget, Machine, Options
from logit_distributions.make.precision import strict_float32, tuned_convolutions
from logit_distributions.make.randomness import generator, key
from logit_distributions.progress import Bar
from logit_distributions.recipes import PGD, Recipe

VALIDATION_ATTACKED = 1000
"""Validation images attacked after every kept epoch of adversarial training, and at the end."""


def train(job: Job, options: Options) -> Checkpoint:
    """Train a run to the job's epoch, from where it was cut.

    On one machine with one number of threads, a run that was killed and resumed has the same
    bits as one that was not: all draws are keyed by epoch and step. Earlier kept epochs are
    written on the way.

    Raises
    ------
    OutOfTime
        If the budget is spent before; the run is saved.
    ReproError
        If the loss is not finite, or the run was begun with another recipe.
    """
    recipe = job.recipe
    targets = None if recipe.distillation is None else distill.student_targets(job)[0]
    data, validation = (
        images.load(recipe.dataset, part, options.images, recipe.images)
        for part in ("train", "validation")
    )
    trainer = Trainer(
        recipe,
        job.seed,
        options.machine.resolve(),
        data,
        validation,
        targets,
        distill.shown_images(job),
    )
    return trainer.run(job.epoch or recipe.epochs, options.save_every, options.budget)


def checkpoint(job: Job, options: Options) -> Checkpoint:
    """Return the checkpoint that stands for a run; a given network has to be there.

    That is the last epoch, but for adversarial training the one with the best trade-off between
    natural and adversarial accuracy on the validation images, if there are any (paper, section
    3), or epoch 40 at the scale at which the paper found it.
    """
    if job.recipe.method == "given":
        raise ReproError(
            f"{job.path}: no network of this name was given; do so with 'logitdist adopt "
            f"{job.path.stem} --checkpoint FILE --model MODULE:FUNCTION'"
        )
    last = Checkpoint.of(job.needs[0])
    epoch = choice.evaluated_epoch(job.recipe, last.log)
    return Checkpoint.of(Job("train", job.recipe, job.seed, epoch))


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the learning rate at a fraction of the training, by the recipe's schedule."""
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    return recipe.learning_rate * 0.1 ** sum(progress >= m for m in recipe.milestones)


class Batch(NamedTuple):
    """What a step sees: images in [0, 1], labels, a student's targets, the start noise of PGD."""

    images: Tensor
    labels: Tensor
    targets: Tensor
    noise: Tensor


Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


def batch_loss(recipe: Recipe, machine: Machine) -> Loss:
    """Return the function that turns a batch into a loss and the logits it came from.

    Standard and adversarial training take the mean cross-entropy over the batch, with the recipe's
    regularizer; distillation `distill.loss`.
    """
    held = recipe.regularizer

    def forward(model: nn.Module, batch: Batch) -> Tensor:
        with machine.autocast():
            logits = model(batch.images)
        return logits.float()  # type: ignore[no-any-return]

    def standard(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = forward(model, batch)
        smoothing, squeezing = (
            held.strength if held is not None and held.name == name else 0.0
            for name in ("label-smoothing", "logit-squeezing")
        )
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        return loss + squeezing * logits.square().sum(1).mean() if squeezing else loss, logits

    def adversarial(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert recipe.pgd is not None
        with machine.autocast():
            attacked = pgd(model, batch.images, batch.labels, recipe.pgd, batch.noise)
        return standard(model, batch._replace(images=attacked))

    def distillation(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        assert recipe.distillation is not None
        logits = forward(model, batch)
        return distill.loss(logits, batch.targets, recipe.distillation), logits

    losses = {"adversarial": adversarial, "distillation": distillation}
    return losses.get(recipe.method, standard)


class Trainer:
    """The state of a training run between two steps."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        machine: Machine,
        data: ImageSet,
        validation: ImageSet,
        targets: np.ndarray | None = None,
        shown: np.ndarray | None = None,
    ) -> None:
        """Begin a run on `data`, of which only the images `shown` count, if given."""
        self.recipe, self.seed, self.machine = recipe, seed, machine
        self.name = recipe.run(seed)
        self.data, self.validation = data, validation
        if recipe.method == "distillation" and targets is None:
            raise ReproError(f"{self.name}: distillation needs targets, got none")
        device = machine.device
        on_gpu = machine.kind == "cuda"
        self.images = torch.from_numpy(self.data.images).to(device)
        self.labels = torch.from_numpy(self.data.labels).to(device)
        classes = len(self.data.classes)
        if targets is not None and targets.shape != (len(self.data), classes):
            raise ReproError(
                f"{self.name}: expected targets of shape {(len(self.data), classes)}, "
                f"got {targets.shape}; likely made for another split"
            )
        self.targets = None if targets is None else torch.from_numpy(targets).to(device)
        self.shown = None if shown is None else torch.from_numpy(shown).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key("weights", self.name))
            self.model = build(recipe.network, classes, recipe.width)
        self.model = laid_out(self.model.to(device))
        self.rate = recipe.learning_rate
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=torch.tensor(self.rate, device=device) if on_gpu else self.rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True if on_gpu else None,
        )
        self.loss = batch_loss(recipe, machine)
        self.steps = math.ceil(len(self.data) / recipe.batch_size)
        self.epoch = self.step = 0
        self.log: list[dict[str, float]] = []
        self.seconds = 0.0
        self.saved = time.monotonic()
        self.total_loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.no_noise = torch.empty(0, device=device)
        self.update: Callable[..., None] = self.plain_update
        if on_gpu and machine.graphs:
            self.update = Graphed(self.plain_update, self.state)

    def run(self, until: int, save_every: float, budget: Budget) -> Checkpoint:
        """Train to the end of an epoch, from where an earlier call was cut.

        Every kept epoch is written, and every so many seconds the state to resume from.
        """
        rolling = rolling_file(self.recipe, self.seed)
        if rolling.exists():
            self.restore(Checkpoint.load(rolling).held_to(self.recipe, rolling))
        size = len(self.data)
        with Bar(
            total=until * size,
            initial=self.epoch * size + self.step * self.recipe.batch_size,
            unit="img",
            unit_scale=True,
            desc=self.name,
        ) as bar:
            if not self.recipe.epochs:
                self.checkpoint().save(epoch_file(self.recipe, self.seed, 0))
            while self.epoch < until:
                self.finish_epoch(bar, rolling, save_every, budget)
            if until < self.recipe.epochs:
                self.save(rolling)
            else:
                rolling.unlink(missing_ok=True)
        return Checkpoint.load(epoch_file(self.recipe, self.seed, until))

    def state(self) -> list[Tensor]:
        """Return every tensor that a step changes."""
        momentum = [each["momentum_buffer"] for each in self.optimizer.state.values()]
        return [*self.model.state_dict().values(), *momentum, self.total_loss, self.correct]

    def checkpoint(self) -> Checkpoint:
        momentum = {
            f"momentum.{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if "momentum_buffer" in self.optimizer.state.get(parameter, {})
        }
        return Checkpoint(
            tensors={f"model.{k}": v for k, v in self.model.state_dict().items()} | momentum,
            recipe=json.loads(self.recipe.to_json()),
            recipe_hash=self.recipe.hash,
            seed=self.seed,
            epoch=self.epoch,
            step=self.step,
            log=self.log,
            sums={
                "loss": self.total_loss.item(),
                "correct": self.correct.item(),
                "seconds": self.seconds,
            },
            settings=self.machine.describe(),
        )

    def restore(self, saved: Checkpoint) -> None:
        tensors = saved.tensors
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, parameter in self.model.named_parameters():
            if f"momentum.{name}" in tensors:
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.epoch, self.step, self.log = saved.epoch, saved.step, saved.log
        self.total_loss.fill_(saved.sums["loss"])
        self.correct.fill_(int(saved.sums["correct"]))
        self.seconds = saved.sums["seconds"]

    def finish_epoch(self, bar: Bar, rolling: Path, save_every: float, budget: Budget) -> None:
        draws = Epoch(len(self.data), self.name, self.epoch, device=self.machine.device)
        self.model.train()
        began = time.monotonic()
        while self.step < self.steps:
            size = self.one_step(draws)
            bar.update(size)
            is_due = budget.spent or time.monotonic() - self.saved >= save_every
            if is_due and self.step < self.steps:
                self.assert_finite()
                self.seconds += time.monotonic() - began
                self.save(rolling)
                budget.check(f"step {self.step + 1} of epoch {self.epoch + 1} of {self.name}")
                began = time.monotonic()
        self.assert_finite()
        self.seconds += time.monotonic() - began
        self.close_epoch()
        if self.epoch in choice.kept_epochs(self.recipe):
            final = self.checkpoint()
            final.tensors = {k: v for k, v in final.tensors.items() if k.startswith("model.")}
            final.save(epoch_file(self.recipe, self.seed, self.epoch))
        is_due = budget.spent or time.monotonic() - self.saved >= save_every
        if is_due and self.epoch < self.recipe.epochs:
            self.save(rolling)
            budget.check(f"epoch {self.epoch + 1} of {self.name}")
        bar.set_postfix({k: f"{v:.3g}" for k, v in self.log[-1].items() if k != "epoch"})

    def save(self, rolling: Path) -> None:
        """Write the checkpoint that a killed run resumes from."""
        self.checkpoint().save(rolling)
        self.saved = time.monotonic()

    def one_step(self, draws: Epoch) -> int:
        recipe = self.recipe
        start = self.step * recipe.batch_size
        index, shift, flip = draws.batch(start, start + recipe.batch_size)
        if self.shown is not None:  # as many steps on fewer images: others twice in each epoch
            turned = index + self.epoch * (len(self.data) - len(self.shown))
            index = self.shown[turned % len(self.shown)]
        noise = self.no_noise
        if recipe.pgd is not None:
            shape = (len(index), *self.images.shape[1:])
            noise = uniform_noise(
                shape, self.name, self.epoch, self.step, device=self.machine.device
            )
        self.rate = learning_rate(recipe, (self.epoch + self.step / self.steps) / recipe.epochs)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.rate)
            else:
                group["lr"] = self.rate
        with tuned_convolutions():
            self.update(index, shift, flip, noise)
        self.step += 1
        return len(index)

    def plain_update(self, index: Tensor, shift: Tensor, flip: Tensor, noise: Tensor) -> None:
        """Do everything of a step that happens on the device; nothing here waits for it."""
        images = to_float(crop_and_flip(self.images[index], shift, flip))
        labels = self.labels[index]
        targets = images if self.targets is None else self.targets[index]
        loss, logits = self.loss(self.model, Batch(images, labels, targets, noise))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.total_loss += loss.detach().double() * len(index)
        self.correct += (logits.detach().argmax(1) == labels).sum()

    def assert_finite(self) -> None:
        """Wait for the device, whose work is then done, and refuse a loss that is not finite."""
        if not math.isfinite(self.total_loss.item()):
            raise ReproError(
                f"{self.name}: the loss of epoch {self.epoch + 1} is not finite; training "
                "diverged, likely because the learning rate is too high; the last checkpoint "
                "is kept"
            )

    def close_epoch(self) -> None:
        entry = {
            "epoch": float(self.epoch + 1),
            "learning_rate": self.rate,
            "loss": self.total_loss.item() / len(self.data),
            "accuracy": self.correct.item() / len(self.data),
            "seconds": self.seconds,
        }
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.total_loss.zero_()
        self.correct.zero_()
        if self.epoch in choice.kept_epochs(self.recipe):
            entry |= self.validate()
        self.log.append(entry)

    @strict_float32()
    def validate(self) -> dict[str, float]:
        if not len(self.validation):
            return {}
        self.model.eval()
        device = self.machine.device
        natural = torch.zeros((), dtype=torch.int64, device=device)
        robust = natural.clone()
        attacked_too = self.recipe.pgd is not None or self.epoch == self.recipe.epochs
        settings = self.recipe.pgd or PGD.in_ball(self.recipe.eps)
        for start in range(0, len(self.validation), 500):
            part = slice(start, start + 500)
            images = to_float(torch.from_numpy(self.validation.images[part]).to(device))
            labels = torch.from_numpy(self.validation.labels[part]).to(device)
            with torch.no_grad():
                natural += (self.model(images).argmax(1) == labels).sum()
            if attacked_too and start < VALIDATION_ATTACKED:
                noise = uniform_noise(
                    images.shape, self.name, "validation", self.epoch, start, device=device
                )
                attacked = pgd(self.model, images, labels, settings, noise)
                with torch.no_grad():
                    robust += (self.model(attacked).argmax(1) == labels).sum()
        accuracies = {"validation_accuracy": natural.item() / len(self.validation)}
        if attacked_too:
            attacked_count = min(VALIDATION_ATTACKED, len(self.validation))
            accuracies["validation_robust_accuracy"] = robust.item() / attacked_count
        return accuracies


def uniform_noise(
    shape: tuple[int, ...], *parts: object, device: torch.device | str = "cpu"
) -> Tensor:
    """Return noise uniform in [-1, 1] for a batch of images, laid out like them, keyed by `parts`.

    The CPU and a GPU draw different numbers.
    """
    noise = torch.empty(shape, device=device, memory_format=torch.channels_last)
    return noise.uniform_(-1, 1, generator=generator("noise", *parts, device=device))
