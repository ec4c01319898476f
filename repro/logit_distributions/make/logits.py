"""Stage ``logits``: attack the network that stands for a run, keep its logits."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from logit_distributions import images, recipes
from logit_distributions.errors import ReproError
from logit_distributions.images import ImageSet, content_hash
from logit_distributions.jobs import Job
from logit_distributions.make.attack import attacks_on, verdicts
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes_of_yours, sealed
from logit_distributions.make.network import Guarded, load
from logit_distributions.make.options import Budget, Machine, Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.premises import (
    BATCH,
    check_classes,
    check_images,
    check_index,
    check_labels,
    check_model,
    check_network,
    failed,
    square_failure,
)
from logit_distributions.make.trial import images_at_once
from logit_distributions.progress import Bar
from logit_distributions.recipes import Evaluation
from logit_distributions.store import files

LOGIT_PRECISION = 1 / 1024
"""Step to which logits under attack are rounded: at most 0.1 % of a probability."""


def to_multiples(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Return values rounded to the nearest multiple of `step`."""
    return (np.round(values / step) * step).astype(np.float32)


def rounded(logits: NDArray[np.float32], step: float = LOGIT_PRECISION) -> NDArray[np.float32]:
    """Return logits at the precision at which they are stored.

    Every value goes to the nearest multiple of `step`, but an image whose two largest logits
    would become equal keeps its own, so that no prediction changes.

    Parameters
    ----------
    logits : array of shape (images, classes)
    step : float
    """
    near = to_multiples(logits, step)
    second, largest = np.sort(near, axis=1)[:, -2:].T
    return np.where((second == largest)[:, None], logits, near)


def logits(job: Job, options: Options) -> xr.Dataset:
    """Attack test images with the network that stands for a run, and record its logits.

    The stage itself attacks them in the recipe's ball on all test images (of a sweep the first
    ones); ``logits/ENGINE`` the first `recipes.VERIFIED_IMAGES`, to verify.
    """
    recipe = job.recipe
    checkpoint = Checkpoint.of(job.needs[0])
    data = images.load(recipe.dataset, "test", options.images, recipe.images)
    count = min(recipes.evaluated_images(job.stage, recipe) or len(data), len(data))
    attacked = attack(
        checkpoint.model(len(data.classes)),
        data.take(np.arange(count)),
        recipes.evaluation(job.stage, recipe),
        options,
        (job.run, checkpoint.weights_sha256),
        job.partial,
    )
    return attacked.assign_attrs(checkpoint.attributes("logits", data))


def adversarial(job: Job, options: Options) -> xr.Dataset:
    """Attack the first test images as ``logits`` does, and keep the strongest images."""
    recipe = job.recipe
    checkpoint = Checkpoint.of(job.needs[0])
    data = images.load(recipe.dataset, "test", options.images, recipe.images)
    few = data.take(np.arange(min(recipes.KEPT_IMAGES, len(data))))
    settings, name = recipes.evaluation("logits", recipe), (job.run, checkpoint.weights_sha256)
    model = checkpoint.model(len(data.classes))
    attacked = attack(model, few, settings, options, name, keep_images=True)
    return attacked.assign_attrs(checkpoint.attributes("adversarial", data))


