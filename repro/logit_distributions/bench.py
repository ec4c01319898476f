"""Time training and attacks on the device at hand, beside a plain loop and beside the limits.

Images are uniform random bytes: nothing is downloaded, and time does not depend on them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from logit_distributions import recipes
from logit_distributions.images import ImageSet
from logit_distributions.make import graphs
from logit_distributions.make.attack import verdicts
from logit_distributions.make.augment import Epoch, to_float
from logit_distributions.make.network import ResNet18
from logit_distributions.make.options import Machine
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.train import Trainer
from logit_distributions.recipes import Evaluation, Recipe
from logit_distributions.store import files

EPOCH_IMAGES, EVALUATED_IMAGES = 45_000, 10_000
"""What times are extrapolated to: CIFAR-10's training images less validation; its test images."""

CLASSES = 10
METHODS = {"standard": "st", "adversarial": "at", "distillation": "normal"}
WIDTH = {"cpu": 8, "cuda": 64}
"""By kind of device, like the tables below."""

ATTACKED = {"cpu": 100, "cuda": 1000}
"""Images attacked together."""

MATMUL = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices by which the peak is measured."""

COPIED = {"cpu": 2**28, "cuda": 2**31}
"""Bytes copied to measure the bandwidth."""


@dataclass(frozen=True)
class Effort:
    """How much is timed; ``warm_up`` comes first each time.

    Attributes
    ----------
    steps : int
        Of standard training and of distillation; adversarial training gets a quarter.
    iterations : tuple of int
        Of APGD in a short and a long evaluation; their difference is what iterations cost, and
        the rest what each evaluation costs once.
    evaluations : int
        Of each length.
    """

    steps: int = 20
    warm_up: int = 3
    iterations: tuple[int, int] = (2, 7)
    evaluations: int = 3


QUICK = Effort(steps=4, warm_up=1, iterations=(1, 3), evaluations=1)


@dataclass(frozen=True)
class Timing:
    """Seconds of a whole epoch or evaluation, from each of the timed parts of one."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the extrapolated seconds."""
        return float(np.median(self.seconds))

    def __str__(self) -> str:
        median, least, most = (
            f"{each:,.0f}" if each >= 1000 else f"{each:.3g}"
            for each in (self.median, min(self.seconds), max(self.seconds))
        )
        return f"{median} ({least} - {most})"


@dataclass(frozen=True)
class Row:
    """One method: its times, and what an epoch or an evaluation takes at least.

    Attributes
    ----------
    what : str
    ours : Timing
    plain : Timing or None
        None where the public package to compare with is not installed.
    timed : str
        What was timed, for the reader.
    flops : int
    moved : int
        Bytes, estimated.
    peak : float
        FLOP/s of a large matrix product in the same precision.
    bandwidth : float
        Bytes per second of a large copy, reading and writing counted.
    """

    what: str
    ours: Timing
    plain: Timing | None
    timed: str
    flops: int
    moved: int
    peak: float
    bandwidth: float

    @property
    def speed(self) -> float:
        """FLOP/s achieved."""
        return self.flops / self.ours.median

    @property
    def limits(self) -> tuple[float, float]:
        """Seconds at peak arithmetic and at peak bandwidth."""
        return self.flops / self.peak, self.moved / self.bandwidth

    @property
    def bound(self) -> str:
        """Which of the two limits is the later."""
        arithmetic, memory = self.limits
        return "arithmetic" if arithmetic >= memory else "bandwidth"


