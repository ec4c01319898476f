"""How many images a device takes best at once, by a short trial at the start."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from logit_distributions.make.precision import strict_float32

CPU_IMAGES = 500
"""On a CPU always so many: sums are rounded by batch there, and a resumed run has the same bits."""

SIZES = (500, 1000, 2000, 4000, 8000)
"""What a GPU is tried with, for images of 32 x 32 pixels. A chunk that a budget cuts is lost."""

WORTH = 1.1
"""Images a second that a doubled size must gain, or the smaller one is taken."""


def images_at_once(model: nn.Module, pixels: Tensor, name: str) -> int:
    """Return how many images are attacked together; on a GPU by a trial, which is logged.

    Parameters
    ----------
    model : Module
        In evaluation mode, on the device of `pixels`.
    pixels : Tensor, shape (n, 3, rows, columns)
        Some images in [0, 1], repeated as needed.
    name : str
        Of the network, for the log.
    """
    smaller = max(1, pixels[0].numel() // 3072)
    if pixels.device.type == "cpu":
        return max(1, CPU_IMAGES // smaller)
    sizes = [size // smaller for size in SIZES if size >= smaller]
    speed: dict[int, float] = {}

    def images_a_second(size: int) -> float:
        speed[size] = size / _seconds(model, pixels, size)
        return speed[size]

    chosen = best_size(images_a_second, sizes or [1])
    tried = ", ".join(f"{size:,}: {each:,.0f}" for size, each in speed.items())
    print(f"logitdist: {name}: {chosen:,} images at once (images/s at {tried})", file=sys.stderr)
    return chosen


def best_size(images_a_second: Callable[[int], float], sizes: Sequence[int]) -> int:
    """Return the last of rising sizes that is worth it; memory that runs out ends the trial.

    Raises
    ------
    torch.OutOfMemoryError
        If even the first size does not fit.
    """
    best, speed = sizes[0], images_a_second(sizes[0])
    for size in sizes[1:]:
        try:
            faster = images_a_second(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if faster < WORTH * speed:
            break
        best, speed = size, faster
    return best


@strict_float32()
def _seconds(model: nn.Module, pixels: Tensor, size: int) -> float:
    """Return the time of a forward and a backward pass, the faster of two after one to warm up."""
    some = pixels.repeat(-(-size // len(pixels)), 1, 1, 1)[:size].requires_grad_()
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        torch.autograd.grad(model(some).sum(), some)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])
