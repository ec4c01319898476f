"""ResNet-18 for 32 x 32 images: torchvision's blocks, a CIFAR stem, any width."""

from __future__ import annotations

import copy
import importlib
import re
import sys
import traceback
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

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
def natural_logits(model: nn.Module, images: NDArray[Any], device: str) -> NDArray[np.float32]:
    """Return float32 logits, shape (n, classes), of images as `to_float` takes them.

    The model is in evaluation mode.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 1000):
            batch = to_float(torch.from_numpy(images[start : start + 1000]).to(device))
            parts.append(model(batch).float().cpu().numpy())
    return np.concatenate(parts)


class Guarded(nn.Module):
    """A network of others, called on copies of the images, in plain memory, and never rewritten.

    So a forward that normalises in place changes nobody's images, and one that takes a view of a
    convolution's output finds it laid out as it expects.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, images: Tensor) -> Any:
        """Return what the network makes of a copy of the images."""
        return self.model(images.clone(memory_format=torch.contiguous_format))


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in evaluation mode for which only inputs have gradients.

    Every batch normalisation that directly follows a convolution is folded into it, which
    halves the time of an attack step and changes logits by rounding only. That it does follow is
    known of torchvision's own classes, not of what is derived from them; of a network of others
    `attackable` compares. A `Guarded` one is returned as it is.
    """
    if isinstance(model, Guarded):
        return model
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for block in list(model.modules()):
        if type(block) in (BasicBlock, Bottleneck, ResNet):
            for number in "123":
                convolution, norm = f"conv{number}", f"bn{number}"
                if hasattr(block, norm) and _folds(
                    getattr(block, convolution), getattr(block, norm)
                ):
                    fused = _fuse(getattr(block, convolution), getattr(block, norm))
                    setattr(block, convolution, fused)
                    setattr(block, norm, nn.Identity())
        elif type(block) is nn.Sequential and len(block) > 1 and _folds(block[0], block[1]):
            block[0], block[1] = _fuse(block[0], block[1]), nn.Identity()
    return laid_out(model.requires_grad_(False))


def _folds(convolution: nn.Module, norm: nn.Module) -> bool:
    """True if these are exactly a convolution and a batch normalisation by running statistics."""
    return (
        type(convolution) is nn.Conv2d
        and type(norm) is nn.BatchNorm2d
        and norm.running_mean is not None
    )


FOLDING_ERROR = 1e-4
"""Largest difference between logits before and after folding, over the largest logit."""


@torch.no_grad()
@strict_float32()
def attackable(model: nn.Module, images: Tensor) -> nn.Module:
    """Return the fastest network that gives the logits of `model`, to be attacked in its place.

    That is the `frozen` one, if it gives the same logits on `images`; else the given one, called
    on copies.
    """
    given = model if isinstance(model, Guarded) else Guarded(model)
    rewritten = given.model if isinstance(model, Guarded) else model
    try:
        fast = frozen(rewritten)
        # networks that draw are compared on the same draws
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(0)
            expected = given(images)
            torch.manual_seed(0)
            leaf = images.clone(memory_format=torch.channels_last).requires_grad_()
            with torch.enable_grad():  # which refuses a forward that works in place
                logits = fast(leaf).detach()
        error, scale = (logits - expected).abs().max(), expected.abs().max()
        if logits.shape == expected.shape and error <= FOLDING_ERROR * scale.clamp(min=1e-3):
            return fast
    except Exception:  # of any kind: a copy that cannot be made or run is not attacked
        return given
    return given


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
        As `state_of` reads them. Names may begin with any of `PREFIXES`, here or there; buffers
        that are not in the file, such as constants of a normalisation, stay the factory's.
    factory : str
        ``module:function``; the function returns the network, which takes pixels in [0, 1].

    Raises
    ------
    ReproError
        If there is no such function, or the weights do not fit or are not finite.
    """
    return with_weights(built(factory), state_of(weights), f"{weights}", factory)


def with_weights(
    model: nn.Module, state: Mapping[str, Tensor], weights: str, factory: str
) -> nn.Module:
    """Return the network of a factory with weights, in evaluation mode; `weights` names them."""
    model.load_state_dict(_fitted(state, model, weights, factory))
    return model.eval()


PREFIXES = ("module.", "_orig_mod.", "model.")
"""What training in parallel, compiling or a wrapper puts before the names of weights."""


def _bare(name: str) -> str:
    """Return the name of a tensor without any of `PREFIXES`."""
    while prefix := next((each for each in PREFIXES if name.startswith(each)), ""):
        name = name.removeprefix(prefix)
    return name


