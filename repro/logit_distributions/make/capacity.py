"""Stage ``capacity``: from images to manifolds, to activations, to capacities layer by layer.

A manifold is what becomes of one exemplar image under perturbations in the Linf ball (kinds
``adversarial`` and ``random``), or the clean images of one class (``class``). Activations are
recorded in one pass, those of large layers through a random projection; every layer is
measured, written to the cache, and its activations dropped.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from logit_distributions import images, recipes, store
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job
from logit_distributions.make.attack import pgd
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes_of_yours
from logit_distributions.make.network import ResNet18, load, natural_logits
from logit_distributions.make.options import Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.randomness import generator
from logit_distributions.read.capacity import LAYERS, measure
from logit_distributions.recipes import PGD, Manifolds
from logit_distributions.store import places


def capacity(job: Job, options: Options) -> xr.Dataset:
    """Measure the capacity of every layer of the network that stands for a run.

    The exemplars are among the first test images, which are stored: nobody needs the whole data
    set to recompute a capacity.
    """
    checkpoint = Checkpoint.of(job.needs[0])
    settings = recipes.manifolds(job.stage, job.recipe)
    try:
        data = images.stored(job.recipe.dataset)
    except ReproError:  # the same images, from the whole data set
        data = images.load(job.recipe.dataset, "test", options.images, job.recipe.images)
        data = data.take(data.index[: images.SHEET_IMAGES])
    model = checkpoint.model(len(data.classes))
    measured = analyse(model, data, settings, job.run, options)
    return measured.assign_attrs(checkpoint.attributes("capacity", data))


def of_yours(
    weights: Path,
    factory: str,
    data: ImageSet,
    settings: Manifolds,
    layers: Sequence[str] | None,
    options: Options,
) -> xr.Dataset:
    """Return capacities of anybody's network, as a dataset of kind ``capacity``.

    Parameters
    ----------
    weights, factory
        As in `network.load`.
    data : ImageSet
        Where labels are -1, the network's own predictions are attacked.
    settings : Manifolds
    layers : sequence of str or None
    options : Options
    """
    model = load(weights, factory)
    if (data.labels < 0).any():
        predicted = natural_logits(model, data.images, "cpu").argmax(1)
        data = dataclasses.replace(data, labels=predicted.astype(np.int64))
    measured = analyse(model, data, settings, weights.stem, options, layers)
    return measured.assign_attrs(attributes_of_yours(weights, "capacity", data, settings.seed))


def exemplars(labels: NDArray[np.int64], count: int) -> NDArray[np.intp]:
    """Return the first images of every class, as evenly as `count` allows, in their order.

    Whether a network classifies them correctly does not matter: capacity asks for random
    labellings, whatever the true ones, and networks that resist attacks to differing degrees
    would each leave another choice. So the choice needs no network, and is the same for all.
    """
    place = np.zeros(len(labels), np.int64)  # how many of the same class come before
    for label in np.unique(labels):
        members = labels == label
        place[members] = np.arange(members.sum())
    order = np.lexsort((np.arange(len(labels)), place))
    if len(order) < count:
        raise ReproError(f"expected at least {count} images, got {len(order)}; ask for fewer")
    return np.sort(order[:count])


def manifolds(
    model: nn.Module, data: ImageSet, settings: Manifolds, device: str = "cpu"
) -> Iterator[tuple[int, Tensor]]:
    """Yield every manifold's number, an image's place or a class, and points in pixel space.

    Adversarial points are ends of PGD on the cross-entropy of the label from random starts,
    random ones uniform in the ball; both in the box [0, 1] too. The draws depend on the seed
    and the exemplar alone, not on the network.

    Yields
    ------
    number : int
    points : Tensor of float32, shape (M, 3, rows, columns)
    """
    if settings.kind == "class":
        for label in np.unique(data.labels).tolist():
            members = np.flatnonzero(data.labels == label)[: settings.points]
            if len(members) < settings.points:
                raise ReproError(
                    f"class {label}: expected {settings.points} images, got {len(members)}; "
                    "ask for fewer with --points"
                )
            yield label, to_float(torch.from_numpy(data.images[members])).to(device)
        return
    for i in exemplars(data.labels, settings.exemplars).tolist():
        image = to_float(torch.from_numpy(data.images[i : i + 1]))
        shape = (settings.points, *image.shape[1:])
        draws = generator("manifold", settings.seed, int(data.index[i]))
        noise = 2 * torch.rand(shape, generator=draws) - 1
        centre, noise = image.to(device).expand(shape).contiguous(), noise.to(device)
        if settings.kind == "random":
            yield i, (centre + settings.eps * noise).clamp(0, 1)
            continue
        labels = torch.full((settings.points,), int(data.labels[i]), device=device)
        how = PGD(settings.eps, settings.step, settings.steps)
        yield i, pgd(model, centre, labels, how, noise).detach()


class Projection:
    """Activations of layers with more than `largest` features, in `largest` random ones.

    One Gaussian matrix for each number of features, keyed by the seed and that number; lengths
    and angles between M points change by about 1/√largest. Memory: N x largest float32.
    """

    def __init__(self, largest: int, seed: int) -> None:
        self.largest, self.seed = largest, seed
        self.matrices: dict[int, Tensor] = {}

    def __call__(self, features: Tensor) -> Tensor:
        """Return the rows of `features`, shape (n, N), in at most `largest` dimensions."""
        size = features.shape[1]
        if size <= self.largest:
            return features
        if size not in self.matrices:
            draws = generator("projection", self.seed, size)
            matrix = torch.randn(size, self.largest, generator=draws) / self.largest**0.5
            self.matrices[size] = matrix.to(features.device)
        return features @ self.matrices[size]


@contextmanager
def recording(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keep the outputs of layers, by name, in the mapping that the context gives.

    ``input`` is what the model is given. Emptied by every call of the model.
    """
    known = dict(model.named_modules())
    missing = [name for name in layers if name != "input" and name not in known]
    if missing:
        raise ReproError(
            f"no layer {missing[0]!r} in {type(model).__name__}: expected names of its modules, "
            f"such as {', '.join([n for n in known if n][:8])}"
        )
    kept: dict[str, Tensor] = {}

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        kept.clear()
        kept["input"] = inputs[0]

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or name in kept:
                raise ReproError(
                    f"layer {name!r}: expected to be called once and to return a tensor; choose "
                    "another with --layers"
                )
            kept[name] = output.detach().clone()  # later layers may work in place

        return keep

    handles = [model.register_forward_pre_hook(begin)]
    handles += [known[name].register_forward_hook(keeper(name)) for name in layers if name in known]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def default_layers(model: nn.Module) -> tuple[str, ...]:
    """Return `LAYERS` for our network; for another the input and its outermost modules."""
    if isinstance(model, ResNet18):
        return LAYERS
    return ("input", *(name for name, _ in model.named_children()))


