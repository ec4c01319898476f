"""Networks of others: their weights, their images, and datasets of their logits and capacities."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from PIL import Image
from torch import Tensor, nn

from logit_distributions import images, store
from logit_distributions.capacity import Settings
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import ImageSet
from logit_distributions.make import capacity as manifolds
from logit_distributions.make import logits as attacked_logits
from logit_distributions.make import network
from logit_distributions.make.attack import Evaluation
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.network import laid_out
from logit_distributions.make.train import Machine
from logit_distributions.recipes import Recipe, given, recipe
from logit_distributions.store import files, places


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
    model = _built(factory)
    try:
        model.load_state_dict(_state(weights))
    except (RuntimeError, KeyError) as error:
        raise ReproError(
            f"{weights}: weights do not fit the network of {factory} ({brief(error)})"
        ) from error
    return laid_out(model.eval())


def logits(
    weights: Path, factory: str, data: ImageSet, settings: Evaluation, machine: Machine
) -> xr.Dataset:
    """Return the logits of anybody's network, attacked, as a dataset of kind ``logits``.

    Parameters
    ----------
    weights, factory
        As in `load`.
    data : ImageSet
        With labels.
    settings : Evaluation
    machine : Machine
    """
    model = load(weights, factory)
    _check_outputs(model, factory, len(data.classes))
    about = _attributes(weights, "logits", data, settings.seed)
    digest = about["checkpoint_sha256"]
    found = attacked_logits.attacked(model, weights.stem, digest, data, settings, machine)
    return found.assign_attrs(about)


def capacities(
    weights: Path, factory: str, data: ImageSet, settings: Settings, layers: Sequence[str] | None
) -> xr.Dataset:
    """Return capacities of anybody's network, as a dataset of kind ``capacity``.

    Parameters
    ----------
    weights, factory
        As in `load`.
    data : ImageSet
        Where labels are -1, the network's own predictions are attacked.
    settings : Settings
    layers : sequence of str or None
    """
    model = load(weights, factory)
    if (data.labels < 0).any():
        predicted = network.natural_logits(model, data.images, "cpu").argmax(1)
        data = dataclasses.replace(data, labels=predicted.astype(np.int64))
    found = manifolds.analyse(model, data, settings, weights.stem, layers)
    return found.assign_attrs(_attributes(weights, "capacity", data, settings.seed))


class Given(Checkpoint):
    """A network that was trained elsewhere, in the place of one of a recipe."""

    def unweighted(self, classes: int) -> nn.Module:
        """Return the network as its factory makes it."""
        factory = self.settings["model"]
        network = _built(factory)
        _check_outputs(network.eval(), factory, classes)
        return network


def adopt(name: str, weights: Path, factory: str, dataset: str = "cifar10") -> Path:
    """Keep a network under a name, to stand for ``at`` at scales such as ``small+given-NAME``.

    There it is attacked, and teaches the students, in the place of the adversarially trained
    network of the paper.

    Parameters
    ----------
    name : str
        Letters, digits and underscores.
    weights, factory
        As in `load`; the factory is called again whenever the network is used.
    dataset : str
        Whose classes it tells apart.

    Returns
    -------
    Path
        Of the weights, in the cache.

    Raises
    ------
    ReproError
        If the network is not one of this data set, or the name is bad or that of another.
    """
    if not re.fullmatch(r"\w+", name):
        raise ReproError(f"name: expected letters, digits and underscores, got {name!r}")
    as_teacher = recipe("at", f"small+given-{name}", dataset)
    model = load(weights, factory)
    _check_outputs(model, factory, len(images.spec_of(dataset).classes))
    found = Given(
        {f"model.{key}": tensor.clone() for key, tensor in model.state_dict().items()},
        json.loads(as_teacher.to_json()),
        as_teacher.hash,
        seed=0,
        epoch=0,
        settings={"model": factory, "file": weights.name},
    )
    path = places.given_file(name)
    if path.exists() and Given.load(path).weights_sha256 != found.weights_sha256:
        raise ReproError(f"{path}: holds other weights; choose another name, or delete the file")
    found.save(path)
    return path


def adopted(wanted: Recipe, seed: int) -> Given:
    """Return the network that stands for a recipe whose method is ``"given"``.

    Raises
    ------
    ReproError
        If there is none of this name.
    """
    name = given(wanted.scale)
    assert name is not None
    path = places.given_file(name)
    if not path.exists():
        raise ReproError(
            f"{path}: no network of this name was given; do so with 'logitdist adopt {name} "
            "--checkpoint FILE --model MODULE:FUNCTION'"
        )
    return dataclasses.replace(
        Given.load(path),
        recipe=json.loads(wanted.to_json()),
        recipe_hash=wanted.hash,
        seed=seed,
    )


def _check_outputs(model: nn.Module, factory: str, classes: int) -> None:
    image = np.zeros((1, 3, 32, 32), np.uint8)
    try:
        outputs = network.natural_logits(model, image, "cpu").shape[-1]
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


def _attributes(weights: Path, kind: str, data: ImageSet, seed: int) -> dict[str, Any]:
    digest = files.sha256(weights)
    return {
        "kind": kind, "run": weights.stem, "method": "given", "dataset": "given",
        "data_sha256": data.sha256, "recipe": json.dumps({"name": weights.stem}),
        "recipe_hash": digest[:16], "seed": seed, "scale": "given",
        "checkpoint_sha256": digest, **store.provenance(),
    }  # fmt: skip


def _built(factory: str) -> nn.Module:
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


def _state(path: Path) -> dict[str, Tensor]:
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


def given_images(path: Path) -> ImageSet:
    """Return images of a folder (PNG, JPEG) or an ``.npz`` with ``images`` and maybe ``labels``.

    Images are RGB and of one size, in an ``.npz`` uint8, shape (n, 3, rows, columns). Labels
    that are not given are -1.
    """
    try:
        if path.is_dir():
            names = sorted(
                p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg")
            )
            opened = [np.asarray(Image.open(name).convert("RGB")) for name in names]
            pixels = np.stack(opened).transpose(0, 3, 1, 2)
            labels = None
        else:
            with np.load(path, allow_pickle=False) as file:
                pixels = file["images"]
                labels = file["labels"] if "labels" in file.files else None
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f"images are {pixels.dtype} of shape {pixels.shape}")
        labels = np.full(len(pixels), -1) if labels is None else labels
        if labels.shape != (len(pixels),):
            raise ValueError(f"{len(pixels)} images, but labels of shape {labels.shape}")
    except Exception as error:
        raise ReproError(
            f"{path}: expected a folder of equal-sized images or an .npz with uint8 images "
            f"(n, 3, rows, columns) and maybe labels ({brief(error)})"
        ) from error
    pixels, labels = np.ascontiguousarray(pixels), labels.astype(np.int64)
    return ImageSet(pixels, labels, np.arange(len(pixels)), (), images.content_hash(pixels, labels))
