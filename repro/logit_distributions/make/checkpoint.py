"""Weights on disk: safetensors with the recipe, the seed and the log in the header."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from logit_distributions import store
from logit_distributions.errors import ReproError, brief
from logit_distributions.images import ImageSet
from logit_distributions.make.network import build, laid_out
from logit_distributions.recipes import parse
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


def attributes(checkpoint: Checkpoint, kind: str, data: ImageSet) -> dict[str, Any]:
    """Return what every dataset made from `checkpoint` says of its origin."""
    recipe = parse(checkpoint.recipe)
    return {
        "kind": kind,
        "run": checkpoint.run,
        "method": recipe.method,
        "dataset": recipe.dataset,
        "data_sha256": data.sha256,
        "recipe": recipe.to_json(),
        "recipe_hash": checkpoint.recipe_hash,
        "seed": checkpoint.seed,
        "scale": recipe.scale,
        "checkpoint_epoch": checkpoint.epoch,
        "checkpoint_sha256": checkpoint.weights_sha256,
        "training": json.dumps(checkpoint.settings),
        "seconds_training": sum(entry["seconds"] for entry in checkpoint.log),
        **store.provenance(),
    }


def _seal(tensors: dict[str, Tensor], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
