"""What is trained, on what, how long: the paper's runs as data, at four scales.

A recipe says everything that decides a result except the seed. Its hash is stored with
every dataset made from it; changing a field makes another run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from logit_distributions.errors import ReproError


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent in the Linf ball (paper, A.2); lengths in pixel units [0, 1]."""

    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10

    @classmethod
    def in_ball(cls, eps: float) -> PGD:
        """Return the paper's attack scaled to another ball."""
        return cls(eps, eps / 4)


@dataclass(frozen=True)
class Distillation:
    """Where a student's targets come from and how it is held to them.

    Attributes
    ----------
    teacher : str
        Name of the recipe that trains the teacher.
    epoch : int or None
        Checkpoint of the teacher; None for the one with the best trade-off on the
        validation images (paper, section 3 and A.3, which found epoch 40).
    manipulation : str
        A name of `targets.MANIPULATIONS`.
    k : int
        Number of largest logits that the manipulation leaves alone.
    partner : str or None
        The recipe whose ranking of the classes a hybrid takes.
    passes : int
        Augmented passes through the teacher that are averaged to one target per image.
    loss : {"l1", "kl"}
    temperature : float
        Of the softmax in ``"kl"``.
    """

    teacher: str = "at"
    epoch: int | None = None
    manipulation: str = "none"
    k: int = 0
    partner: str | None = None
    passes: int = 5
    loss: str = "l1"
    temperature: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """One training run, up to its seed (paper, A.2).

    Attributes
    ----------
    scale : str
        As in `recipe`.
    network : str
        As in `network.build`; `GIVEN` and a name for one that is not trained here.
    width : int
        Of a ResNet-18; other networks have their own.
    images : int or None
        Restricts every part of the data set to its first so many images; None for all.
    eps : float
        Radius of the Linf ball in which the network is evaluated, in pixel units; that of its
        adversarial training is ``pgd.eps``.
    schedule : {"step", "linear"}
        The learning rate is divided by ten at each milestone, or falls linearly to zero.
    """

    name: str
    scale: str
    dataset: str
    width: int
    epochs: int
    pgd: PGD | None = None
    distillation: Distillation | None = None
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 2e-4
    milestones: tuple[float, ...] = (0.5, 0.75)
    images: int | None = None
    network: str = "resnet18"
    eps: float = PGD.eps
    schedule: str = "step"

    @property
    def method(self) -> str:
        """``"standard"``, ``"adversarial"``, ``"distillation"``, or ``"given"``: not trained."""
        if self.network.startswith(GIVEN):
            return "given"
        if self.distillation is not None:
            return "distillation"
        return "standard" if self.pgd is None else "adversarial"

    def to_json(self) -> str:
        """Return the recipe as JSON with sorted keys; `ADDED` fields only where they matter."""
        plain = dataclasses.asdict(self)
        for name, default in ADDED.items():
            if plain[name] == default:
                del plain[name]
        return json.dumps(plain, sort_keys=True)

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def run(self, seed: int) -> str:
        """Return the name of the run of this recipe with `seed`, the stem of its files."""
        return f"{self.dataset}-{self.scale}-{self.name}-seed{seed}"


def parse(plain: Mapping[str, Any]) -> Recipe:
    """Return the recipe that was stored as plain data."""
    fields = dict(plain)
    if fields["pgd"] is not None:
        fields["pgd"] = PGD(**fields["pgd"])
    if fields["distillation"] is not None:
        fields["distillation"] = Distillation(**fields["distillation"])
    return Recipe(**fields | {"milestones": tuple(fields["milestones"])})


ADDED: dict[str, Any] = {
    "images": None,
    "network": "resnet18",
    "eps": PGD.eps,
    "schedule": "step",
}
"""Fields that came after the first stored results, whose hashes must stay, with their defaults."""

GIVEN = "given-"
"""Before the name of a network that `foreign.adopt` keeps, in a scale or a recipe."""

