"""The stored datasets behind an artefact: found by name, opened once, missing ones named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from repro import images, paths, recipes, store
from repro.errors import ReproError

SCALES = ("paper", "small")
"""In the order of preference where an artefact could be made from either."""


class MissingDataset(ReproError):
    """A dataset that an artefact needs is not stored."""


looked_for: set[str] = set()
"""Patterns of the stored files that anybody asked for, relative to the data folder."""


def files(pattern: str) -> list[Path]:
    """Return the stored files of a pattern, and note that they were asked for."""
    looked_for.add(pattern)
    return sorted(paths.data().glob(pattern))


@cache
def _opened(path: Path, kind: str, stamp: tuple[int, int]) -> xr.Dataset:
    return store.open_dataset(path, kind)


def find(
    kind: str, name: str = "*", dataset: str = "cifar10", scale: str = "*"
) -> list[xr.Dataset]:
    """Return the stored datasets of a kind and recipe, by name of recipe, then by seed."""
    found = []
    for path in files(f"{kind}/{dataset}-{scale}-{name}-seed*.nc"):
        status = path.stat()
        found.append(_opened(path.resolve(), kind, (status.st_size, status.st_mtime_ns)))
    return sorted(found, key=lambda each: (each.attrs["recipe"], int(each.attrs["seed"])))


def scales(kind: str = "logits", dataset: str = "cifar10") -> list[str]:
    """Return the scales of which any dataset is stored, the paper's first."""
    return [scale for scale in SCALES if files(f"{kind}/{dataset}-{scale}-*.nc")]


def missing(kind: str, artefact: str, name: str, dataset: str, scale: str) -> MissingDataset:
    """Return an error with the file that is missing and the command that makes it."""
    options = f" --dataset {dataset}" if dataset != "cifar10" else ""
    options += f" --scale {scale}"
    return MissingDataset(
        f"{store.path_of(kind, f'{dataset}-{scale}-{name}-seed0')} is missing; make it with "
        f"'repro run {artefact}{options}'"
    )


@dataclass(frozen=True)
class Runs:
    """The datasets of some recipes at one scale.

    Attributes
    ----------
    scale : str
    by_name : dict
        For each recipe, its datasets by seed.
    absent : list of str
        Recipes that were asked for, could be done without, and are not stored.
    """

    scale: str
    by_name: dict[str, list[xr.Dataset]]
    absent: list[str]

    def __getitem__(self, name: str) -> list[xr.Dataset]:
        return self.by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self.by_name

    def about(self) -> str:
        """Return a sentence on the scale and the seeds, and one on what is missing, if any."""
        first = next(iter(self.by_name.values()))[0]
        recipe = store.recipe_of(first)
        seeds = {name: [int(d.attrs["seed"]) for d in each] for name, each in self.by_name.items()}
        groups: dict[str, list[str]] = {}
        for name, numbers in seeds.items():
            groups.setdefault(", ".join(map(str, numbers)), []).append(label(name))
        if len(groups) == 1:
            (text,) = groups
        else:
            text = "; ".join(f"{', '.join(names)}: {one}" for one, names in groups.items())
        lacking = [
            f"{label(name)} seed {', '.join(map(str, gone))}"
            for name in seeds
            if name in recipes.TEACHERS
            and (gone := [seed for seed in recipes.SEEDS if seed not in seeds[name]])
        ]
        lacking += map(label, self.absent)
        last = f" Not stored yet: {'; '.join(lacking)}." if lacking else ""
        plural = "s" if any(len(numbers) > 1 for numbers in seeds.values()) else ""
        return (
            f"Scale {self.scale}: ResNet-18 of width {recipe['width']}, {recipe['epochs']} "
            f"epochs; seed{plural} {text}.{last}"
        )


def label(name: str) -> str:
    """Return how a caption calls a recipe."""
    return {"st": "ST", "at": "AT"}.get(name, name)


def runs(
    kind: str,
    artefact: str,
    names: Sequence[str],
    dataset: str = "cifar10",
    optional: Sequence[str] = (),
) -> Runs:
    """Return the datasets of recipes at the first scale at which all of `names` are stored.

    Parameters
    ----------
    kind : str
    artefact : str
        The plan that would make what is missing.
    names, optional : sequence of str
        Recipes that must be stored, and that may be.
    dataset : str

    Raises
    ------
    MissingDataset
        If there is no such scale, with the first file that is missing.
    """
    default = "small" if dataset == "cifar10" else "paper"
    for scale in scales(kind, dataset) or [default]:
        found = {name: find(kind, name, dataset, scale) for name in (*names, *optional)}
        lacking = [name for name in names if not found[name]]
        if not lacking:
            absent = [name for name in optional if not found[name]]
            return Runs(scale, {name: each for name, each in found.items() if each}, absent)
    raise missing(kind, artefact, lacking[0], dataset, scale)


def labels_of(datasets: Sequence[xr.Dataset]) -> NDArray[np.int64]:
    """Return the labels of datasets of the same images.

    Raises
    ------
    ReproError
        If they are not of the same images.
    """
    first = datasets[0]
    for each in datasets[1:]:
        if not np.array_equal(each["index"].values, first["index"].values):
            raise ReproError(
                f"{each.attrs['run']} and {first.attrs['run']}: expected results on the same "
                "images, got different ones; likely one was attacked with --limit"
            )
    labels: NDArray[np.int64] = first["label"].values.astype(np.int64)
    return labels


def pictures(artefact: str, dataset: str = "cifar10") -> NDArray[np.uint8]:
    """Return the stored test images, the first of their part, shape (n, 3, 32, 32)."""
    path = images.stored_sheet(dataset)
    if not files(path.relative_to(paths.data()).as_posix()):
        raise MissingDataset(f"{path} is missing; make it with 'repro fetch'")
    return images.read_sheet(path)


def evaluated_epochs(datasets: Sequence[xr.Dataset]) -> str:
    """Return the epochs whose checkpoints stand for the runs, such as ``epoch 5 or 6``."""
    found = sorted({int(each.attrs["checkpoint_epoch"]) for each in datasets})
    return "epoch " + " or ".join(map(str, found))
