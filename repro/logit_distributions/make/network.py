"""ResNet-18 for 32 x 32 images: torchvision's blocks, a CIFAR stem, any width."""

from __future__ import annotations

import copy
import importlib
import sys
from collections import OrderedDict
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from logit_distributions.errors import ReproError, brief
from logit_distributions.make.augment import to_float
from logit_distributions.make.precision import strict_float32

PIXEL_MEAN = (0.4914, 0.4822, 0.4465)
PIXEL_STD = (0.2470, 0.2435, 0.2616)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) with a 3x3 stride-1 stem and no max-pool.

    Pixels enter in [0, 1]; they are normalised inside, so every attack works in pixel
    space. The modules `STAGES` name the places where activations can be read.

    Parameters
    ----------
    classes : int
    width : int
        Channels of the first stage; 64 is the network of the paper. A multiple of 8:
        with other numbers, torch's channels-last convolutions were seen to corrupt memory
        on a CPU (torch 2.14.1, AVX2).

    Raises
    ------
    ReproError
        If `width` is not a positive multiple of 8.
    """

    STAGES = ("normalise", "stem", "layer1", "layer2", "layer3", "layer4", "pool", "logits")

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise ReproError(f"width: expected a positive multiple of 8, got {width}")
        self.normalise = Normalise()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.logits = nn.Linear(8 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Map pixels in [0, 1], shape (n, 3, rows, columns), to logits, shape (n, classes)."""
        for stage in self.STAGES:
            images = self.get_submodule(stage)(images)
        return images


def build(name: str, classes: int, width: int = 64) -> nn.Module:
    """Return a network for 32 x 32 images, with random weights, by name.

    Parameters
    ----------
    name : str
        ``"resnet18"``, that of the paper; any other ResNet, Wide ResNet or ResNeXt of
        torchvision, or with ``timm:`` before it of timm; these get the same stem.
    classes : int
    width : int
        Of ``"resnet18"``; the others have their own.

    Raises
    ------
    ReproError
        If there is no such network, or it is of another kind.
    """
    if name == "resnet18":
        return ResNet18(classes, width)
    library, _, rest = name.rpartition(":")
    try:
        if library == "timm":
            import timm

            inner = timm.create_model(rest, num_classes=classes)
        elif library:
            raise ValueError(f"no library {library!r}")
        else:
            inner = torchvision.models.get_model(rest, weights=None, num_classes=classes)
        first, _ = inner.conv1, inner.maxpool
        inner.conv1 = nn.Conv2d(3, first.out_channels, 3, padding=1, bias=False)
        inner.maxpool = nn.Identity()
    except (ImportError, ValueError, RuntimeError, AttributeError) as error:
        raise ReproError(
            f"network {name!r}: expected resnet18 or another ResNet of torchvision, as "
            f"wide_resnet50_2, or of timm, as timm:resnet26 ({brief(error)})"
        ) from error
    return nn.Sequential(OrderedDict(normalise=Normalise(), network=inner))


class Normalise(nn.Module):
    """Subtract the data set's mean and divide by its standard deviation, per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map pixels in [0, 1] to channels of mean 0 and standard deviation 1."""
        return (images - self.mean) / self.std


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
        )
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride, shortcut), BasicBlock(outputs, outputs)
    )


