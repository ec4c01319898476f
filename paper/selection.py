"""Which scale, seeds and images an artefact uses, and the words for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from logit_distributions import images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import distribution


def scales() -> list[str]:
    """Return the scales that readers prefer, the paper's first; results of few images are none."""
    return [name for name, scale in recipes.SCALES.items() if scale.images is None]


@dataclass(frozen=True)
class Selection:
    """The stored datasets of some recipes at one scale.

    Attributes
    ----------
    scale : str
    by_name : dict
        For each recipe, its datasets by seed.
    absent : tuple of str
        Recipes that could be done without and are not stored.
    lacking : tuple of str
        Seeds that are not stored yet, in words, such as ``ST seed 2``.
    """

    scale: str
    by_name: dict[str, list[xr.Dataset]]
    absent: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> list[xr.Dataset]:
        return self.by_name[name]

    @property
    def is_of_the_paper(self) -> bool:
        """True for networks of the paper's width and schedule."""
        return self.scale == scales()[0]

    @property
    def epochs(self) -> int:
        """Length of the training, in epochs."""
        return int(self._recipe["epochs"])

    @property
    def ends_early(self) -> bool:
        """True for a training that does not reach the paper's late epochs, after about 100."""
        return self.epochs <= 100

    @property
    def eps(self) -> float:
        """Radius of the Linf ball of the attacks, in pixel units."""
        return float(self._recipe.get("eps", recipes.ADDED["eps"]))

    @property
    def _recipe(self) -> dict[str, Any]:
        return dict(store.recipe_of(next(iter(self.by_name.values()))[0]))

    def can_replace(self, other: Selection) -> bool:
        """Return whether this has every recipe, and no fewer seeds than another scale."""
        common = self.by_name.keys() & other.by_name.keys()
        return not self.absent and all(len(self[name]) >= len(other[name]) for name in common)

    def setting(self) -> str:
        """Return the scale in words."""
        network = self._recipe.get("network", recipes.ADDED["network"])
        if network == recipes.ADDED["network"]:
            network = f"ResNet-18 of width {self._recipe['width']}"
        return f"Scale {self.scale}: {network}, {self.epochs} epochs"

    def about(self) -> str:
        """Return a sentence on the scale and the seeds, and one on the seeds not stored, if any."""
        lists = {
            label(name): ", ".join(str(_seed(each)) for each in datasets)
            for name, datasets in self.by_name.items()
        }
        if len(set(lists.values())) == 1:
            text = next(iter(lists.values()))
        else:
            text = "; ".join(f"{name} {numbers}" for name, numbers in lists.items())
        plural = "s" if any("," in numbers for numbers in lists.values()) else ""
        return f"{self.setting()}; seed{plural} {text}.{_not_stored(self.lacking)}"


def _seed(dataset: xr.Dataset) -> int:
    return int(dataset.attrs["seed"])


def _not_stored(names: Sequence[str]) -> str:
    return f" Not stored yet: {'; '.join(names)}." if names else ""


def label(name: str) -> str:
    """Return how a caption calls a recipe."""
    return {"st": "ST", "at": "AT"}.get(name, name)


def common_seeds(by_name: Mapping[str, Iterable[xr.Dataset]]) -> set[int]:
    """Return the seeds that every recipe has."""
    return set.intersection(*({_seed(each) for each in some} for some in by_name.values()))


def select(
    stage: str,
    names: Sequence[str],
    dataset: str = "cifar10",
    optional: Callable[[str], Sequence[str]] | None = None,
    paired: bool = True,
) -> Selection:
    """Return the stored datasets of recipes, at the scale that readers prefer.

    A scale takes the place of another only if it has every recipe, with no fewer seeds.

    Parameters
    ----------
    stage : str
        A folder of the data, such as ``logits``.
    names : sequence of str
        Recipes that must all be stored.
    dataset : str
    optional : callable, optional
        Returns recipes of a scale of which at least one must be stored.
    paired : bool
        Whether only the seeds count that all of `names` have, because they are compared.

    Raises
    ------
    Missing
        If no scale has them, with the first file that is missing.
    """
    *preferred, chosen = selections(stage, names, dataset, optional, paired)
    for better in reversed(preferred):
        if better.can_replace(chosen):
            chosen = better
    return chosen


def printed(
    stage: str, names: Sequence[str], dataset: str = "cifar10", paired: bool = True
) -> list[Selection]:
    """Return the selections whose rows a table prints one below the other, the preferred first.

    Those of every scale that has all rows, with no fewer seeds than a scale after it: one that
    was only begun waits.
    """
    complete = selections(stage, names, dataset, paired=paired)
    return [
        each
        for place, each in enumerate(complete)
        if all(each.can_replace(other) for other in complete[place + 1 :])
    ]


def at_scale(stage: str, names: Sequence[str], scale: str, dataset: str = "cifar10") -> Selection:
    """Return the stored datasets of recipes at one scale, such as ``small+eps4``.

    Raises
    ------
    ReproError
        If there is no such scale.
    Missing
        If a recipe is not stored.
    """
    return _at_scale(stage, names, (), dataset, str(recipes.Scale.parse(scale)), paired=True)


