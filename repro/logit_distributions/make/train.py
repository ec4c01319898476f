"""One training loop; the three methods differ only in how a batch becomes a loss."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from logit_distributions import images as image_files
from logit_distributions.errors import ReproError
from logit_distributions.images import ImageSet
from logit_distributions.make.attack import pgd
from logit_distributions.make.augment import Epoch, crop_and_flip, to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.graphs import Graphed
from logit_distributions.make.network import build, laid_out
from logit_distributions.make.options import Budget
from logit_distributions.make.precision import strict_float32, tuned_convolutions
from logit_distributions.make.randomness import generator, key
from logit_distributions.recipes import PGD, RECORDED_EVERY, Recipe, base
from logit_distributions.store.places import epoch_file, rolling_file

VALIDATION_ATTACKED = 1000
"""Validation images attacked after every kept epoch of adversarial training, and at the end."""


@dataclass(frozen=True)
class Machine:
    """Where and how precisely to compute; recorded with every result.

    Attributes
    ----------
    device : str
        A torch device, or ``"auto"``.
    precision : {"auto", "float32", "bfloat16"}
        Of the forward and backward passes in training; ``"auto"`` takes bfloat16 where the
        hardware multiplies it natively. Recorded logits are float32 always.
    graphs : bool
        Whether a GPU replays the training step from a CUDA graph.
    """

    device: str = "auto"
    precision: str = "auto"
    graphs: bool = True

    def resolve(self) -> Machine:
        """Return this machine with both settings decided."""
        device, precision = self.device, self.precision
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            kind = torch.device(device).type
        except RuntimeError as error:
            raise ReproError(f"unknown device {device!r}: expected cpu, cuda or cuda:N") from error
        if kind == "cuda" and not torch.cuda.is_available():
            raise ReproError(
                "device 'cuda' was asked for, but torch finds no GPU; use --device cpu"
            )
        number = torch.device(device).index
        if kind == "cuda" and number is not None:
            torch.cuda.set_device(number)  # to which streams, events and graphs belong
        if precision == "auto":
            native = torch.cuda.is_bf16_supported() if kind == "cuda" else _cpu_has_bfloat16()
            precision = "bfloat16" if native else "float32"
        return dataclasses.replace(self, device=device, precision=precision)

    @property
    def kind(self) -> str:
        """``"cpu"`` or ``"cuda"``, of a resolved machine."""
        return torch.device(self.device).type

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which a forward pass runs."""
        return torch.autocast(
            self.kind,
            dtype=torch.bfloat16,
            enabled=self.precision == "bfloat16",
        )

    def describe(self) -> dict[str, str]:
        """Return device name, precision and threads, for the record."""
        if self.kind == "cuda":
            name = torch.cuda.get_device_name(self.device)
        else:
            name = f"cpu ({torch.backends.cpu.get_cpu_capability()})"
        return {
            "device": name,
            "precision": self.precision,
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
        }


def _cpu_has_bfloat16() -> bool:
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return bool(capability())


def checkpoint_epochs(recipe: Recipe) -> list[int]:
    """Epochs after which a checkpoint is kept: all of a short run, every tenth of a long one."""
    every = 1 if recipe.epochs <= 20 else 10
    return [e for e in range(1, recipe.epochs + 1) if e % every == 0 or e == recipe.epochs]


def recorded_epochs(recipe: Recipe) -> list[int]:
    """Epochs after which the logits of many images are recorded."""
    every = RECORDED_EVERY[base(recipe.scale)]
    return checkpoint_epochs(recipe)[every - 1 :: every]


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Learning rate at a fraction of the training, by the recipe's schedule."""
    if recipe.schedule == "linear":
        return recipe.learning_rate * (1 - progress)
    return recipe.learning_rate * 0.1 ** sum(progress >= m for m in recipe.milestones)