def attack(
    model: nn.Module,
    data: ImageSet,
    settings: Evaluation,
    options: Options,
    name: tuple[str, str],
    partial: Path | None = None,
    keep_images: bool = False,
) -> xr.Dataset:
    """Return the variables of a dataset of kind ``logits`` of any network.

    Logits are computed and judged in float32, whatever the precision of training, then `rounded`.

    Parameters
    ----------
    model : Module
        Maps pixels in [0, 1] to logits; in evaluation mode.
    data : ImageSet
    settings : Evaluation
    options : Options
        The budget is asked before every pass through the network.
    name : tuple of str
        Of the network, and the hash of its weights.
    partial : Path, optional
        Where finished chunks survive a kill.
    keep_images : bool
        Whether natural and strongest images are variables too; not beside `partial`.
    """
    strongest = []
    machine = options.machine.resolve()
    model = model.to(machine.device)
    attacks = attacks_on(len(data.classes), settings)
    first = to_float(torch.from_numpy(data.images[:500]).to(machine.device))
    size = images_at_once(model, first, name[0])
    done = _Done(
        partial, f"{name[1]} {data.sha256} {len(data)} {settings}", len(data.classes), len(attacks)
    )
    with Bar(
        total=len(data),
        initial=done.count,
        unit="img",
        desc=f"{name[0]}: {settings.engine}",
        disable=not options.progress,
    ) as bar:
        while done.count < len(data):
            began = time.monotonic()
            chunk = np.arange(done.count, min(done.count + size, len(data)))
            some = data.take(chunk)
            what = f"image {done.count:,} of the attack on {name[0]}"
            with asked_before_every_pass(model, options.budget, what):
                judged = verdicts(
                    model,
                    to_float(torch.from_numpy(some.images).to(machine.device)),
                    torch.from_numpy(some.labels).to(machine.device),
                    torch.from_numpy(some.index),
                    settings,
                )
            done.add(
                judged.logits.cpu().numpy(),
                judged.adversarial_logits.cpu().numpy(),
                judged.robust.cpu().numpy(),
                time.monotonic() - began,
            )
            if keep_images:
                strongest.append(judged.strongest.cpu().contiguous().numpy())
            bar.update(len(some))
            bar.set_postfix(robust=f"{done.robust[-1].mean():.1%}")
    pixels = {}
    if keep_images:
        natural = to_float(torch.from_numpy(data.images)).contiguous().numpy()
        for kind, each in (("images", natural), ("adversarial_images", np.concatenate(strongest))):
            pixels[kind] = (("sample", "channel", "row", "column"), each)
    return xr.Dataset(
        {
            **pixels,
            "logits": (("sample", "class"), rounded(done.logits)),
            "adversarial_logits": (("sample", "class"), rounded(done.adversarial_logits)),
            "robust": (("attack", "sample"), done.robust),
            "label": ("sample", data.labels.astype(np.int16)),
            "index": ("sample", data.index.astype(np.int32)),
        },
        coords={"class": list(data.classes), "attack": list(attacks)},
        attrs={
            "evaluation": json.dumps(dataclasses.asdict(settings)),
            "rounded_to": LOGIT_PRECISION,
            "seconds_attack": done.seconds,
            **{f"attack_{k}": v for k, v in machine.describe().items()},
            "attack_precision": "float32",
        },
    )