def random_images(count: int) -> ImageSet:
    """Return uniform random images and labels."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (count, 3, 32, 32), np.uint8)
    labels = draws.integers(0, CLASSES, count)
    return ImageSet(pixels, labels, np.arange(count), tuple(map(str, range(CLASSES))), "")


def durations(
    step: Callable[[], object], warm_up: int, count: int, device: torch.device
) -> list[float]:
    """Return the seconds of each of `count` calls, after some that are not timed.

    A GPU is timed by its own events and not waited for in between.
    """
    for _ in range(warm_up):
        step()
    if device.type != "cuda":
        ends = [time.perf_counter()]
        for _ in range(count):
            step()
            ends.append(time.perf_counter())
        return np.diff(ends).tolist()
    event_type = functools.partial(torch.cuda.Event, enable_timing=True)
    events = [event_type() for _ in range(count + 1)]
    torch.cuda.synchronize()
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(events)]


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, float32 not rounded to TF32."""
    size = MATMUL[device.type]
    a = torch.rand(size, size, device=device).to(dtype)
    b, out = a.clone(), torch.empty_like(a)
    with strict_float32():
        best = min(durations(lambda: torch.mm(a, b, out=out), 2, 5, device))
    return float(2 * size**3 / best)


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes per second, read and written, of a large copy."""
    source = torch.zeros(COPIED[device.type] // 4, device=device)
    target = torch.zeros_like(source)
    best = min(durations(lambda: target.copy_(source), 2, 5, device))
    return 2 * COPIED[device.type] / best


@dataclass(frozen=True)
class Forward:
    """What one image's forward pass takes: FLOPs, and numbers that convolutions put out."""

    flops: int
    elements: int


def forward(width: int) -> Forward:
    """Return what a 32 x 32 image takes in a ResNet-18, as torch counts."""
    model, elements = ResNet18(CLASSES, width).eval(), 0

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(note)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    return Forward(counter.get_total_flops(), elements)


TRAINING_PASSES = 19
"""Times that each layer's output passes memory in a training step: an estimate, without caches.

Forward 7: written; read for its mean and variance; read and written by the normalisation;
read and written by the ReLU; read by the next layer. Backward 12, on as many numbers: the
ReLU reads its output and the gradient and writes (3); the normalisation reads input and
gradient twice and writes (5); the convolution reads the gradient twice and its input once,
and writes (4).
"""

ASCENT_PASSES = 9
"""The same for an attack step, with the normalisation folded into the convolution.

Forward 4: written; read and written by the ReLU; read by the next layer. Backward 5: the
ReLU reads the output and the gradient and writes; the convolution reads and writes.
"""

GRADIENTS = 2 * (Evaluation.iterations + 1)
"""Of both attacks on an image that is never fooled."""


def training_flops(one: Forward, recipe: Recipe) -> int:
    """Return the FLOPs of an epoch: three forward passes' worth a step, two for each of PGD."""
    ascents = recipe.pgd.steps if recipe.pgd else 0
    return EPOCH_IMAGES * (3 + 2 * ascents) * one.flops


def attack_flops(one: Forward) -> int:
    """Return the FLOPs of the evaluation, at most: those that are fooled leave the batch."""
    return EVALUATED_IMAGES * (2 * GRADIENTS + 3) * one.flops


def training_bytes(one: Forward, recipe: Recipe, number: int) -> int:
    """Return an estimate of the bytes that activations of `number` bytes move in an epoch."""
    ascents = recipe.pgd.steps if recipe.pgd else 0
    return EPOCH_IMAGES * (TRAINING_PASSES + ascents * ASCENT_PASSES) * one.elements * number


def attack_bytes(one: Forward) -> int:
    """Return an estimate, at most, of the bytes that float32 activations move in the evaluation."""
    return EVALUATED_IMAGES * GRADIENTS * ASCENT_PASSES * one.elements * 4


