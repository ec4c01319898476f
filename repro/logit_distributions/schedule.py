"""What has to be made, and in which order: behind an artefact, and behind the whole paper.

No torch here: `logitdist plan` and the cluster's workflow read this, `pipeline` does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from logit_distributions import images, recipes, store
from logit_distributions.recipes import FIGURE5, TEACHERS, Recipe, recipe

STORED_AS = {"train": "log", "attack": "logits", "epochs": "epochs", "manifolds": "capacity"}
"""What a job can be, and the kind of dataset that it makes."""

PAPER = "paper"
"""The plan of everything in the paper, and its scale, see `scale_of`."""


@dataclass(frozen=True)
class Job:
    """One thing to make: a trained network, or a dataset from one.

    Attributes
    ----------
    kind : str
        Of `STORED_AS`: ``"train"`` to the last epoch, ``"attack"`` the evaluated network, record
        the logits by ``"epochs"``, measure the capacity of ``"manifolds"``.
    recipe : Recipe
    seed : int
    """

    kind: str
    recipe: Recipe
    seed: int

    @property
    def run(self) -> str:
        """Name of the run, the stem of its files."""
        return self.recipe.run(self.seed)

    @property
    def path(self) -> Path:
        """Path of the dataset that the job makes."""
        return store.path_of(STORED_AS[self.kind], self.run)

    @property
    def needs(self) -> tuple[Job, ...]:
        """The jobs that an engine has to do before; `pipeline.do` makes what is missing itself."""
        needed = recipes.teachers(self.recipe) if self.kind == "train" else [self.recipe]
        return tuple(Job("train", each, self.seed) for each in needed if each.method != "given")


def jobs(
    names: Sequence[str], scale: str, dataset: str = "cifar10", seeds: Sequence[int] = recipes.SEEDS
) -> list[Job]:
    """Return the jobs behind artefacts, in an order that yields finished results early.

    Parameters
    ----------
    names : sequence of str
        Of `recipes.PLANS`, recipes, or `PAPER`.
    scale, dataset : str
        `PAPER` has its own data sets.
    seeds : sequence of int

    Returns
    -------
    list of Job
        Each once. What is in no table comes after what is; else seed by seed. Of a given
        network there is no training and no logits by epoch.
    """
    found = list(_paper(scale, seeds)) if PAPER in names else []
    others = [_artefact(name, scale, dataset, seeds) for name in names if name != PAPER]
    found += sorted((j for each in others for j in each), key=lambda j: recipes.is_sweep(j.recipe))
    trained = ("train", "epochs")
    return [
        job
        for job in dict.fromkeys(found)
        if job.recipe.method != "given" or job.kind not in trained
    ]


def scale_of(names: Sequence[str]) -> str:
    """Return the scale of a plan unless another is asked for."""
    return PAPER if PAPER in names else "small"


def known_epoch(wanted: Recipe) -> int | None:
    """Return the epoch whose checkpoint stands for the run, or None if validation tells."""
    if wanted.pgd is None:
        return wanted.epochs
    if recipes.base(wanted.scale) == "paper":
        return 40
    validates = images.spec_of(wanted.dataset).validation_per_class > 0
    return None if validates else wanted.epochs


def with_needs(wanted: Sequence[Job]) -> list[Job]:
    """Return jobs and all that they need, each once, what is needed first."""
    found: list[Job] = []
    for job in wanted:
        found += [*with_needs(job.needs), job]
    return list(dict.fromkeys(found))


def _each(
    kind: str, names: Iterable[str], scale: str, dataset: str, seeds: Sequence[int]
) -> Iterator[Job]:
    wanted = [recipe(name, scale, dataset) for name in names]
    return (Job(kind, each, seed) for seed in seeds for each in wanted)


def _artefact(name: str, scale: str, dataset: str, seeds: Sequence[int]) -> Iterator[Job]:
    for job in _each("attack", recipes.plan(name, scale), scale, dataset, seeds):
        yield job
        if name in recipes.BY_EPOCH and job.recipe.name in TEACHERS:
            yield Job("epochs", job.recipe, job.seed)


def _paper(scale: str, seeds: Sequence[int]) -> Iterator[Job]:
    """Table 2 seed by seed, the teachers' last epochs, the sweeps, CIFAR-100, the manifolds.

    A teacher that Table 2 needs trained to its last epoch is recorded by epoch at once, where
    its checkpoints are.
    """
    for job in _each("attack", recipes.plan("table2", scale), scale, "cifar10", seeds):
        yield job
        if job.recipe.name in TEACHERS and known_epoch(job.recipe) == job.recipe.epochs:
            yield Job("epochs", job.recipe, job.seed)
    for kind in ("train", "epochs"):
        yield from _each(kind, TEACHERS, scale, "cifar10", seeds)
    students = [name for name in recipes.plan("figures", scale) if name not in TEACHERS]
    yield from _each("attack", students, scale, "cifar10", seeds)
    for kind in ("attack", "train", "epochs"):
        yield from _each(kind, TEACHERS, scale, "cifar100", seeds)
    yield from _each("manifolds", FIGURE5, scale, "cifar10", seeds)