@strict_float32()
def natural_logits(model: nn.Module, images: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """Return float32 logits of uint8 images, shape (n, classes), of a model in eval mode."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 1000):
            batch = to_float(torch.from_numpy(images[start : start + 1000]).to(device))
            parts.append(model(batch).float().cpu().numpy())
    return np.concatenate(parts)


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in evaluation mode for which only inputs have gradients.

    Every batch normalisation that directly follows a convolution is folded into it, which
    halves the time of an attack step and changes logits by rounding only.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for block in list(model.modules()):
        if isinstance(block, (BasicBlock, Bottleneck, ResNet)):
            for number in "123":
                convolution, norm = f"conv{number}", f"bn{number}"
                if hasattr(block, norm):
                    fused = _fuse(getattr(block, convolution), getattr(block, norm))
                    setattr(block, convolution, fused)
                    setattr(block, norm, nn.Identity())
        elif isinstance(block, nn.Sequential):
            pair = tuple(type(module) for module in block[:2])
            if pair == (nn.Conv2d, nn.BatchNorm2d):
                block[0], block[1] = _fuse(block[0], block[1]), nn.Identity()
    return laid_out(model.requires_grad_(False))


def cast_once(model: nn.Module, device_type: str) -> nn.Module:
    """Cast the weights of a frozen network as the autocast in force would, if any is.

    Autocast keeps the casts of weights that are trained only; others it would cast again in
    every pass. The results have the same bits.
    """
    if torch.is_autocast_enabled(device_type):
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.to(torch.get_autocast_dtype(device_type))
    return model


def laid_out(model: nn.Module) -> nn.Module:
    """Lay a network out channels-last, which is fast, or keep it from it where that is unsafe.

    On the CPU torch's channels-last convolutions were seen to corrupt memory where their number
    of channels is not a multiple of eight (torch 2.14); such a network gets plain inputs.
    """
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    if all(each.out_channels % 8 == 0 for each in convolutions):
        return model.to(memory_format=torch.channels_last)
    model.register_forward_pre_hook(
        lambda module, inputs: tuple(each.contiguous() for each in inputs)
    )
    return model


def _fuse(convolution: nn.Module, norm: nn.Module) -> nn.Module:
    return fuse_conv_bn_eval(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, norm))


def load(weights: Path, factory: str) -> nn.Module:
    """Return a network with its weights, in evaluation mode.

    Parameters
    ----------
    weights : Path
        A state dict: safetensors, or what ``torch.load`` reads with ``weights_only=True``, as
        RobustBench's files; names may begin with ``module.``, as data-parallel training leaves
        them.
    factory : str
        ``module:function``; the function returns the network, which takes pixels in [0, 1].

    Raises
    ------
    ReproError
        If there is no such function, or the weights do not fit.
    """
    model = built(factory)
    try:
        model.load_state_dict(state_of(weights))
    except (RuntimeError, KeyError) as error:
        raise ReproError(
            f"{weights}: weights do not fit the network of {factory} ({brief(error)})"
        ) from error
    return laid_out(model.eval())


def built(factory: str) -> nn.Module:
    """Return the network that ``module:function`` makes, from the current folder too."""
    module, _, function = factory.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        model = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ReproError(
            f"--model {factory}: expected MODULE:FUNCTION, a function without arguments that "
            f"returns a network ({brief(error)})"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise ReproError(f"--model {factory}: expected a torch module, got {type(model).__name__}")
    return model


def check_outputs(model: nn.Module, factory: str, classes: int) -> None:
    """Refuse a network that does not map 32 x 32 images to so many logits."""
    image = np.zeros((1, 3, 32, 32), np.uint8)
    try:
        outputs = natural_logits(model, image, "cpu").shape[-1]
    except Exception as error:
        raise ReproError(
            f"--model {factory}: expected a network that takes images of 32 x 32 pixels and "
            f"returns logits ({brief(error)})"
        ) from error
    if outputs != classes:
        raise ReproError(
            f"--model {factory}: expected {classes} logits, got {outputs}; likely a network of "
            "another data set"
        )


def state_of(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, whatever it is wrapped in."""
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        state = loaded.get("state_dict", loaded)
        return {
            name.removeprefix("module."): tensor
            for name, tensor in state.items()
            if isinstance(tensor, Tensor)
        }
    except Exception as error:
        raise ReproError(
            f"{path}: expected a state dict as safetensors or a weights-only .pt "
            f"({brief(error)}); save model.state_dict()"
        ) from error