def activations(
    model: nn.Module,
    points: Iterable[Tensor],
    layers: Sequence[str],
    settings: Manifolds,
    batch: int = 250,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, int]]:
    """Return activations of every layer, in the order of `layers`, in one pass.

    Memory: layers times P times M times `settings.largest` floats at most, 20 MB a layer as
    set by default, and the projections.

    Parameters
    ----------
    model : Module
        In evaluation mode.
    points : iterable of Tensor, shapes (M, 3, rows, columns)
        Manifolds in pixel space.
    layers : sequence of str
        Names of modules, and ``"input"``.
    settings : Manifolds
        Its `largest` and `seed` count here.
    batch : int
        Images forwarded together.

    Returns
    -------
    activations : dict of ndarray of float32, shape (P, N', M)
    features : dict of int
        N, before the projection.
    """
    project = Projection(settings.largest, settings.seed)
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    sizes: dict[str, int] = {}
    with recording(model, layers) as kept:
        for manifold in points:
            parts: dict[str, list[Tensor]] = {name: [] for name in layers}
            for some in torch.split(manifold, batch):
                with torch.no_grad():  # not around the loop, in which PGD takes gradients
                    model(some)
                silent = [name for name in layers if name not in kept]
                if silent:
                    raise ReproError(f"layer {silent[0]!r} was not called by the model")
                for name in layers:
                    flat = kept[name].flatten(1).float()
                    sizes[name] = flat.shape[1]
                    parts[name].append(project(flat).cpu())
            for name in layers:
                found[name].append(torch.cat(parts[name]).T.contiguous().numpy())
    return {name: np.stack(each) for name, each in found.items()}, sizes