def _batch(data: ImageSet, count: int) -> int:
    """Return how many images take the memory of `count` ones of 32 x 32 pixels."""
    return max(1, count * 3072 // max(3072, int(data.images[0].size)))


@contextmanager
def asked_before_every_pass(model: nn.Module, budget: Budget, what: str) -> Iterator[None]:
    """Ask the budget whenever the model, or a copy that an attack makes of it, is called."""
    inner = [model.model] if isinstance(model, Guarded) else []
    handles = [
        each.register_forward_pre_hook(lambda *_: budget.check(what)) for each in (model, *inner)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Done:
    """The chunks attacked so far, kept in a file until the dataset is written, if one is given."""

    def __init__(self, path: Path | None, key: str, classes: int, attacks: int) -> None:
        self.path, self.key = path, key
        self.logits = np.empty((0, classes), np.float32)
        self.adversarial_logits = np.empty((0, classes), np.float32)
        self.robust = np.empty((attacks, 0), bool)
        self.seconds = 0.0
        saved = None if path is None else files.resume(path, key)
        if saved is not None:
            self.logits, self.adversarial_logits = saved["logits"], saved["adversarial"]
            self.robust, self.seconds = saved["robust"], float(saved["seconds"])

    @property
    def count(self) -> int:
        return len(self.logits)

    def add(
        self,
        logits: NDArray[np.float32],
        adversarial_logits: NDArray[np.float32],
        robust: NDArray[np.bool_],
        seconds: float,
    ) -> None:
        self.logits = np.concatenate([self.logits, logits])
        self.adversarial_logits = np.concatenate([self.adversarial_logits, adversarial_logits])
        self.robust = np.concatenate([self.robust, robust], axis=1)
        self.seconds += seconds
        if self.path is not None:
            files.keep(
                self.path,
                self.key,
                logits=self.logits,
                adversarial=self.adversarial_logits,
                robust=self.robust,
                seconds=self.seconds,
            )


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    evaluation: Evaluation = Evaluation(),  # noqa: B008  (frozen)
    *,
    index: Tensor | None = None,
    device: str | None = None,
    progress: bool = True,
    name: str | None = None,
    keep_images: bool = False,
) -> xr.Dataset:
    """Return the logits of a network in memory before and under attack, with the verdicts.

    Logits are computed and judged in float32. Each premise of the attack that the network does
    not meet, such as one that draws random numbers, is a warning and stored as the attribute
    ``remarks``. Neither the network nor the images are changed.

    Parameters
    ----------
    model : Module
        Maps pixels in [0, 1] to logits, shape (n, classes); float32, in evaluation mode.
    images : Tensor of float32, shape (n, channels, rows, columns)
        In [0, 1].
    labels : Tensor of whole numbers, shape (n,)
        True classes.
    evaluation : Evaluation
        The attacks; by default APGD-CE, then APGD-DLR, in the Linf ball of 8/255. With two classes
        APGD on the margin takes the place of DLR, which needs three.
    index : Tensor of whole numbers, shape (n,), optional
        Keys each image's random starts, so that parts of a set give the verdicts of the whole;
        by default 0, 1, ...
    device : str, optional
        By default where the network is, else it is copied there.
    progress : bool
        Whether to show a bar, or where there is no terminal a line a minute.
    name : str, optional
        Of the network, for tables; by default its class.
    keep_images : bool
        Whether the images and the strongest adversarial ones are in the dataset, for `replay`.

    Returns
    -------
    Dataset
        Of kind ``logits``, as stored runs: ``store.write(dataset, path)`` keeps it, and
        ``describe(dataset)`` sets it beside the stored networks.

    Raises
    ------
    ReproError
        If anything given is not what was expected, or no gradient reaches the images.

    Examples
    --------
    >>> import torch
    >>> from logit_distributions import evaluate
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).eval()
    >>> images = torch.rand(20, 3, 8, 8)
    >>> labels = model(images).argmax(1)
    >>> dataset = evaluate(model, images, labels, progress=False)
    >>> dataset.logits.shape, dataset.attack.values.tolist()
    ((20, 10), ['apgd-ce', 'apgd-dlr'])
    """
    with torch.inference_mode(False):
        data, guarded, options = taken(model, images, labels, index, device, progress)
        name = name or type(model).__name__
        return attack_given(
            guarded, data, evaluation, options, name, _warn, keep_images=keep_images
        )


def _warn(remark: str) -> None:
    """Warn at the line that calls `evaluate`."""
    warnings.warn(remark, stacklevel=4)


@torch.no_grad()
@strict_float32()
def replay(dataset: xr.Dataset, model: nn.Module, batch: int = 250) -> xr.Dataset:
    """Judge kept adversarial images again, by a forward pass of a network.

    Parameters
    ----------
    dataset : Dataset
        Of `evaluate` with ``keep_images=True``.
    model : Module
        The same network, or another, to which the images are then transferred.
    batch : int
        Images judged together.

    Returns
    -------
    Dataset
        Over ``sample``: ``in_ball`` (no pixel moved by more than eps), ``in_box`` (all in [0, 1]),
        ``misclassified``, and ``agrees``: all as the dataset's verdict says.

    Raises
    ------
    ReproError
        If the dataset has no images, or the network does not take them.

    Examples
    --------
    >>> import torch
    >>> from logit_distributions import evaluate, replay
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).eval()
    >>> images = torch.rand(20, 3, 8, 8)
    >>> labels = model(images).argmax(1)
    >>> dataset = evaluate(model, images, labels, progress=False, keep_images=True)
    >>> bool(replay(dataset, model).agrees.all())
    True
    """
    if "adversarial_images" not in dataset:
        raise ReproError(
            "expected a dataset with adversarial images, got one without; evaluate keeps them with "
            "keep_images=True"
        )
    check_model(model)
    natural, adversarial = dataset["images"].values, dataset["adversarial_images"].values
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    parts = torch.split(torch.from_numpy(adversarial), batch)
    classes = dataset.sizes["class"]
    predicted = [
        check_network(Guarded(model), each.to(device), classes).argmax(1).cpu() for each in parts
    ]
    eps = json.loads(dataset.attrs["evaluation"])["eps"]
    moved = np.abs(adversarial - natural).max((1, 2, 3))
    judged = {
        "in_ball": moved <= eps + 1e-6,
        "in_box": ((adversarial >= 0) & (adversarial <= 1)).all((1, 2, 3)),
        "misclassified": torch.cat(predicted).numpy() != dataset["label"].values,
    }
    robust = dataset["robust"].values[-1]
    agrees = judged["in_ball"] & judged["in_box"] & (judged["misclassified"] == ~robust)
    judged["agrees"] = agrees
    return xr.Dataset({name: ("sample", each) for name, each in judged.items()})


def taken(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    index: Tensor | None,
    device: str | None,
    progress: bool,
) -> tuple[ImageSet, Guarded, Options]:
    """Return images, network and machine of others as the stages take them, all checked."""
    check_model(model)
    check_images(images)
    check_labels(labels, len(images))
    index = torch.arange(len(images)) if index is None else index
    check_index(index, len(images))
    tensors = (*model.parameters(), *model.buffers())
    here = str(tensors[0].device) if tensors else "cpu"
    machine = Machine(device or here, "float32").resolve()
    if machine.device != here:
        model = copy.deepcopy(model).to(machine.device)
    pixels, classes, numbers = (
        each.detach().cpu().numpy() for each in (images, labels.long(), index.long())
    )
    data = ImageSet(pixels, classes, numbers, (), content_hash(pixels, classes))
    return data, Guarded(model), Options(machine, progress=progress)


def attack_given(
    model: Guarded,
    data: ImageSet,
    settings: Evaluation,
    options: Options,
    name: str,
    say: Callable[[str], None],
    partial: Path | None = None,
    keep_images: bool = False,
) -> xr.Dataset:
    """Return logits of a network of others as a dataset of kind ``logits``, with its premises.

    Parameters
    ----------
    model : Guarded
        As `premises.check_model` accepts it.
    data : ImageSet
        Without names of classes they are numbered.
    settings, options, name, keep_images
        As in `attack`.
    say : callable
        Told of each premise that fails, before the attack begins where it is known by then.
    partial : Path, optional
        Where finished chunks survive a kill, as long as the network gives the same logits.
    """
    machine = options.machine.resolve()
    model = model.to(machine.device)
    first = data.take(np.arange(min(len(data), _batch(data, BATCH))))
    pixels = to_float(torch.from_numpy(first.images).to(machine.device))
    labels = torch.from_numpy(first.labels).to(machine.device)
    logits = check_network(model, pixels, len(data.classes) or None)
    classes = logits.shape[1]
    check_classes(torch.from_numpy(data.labels), classes)
    remarks = failed(model, pixels, labels)
    attacks = attacks_on(classes, settings)
    if dropped := [each for each in settings.attacks if each not in attacks]:
        remarks.append(
            f"with {classes} classes {', '.join(dropped)} means nothing: the attacks are "
            f"{', '.join(attacks)}"
        )
    for remark in remarks:
        say(f"{name}: {remark}")
    data = replace(data, classes=data.classes or tuple(map(str, range(classes))))
    about = attributes_of_yours(name, model.model, "logits", data, settings.seed)
    given_logits = hashlib.sha256(logits.cpu().numpy().tobytes()).hexdigest()
    key = (name, given_logits)
    dataset = attack(model, data, settings, options, key, partial, keep_images)
    robust = dict(zip(dataset["attack"].values, dataset["robust"].values.mean(1), strict=True))
    for remark in square_failure(robust):
        say(f"{name}: {remark}")
        remarks.append(remark)
    return sealed(dataset, about, remarks)


def of_yours(
    weights: Path,
    factory: str,
    data: ImageSet,
    settings: Evaluation,
    options: Options,
    partial: Path | None = None,
) -> xr.Dataset:
    """Return the logits of anybody's network, attacked, as a dataset of kind ``logits``.

    Parameters
    ----------
    weights, factory
        As in `network.load`.
    data : ImageSet
        With labels.
    settings : Evaluation
    options : Options
    partial : Path, optional
        As in `attack_given`.
    """
    model = load(weights, factory)
    check_model(model, factory)
    return attack_given(Guarded(model), data, settings, options, weights.stem, _print, partial)


def _print(remark: str) -> None:
    print(f"logitdist: warning: {remark}", file=sys.stderr, flush=True)