def selections(
    stage: str,
    names: Sequence[str],
    dataset: str = "cifar10",
    optional: Callable[[str], Sequence[str]] | None = None,
    paired: bool = True,
) -> list[Selection]:
    """Return the same for every scale that has the recipes, the paper's first.

    What is missing is named at the first scale that was begun, else at the last.
    """
    complete: list[Selection] = []
    missing: store.Missing | None = None
    begun = False
    for scale in scales():
        try:
            more = optional(scale) if optional else ()
            complete.append(_at_scale(stage, names, more, dataset, scale, paired))
        except store.Missing as error:
            missing = missing if begun else error
            begun = begun or any(store.find(stage, name, dataset, scale) for name in names)
    if missing is not None and not complete:
        raise missing
    return complete


def _at_scale(
    stage: str, names: Sequence[str], more: Sequence[str], dataset: str, scale: str, paired: bool
) -> Selection:
    by_name = {name: store.need(stage, name, dataset, scale) for name in names}
    lacking = tuple(
        f"{label(name)} seed {', '.join(map(str, unstored))}"
        for name, some in by_name.items()
        if (unstored := sorted({*recipes.SEEDS} - {_seed(each) for each in some}))
    )
    if paired:
        seeds = common_seeds(by_name)
        if not seeds:
            raise _unpaired(stage, by_name, dataset, scale)
        by_name = {
            name: [each for each in some if _seed(each) in seeds] for name, some in by_name.items()
        }
    by_name |= {name: store.find(stage, name, dataset, scale) for name in more}
    absent = tuple(name for name in more if not by_name[name])
    if more and len(absent) == len(more):
        store.need(stage, absent[0], dataset, scale)
    stored = {name: some for name, some in by_name.items() if some}
    return Selection(scale, stored, absent, lacking)


def _unpaired(
    stage: str, by_name: Mapping[str, Sequence[xr.Dataset]], dataset: str, scale: str
) -> store.Missing:
    """Return an error that names the first file without which no seed has all recipes."""
    first, *others = by_name
    seed = _seed(by_name[first][0])
    name = next(n for n in others if seed not in {_seed(each) for each in by_name[n]})
    path = store.path_of(stage, f"{dataset}-{scale}-{name}-seed{seed}")
    return store.Missing(path, recipes.command(stage, name, scale, dataset))


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
    images : int
    robust : ndarray, shape (images,)
        Share of the seeds whose network resists, by image.
    """

    natural: float
    adversarial: float
    images: int
    robust: NDArray[np.float64] = field(repr=False, compare=False)

    def interval(self, kind: str) -> tuple[float, float]:
        """Return the interval of ``"natural"`` or ``"adversarial"`` accuracy, in percent."""
        low, high = distribution.wilson_interval(getattr(self, kind) / 100, self.images)
        return 100 * low, 100 * high


def _students(selected: Selection) -> dict[str, list[xr.Dataset]]:
    return {n: each for n, each in selected.by_name.items() if n not in recipes.TEACHERS}


def seeds_of_students(selected: Selection) -> set[int]:
    """Return the seeds that most students of a sweep have; of the normal one, where it is there."""
    students = _students(selected)
    counts = Counter(_seed(each) for some in students.values() for each in some)
    wanted = {_seed(each) for each in students.get("normal", [])} or counts.keys()
    most = max(counts[seed] for seed in wanted)
    return {seed for seed in wanted if counts[seed] == most}


def sweep(selected: Selection) -> tuple[dict[str, Accuracy], str]:
    """Return accuracies on the images that all students have, by recipe.

    Over the seeds that most have; a student without one of them is left out. The second value
    says which images and seeds these are.
    """
    everyone, seeds = _students(selected), seeds_of_students(selected)
    students = {
        name: datasets
        for name, datasets in everyone.items()
        if seeds <= {_seed(each) for each in datasets}
    }
    count = min(each.sizes["sample"] for datasets in students.values() for each in datasets)
    absent = (*selected.absent, *(name for name in everyone if name not in students))
    accuracies = {}
    for name, datasets in students.items():
        some = [d.isel(sample=slice(count)) for d in datasets if _seed(d) in seeds]
        labels = labels_of(some)
        robust = np.mean([d["robust"].values[-1] for d in some], axis=0)
        accuracies[name] = Accuracy(
            100
            * float(np.mean([distribution.is_correct(d["logits"].values, labels) for d in some])),
            100 * float(robust.mean()),
            count,
            robust,
        )
    plural = "s" if len(seeds) > 1 else ""
    return accuracies, (
        f"{selected.setting()}; students of seed{plural} {', '.join(map(str, sorted(seeds)))}, "
        f"attacked on the first {count:,} test images; bars: 95 % Wilson intervals for the images, "
        "not for another training."
        f"{_not_stored(absent)}"
    )


def pictures(dataset: str = "cifar10") -> NDArray[np.uint8]:
    """Return the stored test images, the first of their part, shape (n, 3, 32, 32)."""
    path = images.stored_sheet(dataset)
    if not path.is_file():
        raise store.Missing(path, "logitdist fetch")
    return images.read_sheet(path)


def evaluated_epochs(datasets: Sequence[xr.Dataset]) -> str:
    """Return the epochs whose checkpoints stand for the runs, such as ``epoch 5 or 6``."""
    epochs = sorted({int(each.attrs["checkpoint_epoch"]) for each in datasets})
    return "epoch " + " or ".join(map(str, epochs))