@strict_float32()
def analyse(
    model: nn.Module,
    data: ImageSet,
    settings: Manifolds,
    name: str,
    options: Options,
    layers: Sequence[str] | None = None,
) -> xr.Dataset:
    """Return the capacities of a network's layers; resumes where it was cut.

    Parameters
    ----------
    model : Module
        Maps pixels in [0, 1] to logits; evaluated, so in evaluation mode.
    data : ImageSet
        Exemplars are chosen among these (`exemplars`).
    settings : Manifolds
    name : str
        Of the network, for progress and the folder in the cache.
    options : Options
        The network runs in float32. The budget is asked before every layer.
    layers : sequence of str, optional
        Default: `default_layers`.

    Returns
    -------
    Dataset
        Variables of kind ``capacity``, settings as attributes.
    """
    machine = options.machine.resolve()
    layers = tuple(layers or default_layers(model))
    model = model.eval().to(machine.device)
    folder = places.cache() / "manifolds" / f"{name}-{_key(model, data, settings, layers)}"
    done = {layer: folder / f"{layer}.nc" for layer in layers}
    todo = [layer for layer in layers if not done[layer].exists()]
    if todo:
        began = time.monotonic()
        numbers: list[int] = []
        attacked = copy.deepcopy(model)  # whose activations nobody records

        def points() -> Iterator[Tensor]:
            count = 10 if settings.kind == "class" else settings.exemplars
            made = manifolds(attacked, data, settings, machine.device)
            for number, each in tqdm(made, f"{name} {settings.kind}", count, disable=None):
                numbers.append(number)
                yield each

        recorded, sizes = activations(model, points(), todo, settings)
        share = (time.monotonic() - began) / len(todo)
        for layer in todo:
            options.budget.check(f"layer {layer} of the manifolds of {name}")
            began = time.monotonic()
            try:
                one = measure(recorded.pop(layer), settings, options.threads)
            except ValueError as error:
                raise ReproError(f"{name}, layer {layer}: {brief(error)}") from error
            one["features"] = np.int32(sizes[layer])
            one["exemplar"] = ("manifold", np.array(numbers, np.int32))
            one["seconds"] = time.monotonic() - began
            one["seconds_activations"] = share
            store.write_file(one, done[layer])
            print(
                f"{name} {layer:9s} capacity {float(one['combined_capacity']):.3f}, simulated "
                f"{float(one['simulated_capacity']):.3f}, {float(one['seconds']):.1f} s",
                file=sys.stderr,
            )
    parts = [store.read_file(done[layer]) for layer in layers]
    names = xr.Variable("layer", list(layers))
    dataset = xr.concat(parts, names, data_vars="all", coords="minimal", join="exact")
    dataset["exemplar"] = parts[0]["exemplar"]
    dataset.attrs = {f"manifold_{k}": v for k, v in dataclasses.asdict(settings).items()}
    dataset.attrs |= {"definition": "paper", "labels": "balanced"}
    dataset.attrs |= {f"manifold_{k}": v for k, v in machine.describe().items()}
    return dataset


def _key(model: nn.Module, data: ImageSet, settings: Manifolds, layers: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{settings} {layers}".encode())
    digest.update(data.images.tobytes() + data.labels.tobytes())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def again(dataset: xr.Dataset, checkpoint: Checkpoint, layer: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Measure one layer of a stored dataset of kind ``capacity`` again, nothing cached.

    Returns
    -------
    measured, unprojected : Dataset
        As it was stored, and with all its features.
    """
    fields = dataclasses.fields(Manifolds)
    settings = Manifolds(**{each.name: _plain(dataset, each.name) for each in fields})
    data = images.stored(checkpoint.recipe["dataset"])
    model = checkpoint.model(len(data.classes))
    points = (each for _, each in manifolds(copy.deepcopy(model), data, settings))
    whole = dataclasses.replace(settings, largest=sys.maxsize)
    recorded, _ = activations(model, points, [layer], whole)
    project = Projection(settings.largest, settings.seed)
    seen = [project(torch.from_numpy(each).T.contiguous()).T.numpy() for each in recorded[layer]]
    return measure(np.stack(seen), settings), measure(recorded[layer], settings)


def _plain(dataset: xr.Dataset, name: str) -> Any:
    value = dataset.attrs[f"manifold_{name}"]
    return value.item() if isinstance(value, np.generic) else value