SCALES: dict[str, dict[str, Any]] = {
    "paper": {"width": 64, "epochs": 200},
    "medium": {"width": 16, "epochs": 20, "schedule": "linear"},
    "small": {"width": 8, "epochs": 6},
    "miniature": {"width": 8, "epochs": 2, "images": 256},
}
"""``medium`` is what two CPU cores make in a day, ``small`` in two hours: the paper's training
(A.2), but for width, length and, at ``medium``, the schedule. ``miniature`` rehearses every step
on real images in minutes; its results mean nothing.

Each can be varied by another network and another radius, as in ``small+resnet34+eps4``, and by
a given network in the place of the adversarially trained one, as in ``small+given-mine``.
"""


def base(scale: str) -> str:
    """Return the scale that a variation such as ``small+resnet34+eps4`` is one of."""
    name = scale.partition("+")[0]
    if name not in SCALES:
        raise ReproError(f"unknown scale {scale!r}: expected one of {', '.join(SCALES)}")
    return name


def variation(scale: str) -> dict[str, Any]:
    """Return the fields of a recipe that the variation of a scale sets, and ``"given"``.

    Raises
    ------
    ReproError
        If something is named twice or badly.
    """
    name = base(scale)
    fields: dict[str, Any] = {}
    for part in scale.split("+")[1:]:
        radius = re.fullmatch(r"eps(\d+)", part)
        network = re.fullmatch(r"[a-z]\w*(:\w+)?", part)
        teacher = re.fullmatch(rf"{GIVEN}\w+", part)
        change: dict[str, Any] = {"given" if teacher else "network": part}
        if radius:
            change = {"eps": int(radius[1]) / 255}
        if not (network or teacher) or change.get("eps") == 0 or change.keys() & fields.keys():
            raise ReproError(
                f"unknown scale {scale!r}: expected {name}, +NETWORK, +epsN for N/255 and "
                f"+{GIVEN}NAME, each once at most, as in {name}+resnet34+eps4"
            )
        fields |= change
    return fields


def given(scale: str) -> str | None:
    """Return the name of the network that stands for ``at`` at this scale, if one is given."""
    part: str | None = variation(scale).get("given")
    return None if part is None else part.removeprefix(GIVEN)


SEEDS = (0, 1, 2)

SWEPT_K = (1, 4, 2, 6, 8, 3, 5, 7)
"""Fix-k for ten classes; from k = 9 on neither manipulation changes anything.

In the order of making, like `TEACHER_EPOCHS`: a sweep that is cut short is coarse, not half.
"""

TEACHER_EPOCHS: dict[str, tuple[int, ...]] = {
    "paper": (20, 40, 100, 200, 60, 80, 120, 140, 160, 180),
    "medium": (10, 20, 5, 15),
    "small": (3, 6, 1, 4, 5, 2),
    "miniature": (1, 2),
}

SWEEP_IMAGES: dict[str, int | None] = {
    "paper": None,
    "medium": 2000,
    "small": 2000,
    "miniature": 128,
}
"""Test images on which a student of a sweep is attacked, the first ones; None for all."""

RECORDED_EVERY = {"paper": 1, "medium": 2, "small": 1, "miniature": 1}
"""Of the kept epochs, each so-many-th is recorded by epoch: `data/` has to travel."""

_TABLES: dict[str, dict[str, Any]] = {
    "st": {},
    "at": {"pgd": PGD()},
    "normal": {"distillation": Distillation()},
    "fix-1-permute": {"distillation": Distillation(manipulation="permute", k=1)},
    "correct-fix-1": {"distillation": Distillation(manipulation="correct-permute", k=1)},
    "hybrid": {"distillation": Distillation(manipulation="hybrid", partner="st")},
}

_FIX_K: dict[str, dict[str, Any]] = {
    f"fix-{k}-{how}": {"distillation": Distillation(manipulation=how, k=k)}
    for k in SWEPT_K
    for how in ("permute", "average")
    if f"fix-{k}-{how}" not in _TABLES
}


def _by_epoch(scale: str, name: str, loss: str) -> dict[str, dict[str, Any]]:
    if given(scale):  # has no epochs
        return {}
    return {
        f"{name}-epoch-{epoch}": {"distillation": Distillation(epoch=epoch, loss=loss)}
        for epoch in TEACHER_EPOCHS[base(scale)]
    }


def _methods(scale: str) -> dict[str, dict[str, Any]]:
    return {
        **_TABLES,
        **_FIX_K,
        **_by_epoch(scale, "logits", "l1"),
        **_by_epoch(scale, "softmax", "kl"),
    }


