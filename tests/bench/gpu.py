"""Where a GPU spends its time: the kernels of a training step, and an attack step by layout.

``python -m tests.bench.gpu`` prints the kernels of a step of each method, started one by one, by
their time; then the milliseconds of a float32 attack step, with and without TF32, channels last
and contiguous, with cuDNN's algorithms chosen by rule and by timing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from logit_distributions import bench, recipes
from logit_distributions.make import attack, train
from logit_distributions.make.augment import Epoch
from logit_distributions.make.network import ResNet18, frozen
from logit_distributions.make.precision import strict_float32, tuned_convolutions

WARM_UP, STEPS, KERNELS = 3, 5, 30
LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
PRECISIONS = {"strict": strict_float32, "TF32": contextlib.nullcontext}
CHOICES = {"by rule": contextlib.nullcontext, "by timing": tuned_convolutions}


def kernels_of_a_step(name, machine, width):
    recipe = dataclasses.replace(recipes.recipe(name), width=width)
    data = bench.random_images((WARM_UP + STEPS) * recipe.batch_size)
    targets = np.zeros((len(data), bench.CLASSES), np.float32)
    run = train.Trainer(recipe, 0, machine, data, data, targets)
    run.model.train()
    draws = Epoch(len(data), "bench", device=machine.device)
    for _ in range(WARM_UP):
        run.one_step(draws)
    run.assert_finite()
    activity = ProfilerActivity.CUDA if machine.kind == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiled:
        for _ in range(STEPS):
            run.one_step(draws)
        run.assert_finite()
    field = "self_device_time_total" if machine.kind == "cuda" else "self_cpu_time_total"
    operators = sorted(profiled.key_averages(), key=lambda each: -getattr(each, field))
    total = sum(getattr(each, field) for each in operators)
    print(f"\n{name}: {total / 1000 / STEPS:.3g} ms of kernels a step")
    for each in operators[:KERNELS]:
        milliseconds = getattr(each, field) / 1000 / STEPS
        print(f"{milliseconds:9.3f} ms  {each.count / STEPS:6.0f} x  {each.key[:110]}")


def attack_steps(machine, width, count):
    device = torch.device(machine.device)
    flops = count * 2 * bench.forward(width).flops
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    print(f"\nan attack step on {count} images, float32")
    for precision, layout, choice in itertools.product(PRECISIONS, LAYOUTS, CHOICES):
        network = ResNet18(bench.CLASSES, width).to(device)
        network = frozen(network).to(memory_format=LAYOUTS[layout])
        images = torch.rand(count, 3, 32, 32, device=device).contiguous(
            memory_format=LAYOUTS[layout]
        )

        def step(network=network, images=images):
            attack._ascend(network, images, labels, attack.cross_entropy)

        with PRECISIONS[precision](), CHOICES[choice]():
            best = min(bench.durations(step, WARM_UP, STEPS, device))
        print(
            f"{precision:8s}{layout:15s}{choice:11s}{1000 * best:9.3g} ms"
            f"{flops / best / 1e12:9.3g} TFLOP/s",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--count", type=int, default=1000, help="images attacked together")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    machine = train.Machine(arguments.device, graphs=False).resolve()
    for name in bench.METHODS.values():
        kernels_of_a_step(name, machine, arguments.width)
    attack_steps(machine, arguments.width, arguments.count)


if __name__ == "__main__":
    main()
