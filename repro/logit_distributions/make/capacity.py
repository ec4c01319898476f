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
import json
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from logit_distributions import images, recipes, store
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job
from logit_distributions.make.attack import pgd
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint, attributes_of_yours, sealed
from logit_distributions.make.logits import taken
from logit_distributions.make.network import Guarded, ResNet18, attackable, load, natural_logits
from logit_distributions.make.options import Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.premises import check_classes, check_model, check_network, failed
from logit_distributions.make.randomness import generator
from logit_distributions.progress import Bar
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
    layers = recipes.measured_layers(job.stage)
    measured = analyse(model, data, settings, job.run, options, layers)
    return measured.assign_attrs(checkpoint.attributes("capacity", data))


def layer_capacity(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    layers: Sequence[str] | None = None,
    kind: Literal["adversarial", "random", "class"] = "adversarial",
    manifolds: Manifolds | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: bool = True,
    name: str | None = None,
) -> xr.Dataset:
    """Return capacity, radius and dimension of every layer of a network in memory.

    Parameters
    ----------
    model, images, device, progress, name
        As in `logits.evaluate`.
    labels : Tensor of whole numbers, shape (n,), optional
        By default the network's own predictions.
    layers : sequence of str, optional
        Names of modules, and ``"input"``; by default the input and the outermost modules, without
        those that are called twice or return no tensor, which a warning names. Of a named module
        that returns several tensors the first counts.
    kind : {"adversarial", "random", "class"}
        Ends of PGD from random starts, random points of the ball, or the clean images of a class.
    manifolds : Manifolds, optional
        All other settings, such as the number of exemplars; its kind gives way to `kind`.
    threads : int, optional
        Of the kernels; by default all processors.

    Returns
    -------
    Dataset
        Of kind ``capacity``, as stored runs.

    Raises
    ------
    ReproError
        If anything given is not what was expected.

    Examples
    --------
    >>> import torch
    >>> from logit_distributions import Manifolds, layer_capacity
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10)).eval()
    >>> images = torch.rand(20, 3, 8, 8)
    >>> few = Manifolds(exemplars=8, points=4, n_t=20, draws=5)
    >>> capacity = layer_capacity(model, images, manifolds=few, progress=False)
    >>> capacity.combined_capacity.dims, capacity.radius.dims
    (('layer',), ('layer', 'manifold'))
    """
    settings = replace(manifolds or Manifolds(), kind=kind)
    with torch.inference_mode(False):
        first = torch.zeros(len(images), dtype=torch.int64) if labels is None else labels
        data, guarded, options = taken(model, images, first, None, device, progress)
        if labels is None:
            data = replace(data, labels=np.full(len(data), -1))
        name = name or type(model).__name__
        data, layers, remarks = _checked(guarded, data, settings, layers, options)
        options = replace(options, threads=threads)
        for remark in remarks:
            warnings.warn(f"{name}: {remark}", stacklevel=2)
        with tempfile.TemporaryDirectory() as folder:
            dataset = analyse(guarded, data, settings, name, options, layers, Path(folder))
    about = attributes_of_yours(name, model, "capacity", data, settings.seed)
    return sealed(dataset, about, remarks)