def plan(name: str, scale: str) -> tuple[str, ...]:
    """Return the recipes behind an artefact, or a recipe alone, in the order of making.

    Parameters
    ----------
    name : str
        One of `PLANS`, or a recipe's name, which is returned as it is.
    scale : str
    """
    parts: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(("table1", "figure1", "figure2", "figure3"), TEACHERS),
        **dict.fromkeys(("figureB1", "figureB2", "figureB3"), TEACHERS),
        "table2": tuple(_TABLES),
        "figure4": ("at", "normal", "fix-1-permute", *_FIX_K),
        "figureA6": ("at", *_by_epoch(scale, "logits", "l1")),
        "figureA7": ("at", *_by_epoch(scale, "logits", "l1"), *_by_epoch(scale, "softmax", "kl")),
    }
    parts["figures"] = tuple(dict.fromkeys(n for names in parts.values() for n in names))
    return parts.get(name, (name,))


BY_EPOCH = ("figure1", "figureB1", "figures")
"""Plans whose teachers are recorded after every kept epoch too."""

TEACHERS = ("st", "at")

FIGURE5 = (*TEACHERS, "normal", "fix-1-average", "correct-fix-1", "hybrid")
"""The networks whose manifolds are measured."""

PLANS = (
    "table1", "table2", "figure1", "figure2", "figure3", "figure4", "figureA6", "figureA7",
    "figureB1", "figureB2", "figureB3", "figures",
)  # fmt: skip


def names(scale: str) -> tuple[str, ...]:
    """Return the names of all recipes of a scale."""
    return tuple(_methods(scale))


NAMES = tuple(dict.fromkeys(name for scale in SCALES for name in names(scale)))


def recipe(name: str, scale: str = "small", dataset: str = "cifar10") -> Recipe:
    """Return the recipe of this name at this scale.

    Parameters
    ----------
    name : str
    scale : str
        Of `SCALES`, maybe varied, as in ``small+resnet34+eps4``: with another network, trained
        and attacked in the ball of 4/255; or in ``small+given-mine``: taught by a given network.
    dataset : str

    Raises
    ------
    ReproError
        If there is no such recipe or scale.
    """
    varied = variation(scale)
    teacher = varied.pop("given", None)
    methods = _methods(scale)
    if name not in methods:
        raise ReproError(
            f"unknown recipe {name!r} at scale {scale}: expected one of {', '.join(methods)}"
        )
    settings = {**SCALES[base(scale)], **methods[name], **varied}
    if "eps" in varied and "pgd" in settings:
        settings["pgd"] = PGD.in_ball(varied["eps"])
    if teacher is not None and name == "at":
        settings |= {"network": teacher, "epochs": 0, "pgd": None}
    distillation = settings.get("distillation")
    at_40 = base(scale) == "paper" and teacher is None
    if at_40 and distillation is not None and distillation.epoch is None:
        settings["distillation"] = dataclasses.replace(distillation, epoch=40)
    return Recipe(name=name, scale=scale, dataset=dataset, **settings)


def teachers(student: Recipe) -> list[Recipe]:
    """Return the recipes whose logits a student's targets are made of; none of other runs."""
    how = student.distillation
    names = () if how is None else (how.teacher, how.partner)
    return [recipe(name, student.scale, student.dataset) for name in names if name is not None]


def command(stage: str, name: str, scale: str, dataset: str = "cifar10") -> str:
    """Return the command that makes the files of a recipe, such as ``logits/at``, of every seed."""
    elsewhere = "" if dataset == "cifar10" else f" --dataset {dataset}"
    return f"logitdist make {stage}/{name}{elsewhere} --scale {scale}"


def is_sweep(wanted: Recipe) -> bool:
    """Return whether a run is a point of a sweep, and in no table."""
    return wanted.name not in _TABLES


def evaluated_images(wanted: Recipe) -> int | None:
    """Return how many test images a run is attacked on, the first ones; None for all.

    Of CIFAR-100 as many as in a sweep: a hundred logits an image outgrow what is stored.
    """
    few = SWEEP_IMAGES[base(wanted.scale)]
    return few if is_sweep(wanted) or wanted.dataset == "cifar100" else wanted.images