def bench(machine: Machine, width: int, effort: Effort) -> Iterator[Row]:
    """Time everything; yield each row when it is done."""
    machine = machine.resolve()
    device = torch.device(machine.device)
    bfloat16 = machine.precision == "bfloat16"
    peak = peak_flops(device, torch.bfloat16 if bfloat16 else torch.float32)
    strict_peak = peak_flops(device, torch.float32) if bfloat16 else peak
    bandwidth = copy_bandwidth(device)
    one = forward(width)
    for method, name in METHODS.items():
        recipe = dataclasses.replace(recipes.recipe(name), width=width)
        steps = max(effort.steps // (1 if recipe.pgd is None else 4), 1)
        of_an_epoch = EPOCH_IMAGES / recipe.batch_size
        ours, plain = (
            Timing(
                tuple(of_an_epoch * seconds for seconds in timed(recipe, machine, effort, steps))
            )
            for timed in (_our_steps, _plain_steps)
        )
        flops = training_flops(one, recipe)
        moved = training_bytes(one, recipe, 2 if bfloat16 else 4)
        yield Row(
            f"{method} epoch of {EPOCH_IMAGES:,}", ours, plain,
            f"{steps} steps of {recipe.batch_size}", flops, moved, peak, bandwidth,
        )  # fmt: skip
    count = ATTACKED[device.type]
    engines = ["repro"] + ["autoattack"] * (importlib.util.find_spec("pyautoattack") is not None)
    timings = [Timing(_evaluations(each, width, device, count, effort)) for each in engines]
    short, long = effort.iterations
    yield Row(
        f"two attacks on {EVALUATED_IMAGES:,}", timings[0], timings[1] if timings[1:] else None,
        f"{effort.evaluations} x {short} and {long} of 100 iterations on {count}",
        attack_flops(one), attack_bytes(one), strict_peak, bandwidth,
    )  # fmt: skip


def _our_steps(recipe: Recipe, machine: Machine, effort: Effort, steps: int) -> list[float]:
    device = torch.device(machine.device)
    warm_up = effort.warm_up
    if device.type == "cuda" and machine.graphs:
        warm_up += graphs.WARM_UP + 2
    data = random_images((warm_up + steps) * recipe.batch_size)
    targets = np.zeros((len(data), CLASSES), np.float32)
    run = Trainer(recipe, 0, machine, data, data, targets)
    run.model.train()
    draws = Epoch(len(data), "bench", device=device)
    return durations(lambda: run.one_step(draws), warm_up, steps, device)


def _evaluations(
    engine: str, width: int, device: torch.device, count: int, effort: Effort
) -> tuple[float, ...]:
    """Return the seconds of evaluations of a network that nothing fools, so that none leaves."""
    model = ResNet18(CLASSES, width).to(device).eval()
    if engine == "repro":
        model.to(memory_format=torch.channels_last)
    with torch.no_grad():
        model.logits.bias[0] += 1000
    data = random_images(count)
    images = to_float(torch.from_numpy(data.images).to(device))
    labels, index = torch.zeros(count, dtype=torch.int64, device=device), torch.arange(count)
    short, long = (
        durations(
            functools.partial(
                verdicts, model, images, labels, index, Evaluation(engine, iterations=iterations)
            ),
            1,
            effort.evaluations,
            device,
        )
        for iterations in effort.iterations
    )
    return tuple(
        EVALUATED_IMAGES / count * whole_evaluation(a, b, effort.iterations)
        for a, b in zip(short, long, strict=True)
    )


def whole_evaluation(short: float, long: float, iterations: tuple[int, int]) -> float:
    """Return the seconds of an evaluation of all iterations, from those of two with fewer.

    Where something else kept the machine busy and the longer one took less time, iterations
    count as free: the time is too small, but never negative.
    """
    few, many = iterations
    return short + max(long - short, 0) * (Evaluation.iterations - few) / (many - few)


class _Tutorial(Dataset[tuple[Tensor, int, int]]):
    """Images as the usual tutorial reads them: one at a time, through PIL and torchvision."""

    def __init__(self, data: ImageSet) -> None:
        self.pixels, self.labels = data.images.transpose(0, 2, 3, 1), data.labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        return self.transform(Image.fromarray(self.pixels[i])), self.labels[i], i


def _plain_steps(recipe: Recipe, machine: Machine, effort: Effort, steps: int) -> list[float]:
    """Time the usual loop: float32, one kernel at a time, images through a DataLoader."""
    device = torch.device(machine.device)
    data = random_images((effort.warm_up + steps) * recipe.batch_size)
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        _Tutorial(data), recipe.batch_size, shuffle=True, pin_memory=on_gpu,
        num_workers=min(8, os.cpu_count() or 1) if on_gpu else 0,
    )  # fmt: skip
    batches = iter(loader)
    model = ResNet18(CLASSES, recipe.width).to(device)
    targets = torch.zeros(len(data), CLASSES, device=device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    losses = []

    def step() -> None:
        images, labels, index = (each.to(device) for each in next(batches))
        if recipe.pgd is not None:
            images = _plain_pgd(model, images, labels, recipe.pgd)
        model.train()
        logits = model(images)
        if recipe.distillation is not None:
            loss = functional.l1_loss(logits, targets[index])
        else:
            loss = functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())

    return durations(step, effort.warm_up, steps, device)