def _fitted(
    state: Mapping[str, Tensor], model: nn.Module, weights: str, factory: str
) -> dict[str, Tensor]:
    """Return the tensors of a file by the names of the model, or refuse them by name."""
    own = model.state_dict()
    if own.keys() != state.keys():
        names = {_bare(name): name for name in own}
        if len(names) == len(own) and len({_bare(name) for name in state}) == len(state):
            state = {names.get(_bare(name), name): each for name, each in state.items()}
        if "n_averaged" not in own:  # of torch's averaged models
            state = {name: each for name, each in state.items() if name != "n_averaged"}
    constants = {
        name
        for name, _ in model.named_buffers()
        if name.rpartition(".")[2] not in ("running_mean", "running_var")
    }
    faults = {
        "missing": [name for name in own if name not in state and name not in constants],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(each.shape)}, expected {tuple(own[name].shape)}"
            for name, each in state.items()
            if name in own and own[name].shape != each.shape
        ],
    }
    if any(faults.values()):
        said = "; ".join(f"{what}: {_some(names)}" for what, names in faults.items() if names)
        raise ReproError(f"{weights}: weights do not fit the network of {factory}: {said}")
    for name, each in state.items():
        if not torch.isfinite(each).all():
            raise ReproError(
                f"{weights}: expected finite weights, got NaN or infinity in {name}; likely saved "
                "after the training had diverged"
            )
    return {**own, **state}


def _some(names: Sequence[str]) -> str:
    """Return the first three of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def built(factory: str) -> nn.Module:
    """Return the network that ``module:function`` makes, from the current folder too.

    Raises
    ------
    ReproError
        If there is no such function, or it raises anything: with type, text and place.
    """
    module, colon, function = factory.partition(":")
    if not (module and colon and function.isidentifier()):
        raise ReproError(
            f"--model {factory}: expected MODULE:FUNCTION, a function without arguments that "
            "returns a network"
        )
    sys.path.insert(0, str(Path.cwd()))
    try:
        made = importlib.import_module(module)
        if not callable(getattr(made, function, None)):
            raise ReproError(
                f"--model {factory}: expected MODULE:FUNCTION, but {module} "
                f"({getattr(made, '__file__', None)}) has no function {function!r}"
            )
        model = getattr(made, function)()
    except ReproError:
        raise
    except (Exception, SystemExit) as error:
        raise ReproError(
            f"--model {factory}: expected a function without arguments that returns a network; "
            f"it raised {type(error).__name__}: {brief(error)}{_place(error)}"
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(model, nn.Module):
        raise ReproError(f"--model {factory}: expected a torch module, got {type(model).__name__}")
    return model


def _place(error: BaseException) -> str:
    """Return the file and line where an exception was raised, of the caller's code if any."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is ours
    frames = [
        each for each in frames if not each.filename.startswith(("<", str(importlib.__file__)))
    ]
    own = [each for each in frames if "site-packages" not in each.filename] or frames
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema")
"""Entries of a checkpoint that hold the weights, what is looked for first first."""


def state_of(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, whatever it is wrapped in.

    Parameters
    ----------
    path : Path
        safetensors, or what ``torch.load`` reads with ``weights_only=True``: a state dict, bare or
        under one of `WRAPPERS`, or a list of one.

    Raises
    ------
    ReproError
        If it is missing, holds code or no weights, or those of several networks.
    """
    if not path.is_file():
        raise ReproError(f"{path}: no such file; expected weights as safetensors or .pt")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            loaded: Any = load_file(path)
        except Exception as error:
            raise ReproError(
                f"{path}: expected weights as safetensors, got something else ({brief(error)}); "
                "likely truncated"
            ) from error
    else:
        loaded = _unpickled(path)
    state = _unwrapped(loaded, path)
    if any(name.startswith("model.") for name in state):  # of ours, with the optimizer's state
        state = {name: each for name, each in state.items() if not name.startswith("momentum.")}
    return state


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code or "TorchScript" in str(error):
            what = f"code ({code[1]})" if code else "a TorchScript archive"
            raise ReproError(
                f"{path}: expected weights alone, got {what}; it is not opened, as it could run "
                "anything: save model.state_dict()"
            ) from error
        raise ReproError(
            f"{path}: expected a state dict as safetensors or a weights-only .pt, got something "
            f"else ({brief(error)}); likely truncated, or no checkpoint"
        ) from error


def _unwrapped(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors by name that what was read holds, however deep."""
    if isinstance(loaded, (list, tuple)):
        if len(loaded) != 1:
            raise ReproError(
                f"{path}: expected the weights of one network, got those of {len(loaded)}; save "
                "the state dict of one"
            )
        return _unwrapped(loaded[0], path)
    if not isinstance(loaded, Mapping):
        raise ReproError(
            f"{path}: expected a state dict, names and tensors, got {type(loaded).__name__}; save "
            "model.state_dict()"
        )
    for name in WRAPPERS:
        if isinstance(loaded.get(name), (Mapping, list, tuple)):
            return _unwrapped(loaded[name], path)
    state = {str(name): each for name, each in loaded.items() if isinstance(each, Tensor)}
    if not state:
        names = _some([str(name) for name in loaded]) or "nothing"
        raise ReproError(f"{path}: expected a state dict, names and tensors, got {names}")
    return state
