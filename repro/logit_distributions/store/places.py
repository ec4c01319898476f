"""Every location, once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logit_distributions.recipes import Recipe

ROOT = Path(__file__).resolve().parents[3]


def data() -> Path:
    """Folder of the stored results (``REPRO_DATA``, by default ``data/`` of the checkout)."""
    return Path(os.environ.get("REPRO_DATA", ROOT / "data"))


def cache() -> Path:
    """Folder of images, rolling checkpoints and targets (``REPRO_CACHE``)."""
    default = Path.home() / ".cache" / "logit-distributions"
    return Path(os.environ.get("REPRO_CACHE", default))


def build() -> Path:
    """Folder that figures and tables are written to (``REPRO_BUILD``)."""
    return Path(os.environ.get("REPRO_BUILD", ROOT / "build"))


def brief(path: Path) -> Path:
    """Return a path as seen from the checkout, where it is inside."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Folder of the checkpoints of a run, in the cache."""
    return cache() / "runs" / recipe.run(seed)


def epoch_file(recipe: Recipe, seed: int, epoch: int) -> Path:
    """Path of the checkpoint after `epoch` epochs."""
    return run_folder(recipe, seed) / f"epoch-{epoch:03d}.safetensors"


def rolling_file(recipe: Recipe, seed: int) -> Path:
    """Path of the checkpoint that a killed run resumes from."""
    return run_folder(recipe, seed) / "rolling.safetensors"


def given_file(name: str) -> Path:
    """Path of a network that was given under this name, in the cache."""
    return cache() / "given" / f"{name}.safetensors"


def path_of(kind: str, run: str) -> Path:
    """Path of a stored dataset by kind (a folder of the data) and run."""
    return data() / kind / f"{run}.nc"
