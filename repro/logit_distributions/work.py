"""How much arithmetic and memory traffic a run takes, from the architecture alone.

A multiply-add is two floating-point operations (FLOPs). Counted are convolutions and the
linear layer; everything else in a ResNet is below one per cent of the arithmetic, but not of
the memory traffic. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from logit_distributions.recipes import Recipe

STRIDES = (1, 2, 2, 2)
"""Of the four stages of ResNet-18; each has two blocks, each stage after the first is twice as
wide."""


class Layer(NamedTuple):
    """A convolution, or the linear layer as one of a single pixel.

    Attributes
    ----------
    inputs, outputs : int
        Channels.
    kernel : int
        Rows and columns of the kernel.
    side : int
        Rows and columns of the output.
    """

    inputs: int
    outputs: int
    kernel: int
    side: int

    @property
    def flops(self) -> int:
        """FLOPs of one image's forward pass; the gradient by input or by weight takes as many."""
        return 2 * self.inputs * self.outputs * (self.kernel * self.side) ** 2

    @property
    def elements(self) -> int:
        """Numbers in one image's output."""
        return self.outputs * self.side**2


def layers(width: int, classes: int, side: int = 32) -> Iterator[Layer]:
    """Yield the layers of `network.ResNet18` for square images of `side` pixels."""
    yield Layer(3, width, 3, side)
    inputs = width
    for stage, stride in enumerate(STRIDES):
        outputs, side = width << stage, side // stride
        yield Layer(inputs, outputs, 3, side)
        if inputs != outputs or stride != 1:
            yield Layer(inputs, outputs, 1, side)
        yield from [Layer(outputs, outputs, 3, side)] * 3
        inputs = outputs
    yield Layer(inputs, classes, 1, 1)


@dataclass(frozen=True)
class Forward:
    """What one image's forward pass takes.

    Attributes
    ----------
    flops : int
        Of convolutions and linear layers.
    first : int
        Of these, those of the first layer, whose input needs no gradient in training.
    elements : int
        Numbers that all these layers put out.
    """

    flops: int
    first: int
    elements: int

    @classmethod
    def of(cls, layers: Iterable[tuple[int, int]]) -> Forward:
        """Return the sum of layers, each given by its FLOPs and its numbers."""
        flops, elements = zip(*layers, strict=True)
        return cls(sum(flops), flops[0], sum(elements))


def resnet18(width: int, classes: int) -> Forward:
    """Return what a 32 x 32 image takes in `network.ResNet18`."""
    return Forward.of((each.flops, each.elements) for each in layers(width, classes))


def ascent_flops(one: Forward) -> int:
    """Return the FLOPs of one image's attack step: forward, and the gradient by the input."""
    return 2 * one.flops


def training_flops(one: Forward, recipe: Recipe, images: int) -> int:
    """Return the FLOPs of training on so many images, which is an epoch for all of them.

    A training step takes three forward passes' worth (forward, gradients by the weights and
    by the inputs) but for the first layer, whose input needs no gradient. Adversarial
    training takes an attack step more for each step of its PGD; a student's targets are not
    counted here, see `targets_flops`.
    """
    each = 3 * one.flops - one.first
    if recipe.pgd is not None:
        each += recipe.pgd.steps * ascent_flops(one)
    return images * each


def targets_flops(one: Forward, images: int, passes: int) -> int:
    """Return the FLOPs of a teacher's logits of so many images, averaged over `passes`."""
    return passes * images * one.flops


def attack_flops(
    one: Forward, images: int, iterations: int = 100, restarts: int = 1, attacks: int = 2
) -> int:
    """Return the FLOPs of an evaluation by APGD, as an upper bound.

    It takes so many if no image is ever fooled; those that are leave the batch. Each restart
    of each attack has ``iterations + 1`` gradients and a judging forward pass; one more
    forward pass is the natural one.
    """
    runs = attacks * restarts
    each = runs * (iterations + 1) * ascent_flops(one)
    return images * (each + (1 + runs) * one.flops)


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


def training_bytes(one: Forward, recipe: Recipe, images: int, number: int) -> int:
    """Return an estimate of the bytes that activations move in training on so many images.

    A number takes `number` bytes. Weights are left out: a batch shares them.
    """
    passes = TRAINING_PASSES
    if recipe.pgd is not None:
        passes += recipe.pgd.steps * ASCENT_PASSES
    return images * passes * one.elements * number


def attack_bytes(
    one: Forward, images: int, iterations: int = 100, restarts: int = 1, attacks: int = 2,
    number: int = 4,
) -> int:  # fmt: skip
    """Return an estimate, as an upper bound like `attack_flops`, of the bytes of activations."""
    gradients = attacks * restarts * (iterations + 1)
    return images * gradients * ASCENT_PASSES * one.elements * number
