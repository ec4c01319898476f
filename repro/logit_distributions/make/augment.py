"""Random crop and horizontal flip of a whole batch at once, on the device that holds it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from logit_distributions.make.randomness import generator

PADDING = 4


class Epoch:
    """The order and the augmentations of one epoch, drawn at once, keyed by (seed, epoch).

    The draws are made on the CPU, so that every device sees the same epoch.

    Parameters
    ----------
    size : int
        Number of training images.
    parts : object
        What the draws are keyed by, for instance ``(seed, epoch)``.
    """

    def __init__(self, size: int, *parts: object, device: torch.device | str = "cpu") -> None:
        draws = generator("epoch", *parts)
        self.order = torch.randperm(size, generator=draws).to(device)
        self.shift = torch.randint(0, 2 * PADDING + 1, (size, 2), generator=draws).to(device)
        self.flip = torch.randint(0, 2, (size,), generator=draws).bool().to(device)

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions, shifts and flips of the samples ``start:stop`` of the order."""
        index = self.order[start:stop]
        return index, self.shift[index], self.flip[index]


def crop_and_flip(images: Tensor, shift: Tensor, flip: Tensor) -> Tensor:
    """Shift each image inside its zero-padded frame and mirror where `flip` is set.

    Parameters
    ----------
    images : Tensor of uint8, shape (n, channels, rows, columns)
    shift : Tensor of int64, shape (n, 2)
        Row and column of the crop's corner in the padded frame; ``PADDING`` leaves the
        image where it is.
    flip : Tensor of bool, shape (n,)

    Returns
    -------
    Tensor of uint8, shape of `images`
    """
    n, channels, rows, columns = images.shape
    device = images.device
    padded = functional.pad(images, (PADDING,) * 4)
    row = shift[:, :1] + torch.arange(rows, device=device)
    column = torch.arange(columns, device=device).expand(n, -1)
    column = torch.where(flip[:, None], columns - 1 - column, column) + shift[:, 1:]
    return padded[
        torch.arange(n, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        row[:, None, :, None],
        column[:, None, None, :],
    ]


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 pixels to float32 in [0, 1], channels last in memory; leave float32 ones."""
    if images.dtype == torch.uint8:
        images = images.float().div_(255)
    return images.contiguous(memory_format=torch.channels_last)
