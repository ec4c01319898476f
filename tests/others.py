"""Networks and pictures of others, as they come: files of weights with code that makes them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from tests import toy


def own_network() -> nn.Module:
    """Return a network that is not ours."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(1800, 10)
    )


def normalised_network() -> nn.Module:
    """Return a network with weights of the same names that normalises its inputs."""

    class Normalised(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward((images - 0.5) / 0.25)

    return Normalised(*own_network())


def noisy_network() -> nn.Module:
    """Return a network with weights of the same names that adds noise to its inputs."""

    class Noisy(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images + 0.1 * torch.randn_like(images))

    return Noisy(*own_network())


def hundred() -> nn.Module:
    """Return a network of a hundred classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))


def of_small_images() -> nn.Module:
    """Return a network for images of 16 x 16 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 10))


def weights(folder, suffix):
    path, state = folder / f"mine{suffix}", own_network().state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def pictures(folder, form):
    pixels, labels = toy.arrays(1, 5)
    if form == "npz":
        np.savez(folder / "images.npz", images=pixels, labels=labels)
        return folder / "images.npz"
    (folder / "pictures").mkdir()
    for i, each in enumerate(pixels):
        Image.fromarray(each.transpose(1, 2, 0)).save(folder / "pictures" / f"{i:02d}.png")
    return folder / "pictures"