def _checked(
    model: Guarded,
    data: ImageSet,
    settings: Manifolds,
    layers: Sequence[str] | None,
    options: Options,
) -> tuple[ImageSet, tuple[str, ...], list[str]]:
    """Return labelled images, layers that can be measured and what is to be said of them."""
    device = options.machine.resolve().device
    model = model.to(device)
    if settings.kind != "class":
        exemplars(data.labels, settings.exemplars, settings.exemplar_set)  # are there enough?
    pixels = to_float(torch.from_numpy(data.images[:3]).to(device))
    classes = check_network(model, pixels).shape[1]
    if (data.labels < 0).any():
        parts = np.array_split(data.images, -(-len(data) // PREDICTED))
        predicted = [natural_logits(model, part, device).argmax(1) for part in parts]
        data = replace(data, labels=np.concatenate(predicted).astype(np.int64))
    check_classes(torch.from_numpy(data.labels), classes)
    remarks = []
    if settings.kind == "adversarial":
        remarks = failed(model, pixels, torch.from_numpy(data.labels[:3]).to(device))
    if layers is None:
        layers, left_out = default_layers(model.model, pixels)
        if left_out:
            remarks.append(f"layers are left out: {'; '.join(left_out)}")
    else:
        seen = observed(model.model, pixels, named=True)
        for layer in layers:
            if layer != "input" and layer in seen and seen[layer]:
                raise ReproError(f"layer {layer!r} {seen[layer]}; choose another")
        with recording(model, layers):
            pass  # are there such layers?
    return data, tuple(layers), remarks


PREDICTED = 250
"""Images that are classified together where no labels are given."""


def of_yours(
    weights: Path,
    factory: str,
    data: ImageSet,
    settings: Manifolds,
    layers: Sequence[str] | None,
    options: Options,
    output: Path,
) -> xr.Dataset:
    """Return capacities of anybody's network, as a dataset of kind ``capacity``; write it.

    Parameters
    ----------
    weights, factory
        As in `network.load`.
    data : ImageSet
        Where labels are -1, the network's own predictions are attacked.
    settings : Manifolds
    layers : sequence of str or None
    options : Options
    output : Path
        Written whole or not at all; after that nothing is kept to go on from.
    """
    model = load(weights, factory)
    check_model(model, factory)
    guarded = Guarded(model)
    data, layers, remarks = _checked(guarded, data, settings, layers, options)
    about = attributes_of_yours(weights.stem, model, "capacity", data, settings.seed)
    about["remarks"] = json.dumps(remarks)
    for remark in remarks:
        print(f"logitdist: warning: {weights.stem}: {remark}", file=sys.stderr, flush=True)
    return written(guarded, data, settings, weights.stem, options, layers, about, output)


def written(
    model: nn.Module,
    data: ImageSet,
    settings: Manifolds,
    name: str,
    options: Options,
    layers: Sequence[str] | None,
    about: Mapping[str, Any],
    output: Path,
) -> xr.Dataset:
    """Return what `analyse` does with attributes, written to `output`; drop what was unfinished."""
    model = model.to(options.machine.resolve().device)
    first = to_float(torch.from_numpy(data.images[:3]).to(options.machine.resolve().device))
    layers = tuple(layers or default_layers(model, first)[0])
    folder = _unfinished(model, data, settings, name, layers)
    dataset = analyse(model, data, settings, name, options, layers, folder).assign_attrs(about)
    store.save(dataset, output)
    shutil.rmtree(folder, ignore_errors=True)
    return dataset


def exemplars(labels: NDArray[np.int64], count: int, which: int = 0) -> NDArray[np.intp]:
    """Return the first images of every class, as evenly as `count` allows, in their order.

    Of `which` 1 the next `count`, and so on: disjoint sets.

    Whether a network classifies them correctly does not matter: capacity asks for random
    labellings, whatever the true ones, and networks that resist attacks to differing degrees
    would each leave another choice. So the choice needs no network, and is the same for all.
    """
    place = np.zeros(len(labels), np.int64)  # how many of the same class come before
    for label in np.unique(labels):
        members = labels == label
        place[members] = np.arange(members.sum())
    order = np.lexsort((np.arange(len(labels)), place))
    if len(order) < (which + 1) * count:
        needed = (which + 1) * count
        raise ReproError(f"expected at least {needed} images, got {len(order)}; ask for fewer")
    return np.sort(order[which * count : (which + 1) * count])


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
    for i in exemplars(data.labels, settings.exemplars, settings.exemplar_set).tolist():
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
    model = model.model if isinstance(model, Guarded) else model
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
        kept["input"] = inputs[0].detach().clone()  # the network may work in place

    def keeper(name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if name in kept or (fault := _fault(output, len(kept["input"]))):
                fault = "is called more than once" if name in kept else fault
                raise ReproError(f"layer {name!r} {fault}; choose another")
            kept[name] = _tensor(output).detach().clone()  # later layers may work in place

        return keep

    handles = [model.register_forward_pre_hook(begin)]
    handles += [known[name].register_forward_hook(keeper(name)) for name in layers if name in known]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _tensor(output: Any) -> Any:
    """Return a module's output, of several the first."""
    return output[0] if isinstance(output, (tuple, list)) and output else output


def _fault(output: Any, count: int) -> str:
    """Return why a module's output for so many images cannot be measured; "" if it can."""
    tensor = _tensor(output)
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        return f"returns no tensor of floats but {type(tensor).__name__}"
    if tensor.ndim < 2 or len(tensor) != count:
        return f"returns a tensor of shape {tuple(tensor.shape)} for {count} images"
    return ""


@torch.no_grad()
def observed(model: nn.Module, images: Tensor, named: bool) -> dict[str, str]:
    """Return by name why each module cannot be measured; "" if it can.

    One that returns several tensors can, if somebody `named` it.
    """
    seen: dict[str, str] = {}

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if name in seen:
                seen[name] = "is called more than once"
            elif isinstance(output, (tuple, list)) and not named:
                seen[name] = "returns several tensors"
            else:
                seen[name] = _fault(output, len(images))

        return look

    handles = [
        module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name
    ]
    try:
        Guarded(model)(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: seen.get(name, "is not called") for name, _ in model.named_modules() if name}


def default_layers(model: nn.Module, images: Tensor) -> tuple[tuple[str, ...], list[str]]:
    """Return the layers to measure, and which outermost modules are left out and why.

    `LAYERS` for our network; for another the input and its outermost modules.
    """
    model = model.model if isinstance(model, Guarded) else model
    if isinstance(model, ResNet18):
        return LAYERS, []
    seen = observed(model, images, named=False)
    outer = [name for name, _ in model.named_children()]
    left_out = [f"{name} {seen[name]}" for name in outer if seen[name]]
    return ("input", *(name for name in outer if not seen[name])), left_out


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
    by_layer: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
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
                by_layer[name].append(torch.cat(parts[name]).T.contiguous().numpy())
    return {name: np.stack(each) for name, each in by_layer.items()}, sizes


@strict_float32()
def analyse(
    model: nn.Module,
    data: ImageSet,
    settings: Manifolds,
    name: str,
    options: Options,
    layers: Sequence[str] | None = None,
    folder: Path | None = None,
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
        The network runs in float32. The budget is asked before every manifold, where what goes
        on begins with the first, and before every layer.
    layers : sequence of str, optional
        Default: `default_layers`.
    folder : Path, optional
        Where finished layers survive a kill; by default in the cache.

    Returns
    -------
    Dataset
        Variables of kind ``capacity``, settings as attributes.
    """
    machine = options.machine.resolve()
    model = model.eval().to(machine.device)
    first = to_float(torch.from_numpy(data.images[:3]).to(machine.device))
    layers = tuple(layers or default_layers(model, first)[0])
    folder = folder or _unfinished(model, data, settings, name, layers)
    done = {layer: folder / f"{layer}.nc" for layer in layers}
    todo = [layer for layer in layers if not done[layer].exists()]
    if todo:
        began = time.monotonic()
        numbers: list[int] = []
        attacked = attackable(model, first)  # a copy, whose activations nobody records

        def points() -> Iterator[Tensor]:
            count = 10 if settings.kind == "class" else settings.exemplars
            made = manifolds(attacked, data, settings, machine.device)
            for number, each in Bar(
                made, f"{name} {settings.kind}", count, disable=not options.progress
            ):
                options.budget.check(f"manifold {number} of {name}")
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
            if options.progress:
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


def _unfinished(
    model: nn.Module, data: ImageSet, settings: Manifolds, name: str, layers: Sequence[str]
) -> Path:
    """Folder in the cache that keeps finished layers: of these settings, images and this network.

    Of a network both its weights and what it computes count, as code may have changed since.
    """
    digest = hashlib.sha256(f"{settings} {tuple(layers)}".encode())
    digest.update(data.images.tobytes() + data.labels.tobytes())
    device = "cpu"
    for key, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):
            digest.update(key.encode() + tensor.cpu().contiguous().numpy().tobytes())
            device = str(tensor.device)
    digest.update(natural_logits(model, data.images[:8], device).tobytes())
    return places.cache() / "manifolds" / f"{name}-{digest.hexdigest()[:16]}"


def again(dataset: xr.Dataset, checkpoint: Checkpoint, layer: str) -> tuple[xr.Dataset, xr.Dataset]:
    """Measure one layer of a stored dataset of kind ``capacity`` again, nothing cached.

    Returns
    -------
    measured, unprojected : Dataset
        As it was stored, and with all its features.
    """
    settings = Manifolds(**manifold_settings(dataset))
    data = images.stored(checkpoint.recipe["dataset"])
    model = checkpoint.model(len(data.classes))
    points = (each for _, each in manifolds(copy.deepcopy(model), data, settings))
    whole = dataclasses.replace(settings, largest=sys.maxsize)
    recorded, _ = activations(model, points, [layer], whole)
    project = Projection(settings.largest, settings.seed)
    seen = [project(torch.from_numpy(each).T.contiguous()).T.numpy() for each in recorded[layer]]
    return measure(np.stack(seen), settings), measure(recorded[layer], settings)


def manifold_settings(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the fields of `Manifolds` as stored; those that came later at their defaults."""
    stored = {
        each.name: dataset.attrs.get(f"manifold_{each.name}", each.default)
        for each in dataclasses.fields(Manifolds)
    }
    return {n: v.item() if isinstance(v, np.generic) else v for n, v in stored.items()}
