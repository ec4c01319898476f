"""The stored datasets behind an artefact: found by name, opened once, missing ones named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import images, recipes, statistics, store
from logit_distributions.errors import ReproError
from logit_distributions.store import places

SCALES = ("paper", "small")
"""In the order of preference where an artefact could be made from either."""


class MissingDataset(ReproError):
    """A dataset that an artefact needs is not stored."""


looked_for: set[str] = set()
"""Patterns of the stored files that anybody asked for, relative to the data folder."""


def files(pattern: str) -> list[Path]:
    """Return the stored files of a pattern, and note that they were asked for."""
    looked_for.add(pattern)
    return sorted(places.data().glob(pattern))


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
        f"'logitdist run {artefact}{options}'"
    )


def select(
    kind: str, artefact: str, scale: str, name: str = "*", dataset: str = "cifar10"
) -> list[xr.Dataset]:
    """Return the datasets of a kind and recipe at a scale, by seed.

    Raises
    ------
    MissingDataset
        If there is none, with the file that is missing and the command that makes it.
    """
    found = find(kind, name, dataset, scale)
    if not found:
        raise missing(kind, artefact, name, dataset, scale)
    return found


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

    def setting(self) -> str:
        """Return the scale in words."""
        recipe = store.recipe_of(next(iter(self.by_name.values()))[0])
        return (
            f"Scale {self.scale}: ResNet-18 of width {recipe['width']}, {recipe['epochs']} epochs"
        )

    def about(self) -> str:
        """Return a sentence on the scale and the seeds, and one on the seeds not stored, if any."""
        seeds = {name: [int(d.attrs["seed"]) for d in each] for name, each in self.by_name.items()}
        lists = {label(name): ", ".join(map(str, numbers)) for name, numbers in seeds.items()}
        if len(set(lists.values())) == 1:
            text = next(iter(lists.values()))
        else:
            text = "; ".join(f"{name} {numbers}" for name, numbers in lists.items())
        plural = "s" if any("," in numbers for numbers in lists.values()) else ""
        gone = {
            label(name): [str(seed) for seed in recipes.SEEDS if seed not in numbers]
            for name, numbers in seeds.items()
        }
        lacking = [f"{name} seed {', '.join(numbers)}" for name, numbers in gone.items() if numbers]
        return f"{self.setting()}; seed{plural} {text}.{_not_stored(lacking)}"


def _not_stored(names: Sequence[str]) -> str:
    return f" Not stored yet: {'; '.join(names)}." if names else ""


def label(name: str) -> str:
    """Return how a caption calls a recipe."""
    return {"st": "ST", "at": "AT"}.get(name, name)


def runs(
    kind: str,
    artefact: str,
    names: Sequence[str],
    dataset: str = "cifar10",
    optional: Callable[[str], Sequence[str]] | None = None,
) -> Runs:
    """Return the datasets of recipes at the first scale at which all of `names` are stored.

    Parameters
    ----------
    kind : str
    artefact : str
        The plan that would make what is missing.
    names : sequence of str
        Recipes that must all be stored.
    dataset : str
    optional : callable, optional
        Returns recipes of a scale of which at least one must be stored.

    Raises
    ------
    MissingDataset
        If there is no such scale, with the first file that is missing.
    """
    default = "small" if dataset == "cifar10" else "paper"
    for scale in scales(kind, dataset) or [default]:
        more = optional(scale) if optional else ()
        found = {name: find(kind, name, dataset, scale) for name in (*names, *more)}
        lacking = [name for name in names if not found[name]]
        absent = [name for name in more if not found[name]]
        if not lacking and (not more or len(absent) < len(more)):
            return Runs(scale, {name: each for name, each in found.items() if each}, absent)
    raise missing(kind, artefact, (lacking + absent)[0], dataset, scale)


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


@dataclass(frozen=True)
class Accuracy:
    """Accuracies on the same test images, in percent, with 95 % Wilson intervals.

    Attributes
    ----------
    natural, adversarial : float
        Means over seeds.
    """

    natural: float
    adversarial: float
    images: int

    def interval(self, kind: str) -> tuple[float, float]:
        """Return the interval of ``"natural"`` or ``"adversarial"`` accuracy, in percent."""
        low, high = statistics.wilson_interval(getattr(self, kind) / 100, self.images)
        return 100 * low, 100 * high


def sweep(runs: Runs) -> tuple[dict[str, Accuracy], str]:
    """Return accuracies on the images and over the seeds that all students have, by recipe.

    The second value says which images and seeds these are.
    """
    students = {n: each for n, each in runs.by_name.items() if n not in recipes.TEACHERS}
    count = min(each.sizes["sample"] for datasets in students.values() for each in datasets)
    seeds = set.intersection(
        *({int(each.attrs["seed"]) for each in datasets} for datasets in students.values())
    )
    if not seeds:
        raise ReproError(f"no seed has all of {', '.join(students)}: run one seed for all of them")
    found = {}
    for name, datasets in students.items():
        some = [d.isel(sample=slice(count)) for d in datasets if int(d.attrs["seed"]) in seeds]
        labels = labels_of(some)
        found[name] = Accuracy(
            100 * float(np.mean([statistics.correct(d["logits"].values, labels) for d in some])),
            100 * float(np.mean([d["robust"].values[-1] for d in some])),
            count,
        )
    plural = "s" if len(seeds) > 1 else ""
    return found, (
        f"{runs.setting()}; students of seed{plural} {', '.join(map(str, sorted(seeds)))}, "
        f"attacked on the first {count:,} test images; bars: 95 % Wilson intervals for the images, "
        "not for another training."
        f"{_not_stored(runs.absent)}"
    )


def pictures(artefact: str, dataset: str = "cifar10") -> NDArray[np.uint8]:
    """Return the stored test images, the first of their part, shape (n, 3, 32, 32)."""
    path = images.stored_sheet(dataset)
    if not files(path.relative_to(places.data()).as_posix()):
        raise MissingDataset(f"{path} is missing; make it with 'logitdist fetch'")
    return images.read_sheet(path)


def evaluated_epochs(datasets: Sequence[xr.Dataset]) -> str:
    """Return the epochs whose checkpoints stand for the runs, such as ``epoch 5 or 6``."""
    found = sorted({int(each.attrs["checkpoint_epoch"]) for each in datasets})
    return "epoch " + " or ".join(map(str, found))