Loss = Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def batch_loss(recipe: Recipe, machine: Machine) -> Loss:
    """Return the function that turns a batch into a loss and the logits it came from.

    The function takes the model, images in [0, 1], labels, targets and start noise.
    Standard and adversarial training take the mean cross-entropy over the batch;
    distillation the mean absolute difference over batch and classes (``"l1"``) or the KL
    divergence at a temperature T, summed over classes, averaged over the batch, times T².
    """

    def forward(model: nn.Module, images: Tensor) -> Tensor:
        with machine.autocast():
            logits = model(images)
        return logits.float()  # type: ignore[no-any-return]

    def standard(
        model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        logits = forward(model, images)
        return functional.cross_entropy(logits, labels), logits

    def adversarial(
        model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert recipe.pgd is not None
        with machine.autocast():
            attacked = pgd(model, images, labels, recipe.pgd, noise)
        return standard(model, attacked, labels, targets, noise)

    def distillation(
        model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert recipe.distillation is not None
        logits = forward(model, images)
        if recipe.distillation.loss == "l1":
            return functional.l1_loss(logits, targets, reduction="mean"), logits
        t = recipe.distillation.temperature
        divergence = functional.kl_div(
            functional.log_softmax(logits / t, 1),
            functional.log_softmax(targets / t, 1),
            reduction="batchmean",
            log_target=True,
        )
        return t * t * divergence, logits

    losses = {"standard": standard, "adversarial": adversarial, "distillation": distillation}
    return losses[recipe.method]


def train(
    recipe: Recipe,
    seed: int,
    *,
    machine: Machine | None = None,
    images: Path | None = None,
    targets: np.ndarray | None = None,
    save_every: float = 60.0,
    until: int | None = None,
    budget: Budget | None = None,
) -> Checkpoint:
    """Train a run to its end or less far, resuming where an earlier call was cut.

    On one machine with one number of threads, a run that was killed and resumed has the
    same bits as one that was not: all draws are keyed by epoch and step.

    Parameters
    ----------
    recipe : Recipe
    seed : int
    machine : Machine, optional
    images : Path, optional
        Local copy of the data set.
    targets : ndarray of float32, shape (45000, classes), optional
        One target per training image; needed for distillation.
    save_every : float
        Seconds between rolling checkpoints.
    until : int, optional
        Stop after this epoch, one of `checkpoint_epochs`; default: the last.
    budget : Budget, optional

    Returns
    -------
    Checkpoint
        After the epoch `until`.

    Raises
    ------
    OutOfTime
        If the budget is spent before; the run is saved.
    ReproError
        If the loss is not finite, no checkpoint is kept of `until`, or the run was begun with
        another recipe.
    """
    until = until or recipe.epochs
    if until not in checkpoint_epochs(recipe):
        raise ReproError(
            f"{recipe.run(seed)}: no checkpoint is kept of epoch {until}; expected one of "
            f"{', '.join(map(str, checkpoint_epochs(recipe)))}"
        )
    finished = epoch_file(recipe, seed, until)
    if finished.exists():
        return _same_recipe(Checkpoint.load(finished), recipe, finished)
    machine = (machine or Machine()).resolve()
    if recipe.method == "distillation" and targets is None:
        raise ReproError(f"{recipe.run(seed)}: distillation needs targets, got none")
    budget = budget or Budget()
    budget.check(f"the training of {recipe.run(seed)}")
    run = _Run(recipe, seed, machine, images, targets)
    rolling = rolling_file(recipe, seed)
    if rolling.exists():
        run.restore(_same_recipe(Checkpoint.load(rolling), recipe, rolling))
    with tqdm(
        total=until * len(run.data),
        initial=run.epoch * len(run.data) + run.step * recipe.batch_size,
        unit="img",
        unit_scale=True,
        desc=recipe.run(seed),
        disable=None,
    ) as bar:
        while run.epoch < until:
            run.finish_epoch(bar, rolling, save_every, budget)
        if until < recipe.epochs:
            run.save(rolling)
        else:
            rolling.unlink(missing_ok=True)
    return Checkpoint.load(finished)


def _same_recipe(checkpoint: Checkpoint, recipe: Recipe, path: Path) -> Checkpoint:
    if checkpoint.recipe_hash != recipe.hash:
        raise ReproError(
            f"{path}: expected a checkpoint of recipe {recipe.hash}, got {checkpoint.recipe_hash}; "
            f"likely the recipe was changed since: delete {path.parent} to train anew"
        )
    return checkpoint


_PARTS = ("train", "validation")


class _Run:
    """The state of a training run between two steps."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        machine: Machine,
        images: Path | None,
        targets: np.ndarray | None,
        given: Mapping[str, ImageSet] | None = None,
    ) -> None:
        """Load the images, or take those `given` in the place of the parts of the data set."""
        self.recipe, self.seed, self.machine = recipe, seed, machine
        self.name = recipe.run(seed)
        parts = given or {
            part: image_files.load(recipe.dataset, part, images, recipe.images) for part in _PARTS
        }
        self.data, self.validation = (parts[part] for part in _PARTS)
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

    def finish_epoch(self, bar: tqdm, rolling: Path, save_every: float, budget: Budget) -> None:
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
        if self.epoch in checkpoint_epochs(self.recipe):
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
        loss, logits = self.loss(self.model, images, labels, targets, noise)
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
        if self.epoch in checkpoint_epochs(self.recipe):
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
        found = {"validation_accuracy": natural.item() / len(self.validation)}
        if attacked_too:
            attacked_count = min(VALIDATION_ATTACKED, len(self.validation))
            found["validation_robust_accuracy"] = robust.item() / attacked_count
        return found


def uniform_noise(
    shape: tuple[int, ...], *parts: object, device: torch.device | str = "cpu"
) -> Tensor:
    """Return noise uniform in [-1, 1] for a batch of images, laid out like them, keyed by `parts`.

    The CPU and a GPU draw different numbers.
    """
    noise = torch.empty(shape, device=device, memory_format=torch.channels_last)
    return noise.uniform_(-1, 1, generator=generator("noise", *parts, device=device))


def best_epoch(log: list[dict[str, float]]) -> int:
    """Return the kept epoch with the best trade-off, natural plus robust validation accuracy."""
    kept = [entry for entry in log if "validation_robust_accuracy" in entry]
    if not kept:
        raise ReproError("no epoch was validated; expected at least one kept checkpoint")
    best = max(kept, key=lambda e: e["validation_accuracy"] + e["validation_robust_accuracy"])
    return int(best["epoch"])
