"""What a network of others and its images must be for a verdict to mean what it says.

What cannot be evaluated is refused in one line, before minutes are spent; a premise that fails,
such as a forward that draws random numbers, is a sentence to be stored with the result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from logit_distributions.errors import ReproError, brief
from logit_distributions.make.attack import cross_entropy, margin
from logit_distributions.make.precision import strict_float32

BATCH = 250
"""Images of 32 x 32 pixels on which premises are checked, as in AutoAttack; fewer larger ones."""

# What is refused


def check_model(model: nn.Module, what: str = "model") -> None:
    """Refuse what is no module of finite float32 weights in evaluation mode on one device.

    Raises
    ------
    ReproError
    """
    if not isinstance(model, nn.Module):
        raise ReproError(
            f"{what}: expected a torch module, got {type(model).__name__}; wrap a function in one"
        )
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        where = f" in {training[0]}" if training[0] else ""
        raise ReproError(
            f"{what}: expected evaluation mode, got training mode{where}; call model.eval() first"
        )
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, what)
    devices = sorted({str(tensor.device) for tensor in tensors.values()})
    if len(devices) > 1:
        raise ReproError(
            f"{what}: expected all weights on one device, got {' and '.join(devices)}; call "
            f"model.to({devices[0]!r}) first"
        )


def _check_tensor(name: str, tensor: Tensor, what: str) -> None:
    if nn.parameter.is_lazy(tensor) or tensor.is_meta:
        raise ReproError(f"{what}: expected weights, got none in {name}; initialise them first")
    if not tensor.is_floating_point():
        return
    if tensor.dtype != torch.float32:
        raise ReproError(
            f"{what}: expected float32 weights, got {_plain(tensor.dtype)} in {name}; call "
            "model.float() first, as verdicts are given in float32"
        )
    if not torch.isfinite(tensor).all():
        raise ReproError(
            f"{what}: expected finite weights, got NaN or infinity in {name}; likely saved after "
            "the training had diverged"
        )


def check_images(images: Tensor) -> None:
    """Refuse what are no float32 pixels in [0, 1], shape (n, channels, rows, columns).

    Raises
    ------
    ReproError
    """
    if not isinstance(images, Tensor):
        raise ReproError(
            f"images: expected a torch tensor, got {type(images).__module__}."
            f"{type(images).__name__}; torch.from_numpy makes one of an array"
        )
    if images.dtype != torch.float32:
        mend = "images.float()" + (" / 255" if images.dtype == torch.uint8 else "")
        raise ReproError(
            f"images: expected float32 pixels in [0, 1], got {_plain(images.dtype)}; give {mend}"
        )
    shape = tuple(images.shape)
    if len(shape) != 4 or 0 in shape:
        raise ReproError(
            f"images: expected the shape (n, channels, rows, columns), got {shape}"
            + ("; likely one image: give images[None]" if len(shape) == 3 else "")
        )
    if shape[3] in (1, 3) and shape[1] not in (1, 3):
        raise ReproError(
            f"images: expected the shape (n, channels, rows, columns), got {shape}; likely "
            "channels last: give images.permute(0, 3, 1, 2)"
        )
    bad = ~torch.isfinite(images).flatten(1).all(1)
    if bad.any():
        raise ReproError(
            f"images: expected finite pixels, got NaN or infinity in image {_first(bad)}"
        )
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        if low < 0:
            cause = "normalised already: normalisation belongs inside the model"
        else:
            cause = "0 to 255: divide by 255" if high > 2 else "interpolated: clamp them to [0, 1]"
        raise ReproError(
            f"images: expected pixels in [0, 1], got {low:.4g} to {high:.4g}; likely {cause}"
        )


def check_labels(labels: Tensor, count: int) -> None:
    """Refuse what are not as many whole numbers, shape (n,).

    Raises
    ------
    ReproError
    """
    _check_numbers("labels", labels, count)
    labels = labels.long()
    if labels.min() < 0:
        where = _first(labels < 0)
        raise ReproError(
            f"labels: expected classes from 0, got {labels[where].item()} for image {where}"
        )


def check_index(index: Tensor, count: int) -> None:
    """Refuse what are not as many whole numbers of 32 bits, shape (n,), to key random starts by.

    Raises
    ------
    ReproError
    """
    _check_numbers("index", index, count)
    index = index.long()
    if index.min() < 0 or index.max() >= 1 << 31:
        raise ReproError(
            f"index: expected numbers from 0 to 2147483647, got {index.min()} to {index.max()}"
        )


def _check_numbers(name: str, numbers: Tensor, count: int) -> None:
    if not isinstance(numbers, Tensor):
        raise ReproError(
            f"{name}: expected a torch tensor of whole numbers, got "
            f"{type(numbers).__module__}.{type(numbers).__name__}; give torch.as_tensor({name})"
        )
    if numbers.ndim == 2:
        raise ReproError(
            f"{name}: expected the shape ({count},), got {tuple(numbers.shape)}; likely one-hot: "
            f"give {name}.argmax(1)"
        )
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise ReproError(
            f"{name}: expected whole numbers, got {_plain(numbers.dtype)}; give {name}.long()"
        )
    if tuple(numbers.shape) != (count,):
        raise ReproError(
            f"{name}: expected the shape ({count},), one for each image, got {tuple(numbers.shape)}"
        )


@torch.no_grad()
@strict_float32()
def check_network(
    model: nn.Module, images: Tensor, classes: int | None = None, what: str = "model"
) -> Tensor:
    """Return float32 logits of images, or refuse a network that does not give any.

    Parameters
    ----------
    model : Module
        As `check_model` accepts it; never sees the memory of `images` if it is `Guarded`.
    images : Tensor, shape (n, channels, rows, columns)
    classes : int, optional
        How many logits there have to be.
    what : str
        The network's name in messages.

    Raises
    ------
    ReproError
    """
    logits = _called(model, images, what)
    one = _called(model, images[:1], what)
    if one.shape != (1, logits.shape[-1]):
        raise ReproError(
            f"{what}: expected logits of shape (1, {logits.shape[-1]}) for one image, got "
            f"{tuple(one.shape)}" + ("; likely squeeze() without a dimension" * (one.ndim == 1))
        )
    if classes is not None and logits.shape[1] != classes:
        raise ReproError(
            f"{what}: expected {classes} logits, got {logits.shape[1]}; likely a network of "
            "another data set"
        )
    return logits


def _called(model: nn.Module, images: Tensor, what: str) -> Tensor:
    shape = tuple(images.shape)
    try:
        logits = model(images)
    except Exception as error:
        raise ReproError(
            f"{what}: expected a network that takes images of shape {shape} and returns logits, "
            f"got {type(error).__name__}: {brief(error)}"
        ) from error
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        part = "its first entry" if isinstance(logits, (tuple, list)) else "its logits"
        raise ReproError(
            f"{what}: expected a tensor of logits, got {kind}; wrap the network in a module that "
            f"returns {part}"
        )
    if logits.dtype != torch.float32:
        raise ReproError(
            f"{what}: expected float32 logits, got {_plain(logits.dtype)}; likely autocast or a "
            "cast inside the network: verdicts are given in float32"
        )
    if len(images) > 1 and (logits.ndim != 2 or len(logits) != len(images)):
        raise ReproError(
            f"{what}: expected logits of shape ({len(images)}, classes), got {tuple(logits.shape)}"
            + ("; likely a map that is not pooled" if logits.ndim == 4 else "")
        )
    if logits.shape[-1] < 2:
        raise ReproError(
            f"{what}: expected at least two logits an image, got {logits.shape[-1]}; of a binary "
            "network with one logit z give those of two classes, 0 and z"
        )
    bad = ~torch.isfinite(logits.reshape(len(images), -1)).all(1)
    if bad.any():
        raise ReproError(
            f"{what}: expected finite logits, got NaN or infinity for image {_first(bad)}"
        )
    return logits


def check_classes(labels: Tensor, classes: int) -> None:
    """Refuse labels of classes that the network does not have.

    Raises
    ------
    ReproError
    """
    if labels.max() >= classes:
        where = _first(labels >= classes)
        raise ReproError(
            f"labels: expected classes 0 to {classes - 1}, as the network has {classes} logits, "
            f"got {labels[where].item()} for image {where}"
        )


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0])


# What is said

SAME = 1e-5
"""Largest difference over the largest logit at which two passes gave the same logits."""

SAME_BATCHED = 1e-3
"""The same in batches of other sizes, for which libraries choose other algorithms."""

SMALL = 1e-5
"""A change of a pixel that no network ignores, unless it rounds pixels."""

UPPER_BOUND = "adversarial accuracy is an upper bound only"

FAILURES = {
    "random": f"{UPPER_BOUND}, and another one in each run: the network gives other logits for the "
    "same images twice (dropout, noise in its forward)",
    "batch": "verdicts depend on how images are batched: the logits of an image depend on the "
    "others of its batch (batch normalisation without running statistics)",
    "probabilities": f"{UPPER_BOUND}: the outputs are probabilities, not logits, so gradients "
    "vanish where the network is sure; return what the softmax is given",
    "log-probabilities": "the outputs are log-probabilities, not logits: verdicts stand, but their "
    "largest value is no largest logit",
    "dynamic": f"{UPPER_BOUND}: the network takes gradients in its forward (a defence that adapts "
    "to its input), which an attack through it does not see",
    "rounded": f"{UPPER_BOUND}: a small change of all pixels changes no logit, so the network "
    "rounds its input, and a gradient attack tells little",
}
"""By premise, what its failure means."""


@strict_float32()
def failed(model: nn.Module, images: Tensor, labels: Tensor) -> list[str]:
    """Return a sentence for each premise of an attack by gradients that a network does not meet.

    Those of AutoAttack, by its own checks where it is installed, and more.

    Parameters
    ----------
    model : Module
        As `check_network` accepts it.
    images, labels : Tensor
        A first batch.

    Raises
    ------
    ReproError
        If the logits have no gradient in the images at all, so that nothing can be attacked.
    """
    with torch.no_grad():
        flags = _flags(model, images) | _official_flags(model, images, labels)
    return [FAILURES[each] for each in FAILURES if each in flags] + [
        *_gradient_failures(model, images, labels)
    ]


def _flags(model: nn.Module, images: Tensor) -> set[str]:
    logits, again = model(images), model(images)
    scale = logits.abs().max().clamp(min=1e-6)
    flags = set()
    if (again - logits).abs().max() > SAME * scale:
        return _range_flags(logits) | {"random"}  # what else differs is no sign of anything
    for few in (1, (len(images) + 1) // 2):
        if (model(images[:few]) - logits[:few]).abs().max() > SAME_BATCHED * scale:
            flags.add("batch")
    signs = torch.randint(
        2, images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).to(images.device)
    moved = model((images + SMALL * (2 * signs - 1)).clamp(0, 1))
    if (moved == logits).all(1).float().mean() > 0.5:
        flags.add("rounded")
    return flags | _range_flags(logits)


def _range_flags(logits: Tensor) -> set[str]:
    def is_one(sums: Tensor) -> bool:
        return bool(((sums - 1).abs() < 1e-4).all())

    if logits.min() > -1e-5 and logits.max() < 1 + 1e-5 and is_one(logits.sum(1)):
        return {"probabilities"}
    if logits.max() <= 1e-5 and is_one(logits.exp().sum(1)):
        return {"log-probabilities"}
    return set()


class _Heard:
    """Stands for a logger; keeps whether anything was said."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def warning(self, message: str) -> None:
        self.messages.append(message)