def _plain_pgd(model: nn.Module, images: Tensor, labels: Tensor, how: recipes.PGD) -> Tensor:
    model.eval()
    low, high = (images - how.eps).clamp(min=0), (images + how.eps).clamp(max=1)
    adversarial = images + torch.empty_like(images).uniform_(-how.eps, how.eps)
    for _ in range(how.steps):
        adversarial = adversarial.detach().requires_grad_()
        loss = functional.cross_entropy(model(adversarial), labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        adversarial = torch.clamp(adversarial.detach() + how.step * gradient.sign(), low, high)
    return adversarial


def table(rows: list[Row], machine: Machine, width: int) -> Iterator[str]:
    """Yield the lines of the report."""
    described = machine.describe()
    yield (
        f"{described['device']}, {described['threads']} threads, torch {described['torch']}; "
        f"ResNet-18 of width {width}; training in {machine.precision}, attacks in float32"
    )
    yield ""
    yield (
        f"{'seconds: median (min - max)':27s}{'logitdist':>25s}{'plain loop':>25s}"
        "   timed, after warm-up"
    )
    for row in rows:
        plain = "not installed" if row.plain is None else str(row.plain)
        yield f"{row.what:27s}{row.ours!s:>25s}{plain:>25s}   {row.timed}"
    yield ""
    yield (
        f"{'limits':27s}{'PFLOP':>10s}{'TFLOP/s':>10s}{'peak':>8s}{'s at peak':>11s}"
        f"{'TB moved':>10s}{'TB/s':>9s}{'s to move':>11s}   bound by"
    )
    for row in rows:
        arithmetic, memory = row.limits
        share = max(arithmetic, memory) / row.ours.median
        yield (
            f"{row.what:27s}{row.flops / 1e15:10.3g}{row.speed / 1e12:10.3g}{row.peak / 1e12:8.3g}"
            f"{arithmetic:11.3g}{row.moved / 1e12:10.3g}{row.bandwidth / 1e12:9.3g}{memory:11.3g}"
            f"   {row.bound}, {share:.0%} of it reached"
        )
    yield ""
    yield (
        "Uniform random images. FLOPs: convolutions and linear layer. Peak: a large matrix "
        "product in the same precision;"
    )
    yield (
        f"TB/s: a large copy. TB moved: an estimate, each layer's output {TRAINING_PASSES} "
        f"times in a training step, {ASCENT_PASSES} in an attack step."
    )
    yield (
        "Attacks: APGD-CE and APGD-DLR on a network that nothing fools, so an upper bound; "
        "beside the official AutoAttack."
    )


def to_json(rows: list[Row], machine: Machine, width: int) -> dict[str, Any]:
    """Return what was measured as plain data; speeds by method and for ``"attack"``."""
    described = machine.describe()
    return {
        "device": described["device"],
        "width": width,
        "precision": machine.precision,
        "threads": int(described["threads"]),
        "torch": described["torch"],
        **{
            name: {
                "flops_per_second": row.speed,
                "seconds": row.ours.seconds,
                "plain_seconds": None if row.plain is None else row.plain.seconds,
                "timed": row.timed,
                "flops": row.flops,
                "bytes_estimated": row.moved,
                "peak_flops_per_second": row.peak,
                "bytes_per_second": row.bandwidth,
            }
            for name, row in zip((*METHODS, "attack"), rows, strict=True)
        },
    }


def write_json(path: Path, measured: dict[str, Any]) -> None:
    """Write the measurements, whole or not at all."""
    with files.atomic(path) as temporary:
        temporary.write_text(json.dumps(measured, indent=2) + "\n")
