"""Weights on disk: safetensors with the recipe, the seed and the log in the header; given ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from logit_distributions import images, store
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job, given_file
from logit_distributions.make.network import Guarded, build, built, laid_out, load, with_weights
from logit_distributions.make.premises import check_model, check_network
from logit_distributions.make.trust import check_trusted, trust
from logit_distributions.recipes import Recipe, parse, recipe
from logit_distributions.store import files


@dataclass
class Checkpoint:
    """A moment of a run.

    Attributes
    ----------
    tensors : dict
        Parameters and buffers under ``model.``, momentum buffers under ``momentum.``.
    recipe : dict
        The recipe as plain data.
    seed, epoch, step : int
        Finished epochs, and finished steps of the current one.
    log : list of dict
        One entry per finished epoch.
    sums : dict
        Running sums of the current epoch.
    """

    tensors: dict[str, Tensor]
    recipe: dict[str, Any]
    recipe_hash: str
    seed: int
    epoch: int
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all, sealed by a hash of everything in it."""
        plain = json.dumps({k: v for k, v in vars(self).items() if k != "tensors"})
        contiguous = {k: v.detach().cpu().contiguous() for k, v in self.tensors.items()}
        metadata = {"checkpoint": plain, "sha256": _seal(contiguous, plain)}
        with files.atomic(path) as temporary:
            save_file(contiguous, temporary, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read from `path`.

        Raises
        ------
        ReproError
            If the file is missing, damaged or not one of ours.
        """
        if not path.exists():
            raise ReproError(f"{path}: no such checkpoint")
        files.hold_to_registry(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _seal(tensors, metadata["checkpoint"]) != metadata["sha256"]:
                raise ValueError("its content does not match its own SHA-256")
            return cls(tensors=tensors, **json.loads(metadata["checkpoint"]))
        except Exception as error:
            raise ReproError(
                f"{path}: expected a checkpoint of this package, got something else "
                f"({brief(error)}); likely truncated or damaged"
            ) from error

    @classmethod
    def of(cls, job: Job) -> Checkpoint:
        """Read the checkpoint that a job made; a given network takes the job's recipe and seed."""
        if job.recipe.method != "given":
            made = cls.load(job.path).held_to(job.recipe, job.path)
            wanted, got = (job.seed, job.epoch or made.epoch), (made.seed, made.epoch)
            if wanted != got:
                raise ReproError(
                    f"{job.path}: expected seed {wanted[0]}, epoch {wanted[1]}, got seed {got[0]}, "
                    f"epoch {got[1]}; likely copied or renamed"
                )
            return made
        return replace(
            Given.load(job.path),
            recipe=json.loads(job.recipe.to_json()),
            recipe_hash=job.recipe.hash,
            seed=job.seed,
        )

    def held_to(self, recipe: Recipe, path: Path) -> Self:
        """Return this checkpoint, or refuse it if it is of another recipe.

        Raises
        ------
        ReproError
        """
        if self.recipe_hash != recipe.hash:
            raise ReproError(
                f"{path}: expected a checkpoint of recipe {recipe.hash}, got {self.recipe_hash}; "
                f"likely the recipe was changed since: delete {path.parent} to train anew"
            )
        return self

    def attributes(self, kind: str, data: ImageSet) -> dict[str, Any]:
        """Return what every dataset made from this checkpoint says of its origin."""
        recipe = parse(self.recipe)
        return {
            "kind": kind,
            "run": self.run,
            "method": recipe.method,
            "dataset": recipe.dataset,
            "data_sha256": data.sha256,
            "recipe": recipe.to_json(),
            "recipe_hash": self.recipe_hash,
            "seed": self.seed,
            "scale": recipe.scale,
            "checkpoint_epoch": self.epoch,
            "checkpoint_sha256": self.weights_sha256,
            "training": json.dumps(self.settings),
            "seconds_training": sum(entry["seconds"] for entry in self.log),
            **store.provenance(),
        }

    @property
    def run(self) -> str:
        """Name of the run, the stem of its files."""
        return parse(self.recipe).run(self.seed)

    @property
    def weights_sha256(self) -> str:
        """Hash of the names and values of the model's tensors."""
        return _seal({k: v for k, v in self.tensors.items() if k.startswith("model.")})

    def model(self, classes: int) -> nn.Module:
        """Return the network with these weights, in evaluation mode, channels last."""
        recipe = parse(self.recipe)
        network = self.unweighted(classes)
        weights = {k[6:]: v for k, v in self.tensors.items() if k.startswith("model.")}
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise ReproError(
                f"checkpoint of {recipe.name}: weights do not fit a {recipe.network} of width "
                f"{recipe.width} with {classes} classes"
            ) from error
        return laid_out(network.eval())

    def unweighted(self, classes: int) -> nn.Module:
        """Return the network that these weights belong to, with others."""
        recipe = parse(self.recipe)
        return build(recipe.network, classes, recipe.width)


def of_dataset(dataset: xr.Dataset) -> nn.Module:
    """Return the network behind a stored dataset, from the stored weights.

    Raises
    ------
    ReproError
        If they are not here, or are other weights than the dataset's.
    """
    about = dataset.attrs
    if about["dataset"] == "given":
        raise ReproError(
            f"{about['run']}: of a network that is not ours; name it with --checkpoint and --model"
        )
    job = Job("checkpoint", parse(json.loads(about["recipe"])), int(about["seed"]))
    checkpoint = Checkpoint.of(job)
    if checkpoint.weights_sha256 != about["checkpoint_sha256"]:
        raise ReproError(f"{job.path}: expected the weights behind {about['run']}, got others")
    return checkpoint.model(dataset.sizes["class"])


PROBE = (0.618 * torch.arange(2.0 * 3 * 32 * 32) % 1).reshape(2, 3, 32, 32)
"""Images on which a given network is tried, and known again."""

SAME = 1e-3
"""Largest difference over the largest logit at which a given network is the adopted one."""


class Given(Checkpoint):
    """A network that was trained elsewhere, in the place of one of a recipe."""

    def model(self, classes: int) -> nn.Module:
        """Return the network with these weights, in evaluation mode, called on copies."""
        factory = self.settings["model"]
        check_trusted(factory, self.weights_sha256)
        weights = {k[6:]: v for k, v in self.tensors.items() if k.startswith("model.")}
        network = with_weights(built(factory), weights, self.settings["file"], factory)
        check_model(network, factory)
        logits = check_network(Guarded(network), PROBE, classes, factory)
        adopted = torch.tensor(json.loads(self.settings.get("logits", "null")) or logits.tolist())
        if (logits - adopted).abs().max() > SAME * adopted.abs().max():
            raise ReproError(
                f"{factory}: expected the network that was adopted, got one that computes other "
                "logits with the same weights; likely its code was changed: adopt it under another "
                "name"
            )
        return Guarded(network)


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
        If the network is not one of this data set, or the name is bad or that of another, which
        what computes other logits is.
    """
    if not re.fullmatch(r"\w+", name):
        raise ReproError(f"name: expected letters, digits and underscores, got {name!r}")
    as_teacher = recipe("at", f"small+given-{name}", dataset)
    classes = len(images.spec_of(dataset).classes)
    model = load(weights, factory)
    check_model(model, factory)
    logits, again = (check_network(Guarded(model), PROBE, classes, factory) for _ in range(2))
    if not torch.equal(logits, again):
        raise ReproError(
            f"{factory}: expected a network that computes, got one that gives other logits for the "
            "same images twice; likely dropout or noise in its forward"
        )
    network = Given(
        {f"model.{key}": tensor.clone() for key, tensor in model.state_dict().items()},
        json.loads(as_teacher.to_json()),
        as_teacher.hash,
        seed=0,
        epoch=0,
        settings={
            "model": factory,
            "file": weights.name,
            "logits": json.dumps(logits.tolist()),
        },
    )
    path = given_file(name)
    if path.exists():
        before = Given.load(path)
        if before.weights_sha256 != network.weights_sha256:
            raise ReproError(
                f"{path}: holds other weights; choose another name, or delete the file"
            )
        trust(factory, network.weights_sha256)
        replace(before, settings={**before.settings, "model": factory}).model(classes)
    network.save(path)
    trust(factory, network.weights_sha256)
    return path


def sealed(dataset: xr.Dataset, about: Mapping[str, Any], remarks: list[str]) -> xr.Dataset:
    """Return a dataset with attributes and remarks, sealed as `store.write` would seal it."""
    dataset = dataset.assign_attrs(about, remarks=json.dumps(remarks), schema=store.SCHEMA)
    return dataset.assign_attrs(content_sha256=store.content_sha256(dataset))


def attributes_of_yours(
    name: str, model: nn.Module, kind: str, data: ImageSet, seed: int
) -> dict[str, Any]:
    """Return what a dataset made from anybody's network says of its origin."""
    state = {
        f"model.{key}": each for key, each in model.state_dict().items() if isinstance(each, Tensor)
    }
    digest = _seal(state)
    return {
        "kind": kind, "run": name, "method": "given", "dataset": "given",
        "data_sha256": data.sha256, "recipe": json.dumps({"name": name}),
        "recipe_hash": digest[:16], "seed": seed, "scale": "given",
        **({"checkpoint_sha256": digest} if state else {}), **store.provenance(),
    }  # fmt: skip


def _seal(tensors: dict[str, Tensor], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
