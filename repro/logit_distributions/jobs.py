"""A job: one file to be made, what it is made of, and the command that makes it. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from logit_distributions import choice
from logit_distributions.errors import ReproError
from logit_distributions.recipes import (
    OWN,
    SEEDS,
    TABLE2,
    Distillation,
    Recipe,
    Scale,
    evaluation,
    manifolds,
    recipe,
    scale_of,
)
from logit_distributions.store import places

KINDS = (
    "train", "checkpoint", "targets", "log", "logits", "epochs", "capacity", "theory", "masking",
    "distances", "adversarial",
)  # fmt: skip
"""The first parts of stages; the first three make files of the cache, as a rule."""

PUBLISHED_TARGETS = "targets/published"
"""Stage of a copy for readers of what students learn from, among the stored results."""


@dataclass(frozen=True)
class Job:
    """One file.

    Attributes
    ----------
    stage : str
        One of `KINDS`, or a variant such as ``logits/odi`` or ``capacity/class``. What is stored
        lies in the folder of this name.
    recipe : Recipe
    seed : int
    epoch : int or None
        Of ``train``, always a number; of ``targets``, None for the evaluated one.
    """

    stage: str
    recipe: Recipe
    seed: int
    epoch: int | None = None

    @property
    def kind(self) -> str:
        """First part of the stage."""
        return self.stage.partition("/")[0]

    @property
    def run(self) -> str:
        """Name of the run, the stem of its files."""
        return self.recipe.run(self.seed)

    @property
    def path(self) -> Path:
        """The file that the job makes."""
        if self.kind == "train":
            return epoch_file(self.recipe, self.seed, self.epoch or self.recipe.epochs)
        if self.holds_own_targets:
            name = self.recipe.name.removeprefix(OWN).removesuffix("-targets")
            return places.cache() / "given" / f"targets-{name}.nc"
        if self.stage == PUBLISHED_TARGETS:
            return places.path_of("targets", self.run)
        if self.kind == "targets":
            epoch = "" if self.epoch is None else f"-epoch{self.epoch}"
            return places.cache() / "targets" / f"{self.run}{epoch}-passes{self.passes}.nc"
        if self.kind == "checkpoint" and self.recipe.method == "given":
            return given_file(scale_of(self.recipe).given or "")
        if self.kind == "checkpoint":
            root = places.data() if self._is_published else places.cache()
            return root / "checkpoints" / f"{self.run}.safetensors"
        return places.path_of(self.stage, self.run)

    @property
    def _is_published(self) -> bool:
        is_asked_for = self.recipe.name in scale_of(self.recipe).published
        return is_asked_for and self.recipe.dataset == "cifar10" and not self.seed

    @property
    def holds_own_targets(self) -> bool:
        """Whether the file is not made, but what ``logitdist adopt --targets`` keeps."""
        return self.recipe.method == "given" and self.recipe.name.startswith(OWN)

    @property
    def passes(self) -> int:
        """Passes over which ``targets`` are averaged."""
        _, _, passes = self.stage.partition("/passes")
        return int(passes) if passes else Distillation.passes

    @property
    def partial(self) -> Path | None:
        """What an unfinished stage goes on from, if it keeps anything under one name."""
        if self.kind == "train":
            return rolling_file(self.recipe, self.seed)
        if self.kind == "targets":
            published = self.stage == PUBLISHED_TARGETS
            return None if published else self.path.with_suffix(".partial.npz")
        if self.kind == "logits":
            engine = self.stage.partition("/")[2] or "repro"
            return places.cache() / "attacks" / f"{self.run}-{engine}.npz"
        if self.kind in ("masking", "distances"):
            return places.cache() / self.kind / f"{self.run}.npz"
        return None

    @property
    def lock(self) -> Path:
        """The file that is locked while the job is done: one for all epochs of a training."""
        folder, stem = self.path.parent, self.path.stem
        name = f"runs-{self.run}" if self.kind == "train" else f"{folder.name}-{stem}"
        return places.cache() / "locks" / f"{name}.lock"

    @property
    def needs(self) -> tuple[Job, ...]:
        """The jobs whose files this one reads."""
        given = self.recipe.method == "given"
        if self.holds_own_targets:
            return ()
        if given and self.kind in ("train", "log", "epochs"):
            raise ReproError(f"{self.run}: is given, so it is not trained and has no epochs")
        if not self.recipe.epochs and self.kind in ("log", "epochs"):
            raise ReproError(f"{self.run}: is not trained, so it has no epochs")
        at_the_end = Job("train", self.recipe, self.seed, self.recipe.epochs)
        if self.kind == "train":
            before = [e for e in choice.asked_epochs(self.recipe) if e < (self.epoch or 0)]
            return (self._at(before[-1]),) if before else teachers(self)
        if self.kind == "log":
            return (at_the_end, *teachers(self))
        if self.kind == "epochs":
            return (at_the_end,)
        if self.stage == PUBLISHED_TARGETS:
            taught = scale_of(self.recipe).at_epoch if self.recipe.pgd else None
            return (Job("targets", self.recipe, self.seed, taught),)
        if self.kind == "targets" and self.epoch is not None:
            return (self._at(self.epoch),)
        if self.kind == "checkpoint":
            known = choice.known_epoch(self.recipe)
            return () if given else (at_the_end if known is None else self._at(known),)
        own = Job("checkpoint", self.recipe, self.seed)
        return (own, *self.compared) if self.kind == "masking" else (own,)

    @property
    def compared(self) -> tuple[Job, ...]:
        """Of ``masking`` the other networks on which the adversarial images are tried."""
        scale, dataset = self.recipe.scale, self.recipe.dataset
        names = (*TABLE2, *choice.regularizers(scale, dataset))
        others = [recipe(name, scale, dataset) for name in names if name != self.recipe.name]
        return tuple(Job("checkpoint", other, self.seed) for other in others)

    def _at(self, epoch: int) -> Job:
        return Job("train", self.recipe, self.seed, epoch)

    @property
    def words(self) -> str:
        """Name of the job on the command line, such as ``epochs/at`` or ``train/at@40``."""
        return f"{self.stage}/{self.recipe.name}" + ("" if self.epoch is None else f"@{self.epoch}")

    @property
    def command(self) -> str:
        """The command that makes the file, and what it needs."""
        return (
            f"logitdist make {self.words} --scale {self.recipe.scale} "
            f"--dataset {self.recipe.dataset} --seed {self.seed}"
        )


def parse(
    text: str, scale: Scale, dataset: str = "cifar10", seeds: Sequence[int] = SEEDS
) -> list[Job]:
    """Return the jobs of these seeds that ``stage/recipe`` or ``train/recipe@epoch`` names.

    Raises
    ------
    ReproError
        If there is no such stage or recipe, or no checkpoint is kept of the epoch.
    """
    words, _, number = text.partition("@")
    stage, _, name = words.rpartition("/")
    kind = stage.partition("/")[0]
    wanted = recipe(name, scale, dataset)
    variants = {"logits": "/", "capacity": "/", "targets": "/passes"}
    known = stage in (*KINDS, PUBLISHED_TARGETS) or stage.startswith(
        f"{kind}{variants.get(kind, '//')}"
    )
    if kind not in KINDS or not known:
        raise ReproError(
            f"unknown stage {stage!r} in {text!r}: expected one of {', '.join(KINDS)}, or a "
            "variant such as logits/odi or capacity/class"
        )
    if kind == "capacity":
        manifolds(stage, wanted)  # is there such a stage?
    elif kind == "logits":
        evaluation(stage, wanted)
    epoch = wanted.epochs if kind == "train" else None
    if number:
        kept = choice.kept_epochs(wanted)
        if kind not in ("train", "targets") or not number.isdecimal() or int(number) not in kept:
            raise ReproError(
                f"{text!r}: expected an epoch only after train or targets, one of which a "
                f"checkpoint is kept: {', '.join(map(str, kept))}"
            )
        epoch = int(number)
    return [Job(stage, wanted, seed, epoch) for seed in seeds]


def teachers(student: Job) -> tuple[Job, ...]:
    """Return the jobs that make a student's targets: the teacher's, and a hybrid's partner's."""
    how = student.recipe.distillation
    if how is None:
        return ()
    stage = "targets" if how.passes == Distillation.passes else f"targets/passes{how.passes}"
    epochs = {how.teacher: how.epoch} | ({how.partner: None} if how.partner else {})
    return tuple(
        Job(stage, recipe(name, student.recipe.scale, student.recipe.dataset), student.seed, epoch)
        for name, epoch in epochs.items()
    )


def with_needs(jobs: Iterable[Job]) -> list[Job]:
    """Return jobs and all that they need, each once, what is needed first."""
    ordered: dict[Job, None] = {}
    for job in jobs:
        ordered |= dict.fromkeys((*with_needs(job.needs), job))
    return list(ordered)


def run_folder(recipe: Recipe, seed: int) -> Path:
    """Folder of the checkpoints of a run, in the cache."""
    return places.cache() / "runs" / recipe.run(seed)


def epoch_file(recipe: Recipe, seed: int, epoch: int) -> Path:
    """Path of the checkpoint after `epoch` epochs."""
    return run_folder(recipe, seed) / f"epoch-{epoch:03d}.safetensors"


def rolling_file(recipe: Recipe, seed: int) -> Path:
    """Path of the checkpoint that a killed run resumes from."""
    return run_folder(recipe, seed) / "rolling.safetensors"


def given_file(name: str) -> Path:
    """Path of a network that was given under this name, in the cache."""
    return places.cache() / "given" / f"{name}.safetensors"
