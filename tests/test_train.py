from pathlib import Path

import numpy as np

from logit_distributions import images
from logit_distributions.make import train
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.options import Budget, Machine
from logit_distributions.recipes import Recipe

CPU = Machine("cpu", "float32")


def _trained(
    recipe: Recipe,
    seed: int,
    sheets: Path,
    targets: np.ndarray | None = None,
    save_every: float = 60.0,
    machine: Machine = CPU,
) -> Checkpoint:
    return _trainer(recipe, seed, sheets, targets, machine).run(recipe.epochs, save_every, Budget())


def _trainer(recipe, seed, sheets, targets=None, machine=CPU) -> train.Trainer:
    data, validation = (images.load("cifar10", part, sheets) for part in ("train", "validation"))
    return train.Trainer(recipe, seed, machine.resolve(), data, validation, targets)