def _official_flags(model: nn.Module, images: Tensor, labels: Tensor) -> set[str]:
    """Return which premises AutoAttack's own checks find to fail."""
    try:
        from pyautoattack import checks
    except ImportError:
        return set()
    tracing = sys.gettrace()  # which its check of dynamic networks replaces
    official: Mapping[str, Callable[[_Heard], object]] = {
        "random": lambda heard: checks.check_randomized(model, images, labels, logger=heard),
        "probabilities": lambda heard: checks.check_range_output(model, images, logger=heard),
        "dynamic": lambda heard: checks.check_dynamic(model, images, logger=heard),
    }
    flags = set()
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))  # else it counts earlier networks' calls
    try:
        for flag, check in official.items():
            heard = _Heard()
            check(heard)
            if heard.messages:
                flags.add(flag)
    finally:
        sys.settrace(tracing)
    return flags


def _gradient_failures(model: nn.Module, images: Tensor, labels: Tensor) -> list[str]:
    images = images.clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(images)
            losses = cross_entropy(logits, labels).sum(), margin(logits, labels).sum()
            gradients = [
                torch.autograd.grad(loss, images, retain_graph=True)[0].flatten(1)
                for loss in losses
            ]
    except RuntimeError as error:
        raise ReproError(
            "model: expected logits with a gradient in the images, got none; likely detached, "
            "computed under no_grad or outside torch: an attack by gradients tells nothing of it"
        ) from error
    count = len(images)
    if bad := int((~torch.isfinite(torch.cat(gradients, 1))).any(1).sum()):
        return [f"{UPPER_BOUND}: the gradient is NaN or infinite at {bad} of {count} images"]
    of_loss, of_margin = (int((each == 0).all(1).sum()) for each in gradients)
    if of_margin:
        return [
            f"{UPPER_BOUND}: the logits have no gradient at {of_margin} of {count} images (rounded "
            "inputs, saturated units), so an attack by gradients tells nothing of them"
        ]
    if of_loss:
        return [
            f"{UPPER_BOUND}: the gradient of the cross-entropy is zero at {of_loss} of {count} "
            f"images (logits up to {logits.detach().abs().max().item():.3g}), where APGD-CE cannot "
            "move"
        ]
    return []


def square_failure(robust: Mapping[str, float]) -> list[str]:
    """Return a sentence if Square, which needs no gradients, still lowers the accuracy.

    Parameters
    ----------
    robust : mapping
        Accuracy after each attack, in the order in which they ran.
    """
    if "square" not in robust or len(robust) < 2:
        return []
    before = min(value for name, value in robust.items() if name != "square")
    if robust["square"] >= before - 0.002:
        return []
    return [
        f"{UPPER_BOUND}: Square, which needs no gradient, fools {before - robust['square']:.2%} "
        "more after all attacks by gradients, so these are masked"
    ]
