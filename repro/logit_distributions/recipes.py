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
from dataclasses import dataclass, replace
from typing import Any, Literal

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
class Regularizer:
    """What standard training is held to beside the labels (paper, section 2).

    Attributes
    ----------
    name : {"label-smoothing", "logit-squeezing"}
        A share of each label spread over all classes; or the squared L2 norm of the logits, mean
        over the batch, added to the loss.
    strength : float
        That share; or the factor of the norm.
    """

    name: str
    strength: float


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
    regularizer : Regularizer or None
        Of standard training.
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
    regularizer: Regularizer | None = None

    @property
    def method(self) -> str:
        """``"standard"``, ``"adversarial"``, ``"distillation"``; ``"given"`` or ``"untrained"``."""
        if self.network.startswith(GIVEN):
            return "given"
        if not self.epochs:
            return "untrained"
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
    if fields.get("regularizer") is not None:
        fields["regularizer"] = Regularizer(**fields["regularizer"])
    return Recipe(**fields | {"milestones": tuple(fields["milestones"])})


ADDED: dict[str, Any] = {
    "images": None,
    "network": "resnet18",
    "eps": PGD.eps,
    "schedule": "step",
    "regularizer": None,
}
"""Fields that came after the first stored results, whose hashes must stay, with their defaults."""

GIVEN = "given-"
"""Before the name of a network that `logitdist adopt` keeps, in a scale or a recipe."""


OWN = "own-"
"""Before the name of a student that learns from targets that `logitdist adopt --targets` keeps."""


@dataclass(frozen=True)
class Scale:
    """How large networks are and how long they train; what is varied in all recipes at once.

    Attributes
    ----------
    name : str
        Of `SCALES`.
    width, epochs : int
    teacher_epochs : tuple of int
        Epochs of the teacher from which the students of a sweep learn, in the order of making: a
        sweep that is cut short is coarse, not half.
    at_epoch : int or None
        The epoch that stands for an adversarial training; None: validation chooses.
    images : int or None
        Restricts every part of the data set to its first so many images.
    sweep_images : int or None
        Test images on which a student of a sweep is attacked, the first ones; None for all.
    schedule : {"step", "linear"}
        Of the learning rate, as in `Recipe`.
    recorded_every : int
        Of the kept epochs, each so-many-th is recorded by epoch.
    published : tuple of str
        Recipes whose evaluated weights, of seed 0 on CIFAR-10, are stored beside the datasets.
    network : str
    eps : int
        Radius of the ball, in 255ths.
    given : str or None
        Name of the network that stands for ``at``.
    """

    name: str
    width: int
    epochs: int
    teacher_epochs: tuple[int, ...]
    at_epoch: int | None = None
    images: int | None = None
    sweep_images: int | None = None
    schedule: str = "step"
    recorded_every: int = 1
    published: tuple[str, ...] = ()
    network: str = "resnet18"
    eps: int = 8
    given: str | None = None

    @classmethod
    def parse(cls, text: str) -> Scale:
        """Read a scale, such as ``small`` or ``paper+wide_resnet50_2+eps4+given-mine``.

        Raises
        ------
        ReproError
            If there is no such scale, or a part is unknown, twice there or not in this order.
        """
        name, *parts = text.split("+")
        if name not in SCALES:
            raise ReproError(f"unknown scale {text!r}: expected one of {', '.join(SCALES)}")
        change: dict[str, Any] = {}
        for part in parts:
            if radius := re.fullmatch(r"eps(\d+)", part):
                change["eps"] = int(radius[1]) or SCALES[name].eps
            elif teacher := re.fullmatch(rf"{GIVEN}(\w+)", part):
                change["given"] = teacher[1]
            elif re.fullmatch(r"[a-z]\w*(:\w+)?", part):
                change["network"] = part
        scale = replace(SCALES[name], **change)
        if str(scale) != text:
            raise ReproError(
                f"unknown scale {text!r}: expected {name}, +NETWORK, +epsN for N/255 and "
                f"+{GIVEN}NAME, in this order, each once at most, as in {name}+resnet34+eps4"
            )
        return scale

    def __str__(self) -> str:
        plain = SCALES[self.name]
        network = f"+{self.network}" if self.network != plain.network else ""
        eps = f"+eps{self.eps}" if self.eps != plain.eps else ""
        return f"{self.name}{network}{eps}{f'+{GIVEN}{self.given}' if self.given else ''}"


TABLE2 = ("st", "at", "normal", "fix-1-permute", "correct-fix-1", "hybrid")
"""The networks of Table 2, teachers first."""

SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        Scale(
            "paper", 64, 200, (20, 40, 100, 200, 60, 80, 120, 140, 160, 180), at_epoch=40
        ),
        Scale(
            "medium", 16, 20, (10, 20, 5, 15), sweep_images=2000, schedule="linear",
            recorded_every=2, published=TABLE2,
        ),
        Scale("small", 8, 6, (3, 6, 1, 4, 5, 2), sweep_images=2000, published=("at",)),
        Scale("miniature", 8, 2, (1, 2), images=256, sweep_images=128),
    )
}  # fmt: skip
"""In the order in which readers prefer them.

``medium`` is what two CPU cores make in a day, ``small`` in two hours: the paper's training
(A.2), but for width, length and, at ``medium``, the schedule. ``miniature`` rehearses every step
on real images in minutes; its results mean nothing.
"""


def scale_of(recipe: Recipe) -> Scale:
    """Return the scale of a recipe."""
    return Scale.parse(recipe.scale)


SEEDS = (0, 1, 2)

SWEPT_K = (1, 4, 2, 6, 8, 3, 5, 7)
"""Fix-k for ten classes; from k = 9 on neither manipulation changes anything. In the order of
making, like the epochs of a teacher."""

_TABLES: dict[str, dict[str, Any]] = {
    "st": {},
    "at": {"pgd": PGD()},
    "normal": {"distillation": Distillation()},
    "fix-1-permute": {"distillation": Distillation(manipulation="permute", k=1)},
    "correct-fix-1": {"distillation": Distillation(manipulation="correct-permute", k=1)},
    "hybrid": {"distillation": Distillation(manipulation="hybrid", partner="st")},
}

UNTRAINED = "untrained"
"""A network as it is initialised: what of its manifolds is architecture?"""

_FIX_K: dict[str, dict[str, Any]] = {
    f"fix-{k}-{how}": {"distillation": Distillation(manipulation=how, k=k)}
    for k in SWEPT_K
    for how in ("permute", "average")
    if f"fix-{k}-{how}" not in _TABLES
}


CONTROLS = ("correct", "random-errors", "drop-errors", "hybrid-reversed")
"""Students that the paper does not have: which part of an error matters, and of a ranking."""

REGULARIZERS = {"label-smoothing": (0.1, 0.3, 0.6), "logit-squeezing": (0.01, 0.05, 0.25)}
"""Regularizers that the paper's section 2 names, and the strengths to choose from."""

_CONTROLS: dict[str, dict[str, Any]] = {
    **{name: {"distillation": Distillation(manipulation=name)} for name in CONTROLS[:3]},
    "hybrid-reversed": {
        "distillation": Distillation(teacher="st", manipulation="hybrid", partner="at")
    },
    **{
        f"{name}-{strength}": {"regularizer": Regularizer(name, strength)}
        for name, strengths in REGULARIZERS.items()
        for strength in strengths
    },
}


def _by_epoch(scale: Scale, name: str, loss: str) -> dict[str, dict[str, Any]]:
    if scale.given:  # has no epochs
        return {}
    return {
        f"{name}-epoch-{epoch}": {"distillation": Distillation(epoch=epoch, loss=loss)}
        for epoch in scale.teacher_epochs
    }


def _methods(scale: Scale) -> dict[str, dict[str, Any]]:
    return {
        **_TABLES,
        **_FIX_K,
        **_by_epoch(scale, "logits", "l1"),
        **_by_epoch(scale, "softmax", "kl"),
        **_CONTROLS,
        UNTRAINED: {"epochs": 0},
    }


TEACHERS = ("st", "at")

FIGURE5 = (*TEACHERS, "normal", "fix-1-average", "correct-fix-1", "hybrid")
"""The networks whose manifolds are measured."""


def names(scale: Scale) -> tuple[str, ...]:
    """Return the names of all recipes of a scale."""
    return tuple(_methods(scale))


NAMES = tuple(dict.fromkeys(name for scale in SCALES.values() for name in names(scale)))


def recipe(name: str, scale: Scale | str = "small", dataset: str = "cifar10") -> Recipe:
    """Return the recipe of this name at this scale.

    Raises
    ------
    ReproError
        If there is no such recipe or scale.
    """
    if isinstance(scale, str):
        scale = Scale.parse(scale)
    methods = _methods(scale) | _own(name)
    if name not in methods:
        raise ReproError(
            f"unknown recipe {name!r} at scale {scale}: expected one of {', '.join(methods)}"
        )
    settings: dict[str, Any] = {
        "width": scale.width, "epochs": scale.epochs, "images": scale.images,
        "schedule": scale.schedule, "network": scale.network, "eps": scale.eps / 255,
        **methods[name],
    }  # fmt: skip
    if "pgd" in settings:
        settings["pgd"] = PGD.in_ball(scale.eps / 255)
    if scale.given and name == "at":
        settings |= {"network": f"{GIVEN}{scale.given}", "epochs": 0, "pgd": None}
    how = settings.get("distillation")
    of_at = how is not None and how.teacher == "at" and how.epoch is None
    if scale.at_epoch and not scale.given and how is not None and of_at:
        settings["distillation"] = replace(how, epoch=scale.at_epoch)
    return Recipe(name=name, scale=str(scale), dataset=dataset, **settings)


def _own(name: str) -> dict[str, dict[str, Any]]:
    """Return the recipe of a student of targets of one's own, and of these, if a name is one.

    Such as ``own-mine-3fa9c2d1``, whose last part is a hash of the targets: so the recipe of a
    student, and its hash, say what it was taught. Of ``own-mine-3fa9c2d1-targets`` nothing is
    trained.
    """
    if re.fullmatch(rf"{OWN}\w+-[0-9a-f]{{8}}", name):
        return {name: {"distillation": Distillation(teacher=f"{name}-targets")}}
    if re.fullmatch(rf"{OWN}\w+-[0-9a-f]{{8}}-targets", name):
        return {name: {"network": f"{GIVEN}{name}", "epochs": 0}}
    return {}


def teachers(student: Recipe) -> list[Recipe]:
    """Return the recipes whose logits a student's targets are made of; none of other runs."""
    how = student.distillation
    names = () if how is None else (how.teacher, how.partner)
    return [recipe(name, student.scale, student.dataset) for name in names if name is not None]


def command(stage: str, name: str, scale: str, dataset: str = "cifar10") -> str:
    """Return the command that makes the files of a recipe, such as ``logits/at``, of every seed."""
    elsewhere = "" if dataset == "cifar10" else f" --dataset {dataset}"
    return f"logitdist make {stage}/{name}{elsewhere} --scale {scale}"


ENGINES: dict[str, tuple[str, ...]] = {
    "repro": ("apgd-ce", "apgd-dlr"),
    "autoattack": ("apgd-ce", "apgd-dlr"),
    "autoattack-full": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "autoattack-square": ("square",),
    "odi": ("odi",),
}
"""The attacks that each engine runs, in order, each on what is still classified correctly."""


@dataclass(frozen=True)
class Evaluation:
    """How adversarial accuracy is measured (paper, section 3).

    Attributes
    ----------
    engine : str
        ``"repro"``: our APGD; ``"autoattack"``: the same two attacks of the official
        implementation; ``"autoattack-full"``: its standard suite; ``"autoattack-square"``: Square
        alone, which needs no gradient; ``"odi"``.
    eps : float
        Radius of the Linf ball, in pixel units.
    iterations : int
        Of APGD; the official suite always takes 100.
    restarts : int
        Random restarts of each attack. The paper does not say; ODI's authors use 20.
    seed : int

    Examples
    --------
    >>> from logit_distributions import Evaluation
    >>> Evaluation("autoattack-full", eps=4 / 255).attacks
    ('apgd-ce', 'apgd-t', 'fab-t', 'square')
    """

    engine: str = "repro"
    eps: float = 8 / 255
    iterations: int = 100
    restarts: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ReproError(
                f"unknown attack engine {self.engine!r}: expected one of {', '.join(ENGINES)}"
            )
        if not 0 < self.eps <= 1:
            cause = "natural accuracy needs no attack" if self.eps == 0 else "8/255 is usual"
            raise ReproError(f"eps: expected a length in (0, 1], got {self.eps}; {cause}")
        if self.iterations < 1 or self.restarts < 1:
            raise ReproError(
                "iterations and restarts: expected at least 1, got "
                f"{self.iterations} and {self.restarts}"
            )

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks, in the order in which they run."""
        return ENGINES[self.engine]


VERIFIED_IMAGES = 1000
"""Test images on which other engines verify the main evaluation, the first ones."""


MASKING_EPS = (1, 2, 4, 8, 16, 32, 64)
"""Radii at which signs of masked gradients are looked for, in 255ths."""

MASKING_ITERATIONS, MASKING_RESTARTS = (10, 20, 50, 100, 500), (1, 5)
"""Iterations and restarts, in the ball of the recipe."""

MASKING_IMAGES, DISTANCE_IMAGES = 500, 1000
"""Test images of the stages ``masking`` and ``distances``, the first ones."""

KEPT_IMAGES = 20
"""Test images whose adversarial ones the stage ``adversarial`` keeps, the first ones."""

FARTHEST, RESOLUTION = 64 / 255, 0.25 / 255
"""The largest radius at which the stage ``distances`` attacks, and how finely it bisects."""


def masking(recipe: Recipe) -> list[Evaluation]:
    """Return the evaluations that tell whether a network masks its gradients, each once."""
    by_eps = [Evaluation(eps=eps / 255) for eps in MASKING_EPS]
    by_iterations = [Evaluation(eps=recipe.eps, iterations=each) for each in MASKING_ITERATIONS]
    by_restarts = [Evaluation(eps=recipe.eps, restarts=each) for each in MASKING_RESTARTS]
    return list(dict.fromkeys([*by_eps, *by_iterations, *by_restarts]))


@dataclass(frozen=True)
class Manifolds:
    """What decides the capacities of a network (paper, 4.2 and A.4), but for its images.

    Attributes
    ----------
    kind : {"adversarial", "random", "class"}
        Of the manifolds: ends of PGD from random starts, random points of the ball, clean classes.
    exemplars : int
        P, the manifolds; for ``"class"`` there is one per class.
    points : int
        M, the points of each.
    eps, step : float
        Linf radius and step of PGD, in pixel units [0, 1].
    steps : int
        Of PGD.
    n_t : int
        Gaussian vectors per manifold of the mean-field theory.
    draws : int
        Of the simulations and of conic geometry.
    largest : int
        Features above which a layer is seen through a Gaussian projection to as many.
    seed : int
        Of everything that is drawn; the same for all networks.
    exemplar_set : int
        Which exemplars: 0 for the first P, 1 for the next P, and so on.

    Examples
    --------
    >>> from logit_distributions import Manifolds
    >>> Manifolds("class", points=20).draws
    60
    """

    kind: Literal["adversarial", "random", "class"] = "adversarial"
    exemplars: int = 50
    points: int = 50
    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    n_t: int = 300
    draws: int = 60
    largest: int = 2048
    seed: int = 0
    exemplar_set: int = 0


EXEMPLAR_SETS = (1, 2)
"""Further disjoint sets of exemplars: how much do capacities depend on which images are taken?"""

POINTS = (10, 25, 100)
"""Further numbers of points of a manifold: are there enough for the capacity to have settled?"""

POINTS_LAYERS = ("layer1.1", "layer3.1")
"""An early and a late layer, which are measured with those."""

CAPACITY_STAGES: dict[str, dict[str, Any]] = {
    "capacity": {},
    "capacity/random": {"kind": "random"},
    "capacity/class": {"kind": "class"},
    **{f"capacity/set-{number}": {"exemplar_set": number} for number in EXEMPLAR_SETS},
    **{f"capacity/points-{count}": {"points": count} for count in POINTS},
}
"""What the manifolds of each stage are, where they are not the usual ones."""

STEPS = (0.001, 0.01, 0.1)
"""L2 lengths of the gradient step of eq. (6) over that of the image; Figure C.3 has 0.1."""

STEPPED_IMAGES = 2000
"""Test images on which gradient steps are taken, the first ones."""


def evaluation(stage: str, recipe: Recipe) -> Evaluation:
    """Return how a stage such as ``logits`` or ``logits/odi`` attacks the network of a recipe.

    Raises
    ------
    ReproError
        If there is no such engine.
    """
    _, _, engine = stage.partition("/")
    return Evaluation(engine or Evaluation.engine, eps=recipe.eps)


def evaluated_images(stage: str, recipe: Recipe) -> int | None:
    """Return how many test images a stage attacks, the first ones; None for all.

    Of CIFAR-100 as many as in a sweep: a hundred logits an image outgrow what is stored.
    """
    if stage != "logits":
        return min(VERIFIED_IMAGES, recipe.images or VERIFIED_IMAGES)
    is_swept = recipe.name not in (*TABLE2, *_CONTROLS) and not recipe.name.startswith(OWN)
    if is_swept or recipe.dataset == "cifar100":
        return scale_of(recipe).sweep_images
    return recipe.images


def manifolds(stage: str, recipe: Recipe) -> Manifolds:
    """Return the manifolds of a stage such as ``capacity`` or ``capacity/class``.

    ``capacity/set-1`` and ``capacity/set-2`` have other exemplars, ``capacity/points-10`` has other
    numbers of points.

    Raises
    ------
    ReproError
        If there is no such stage.
    """
    planned = Manifolds(eps=recipe.eps, step=recipe.eps / 4)
    if scale_of(recipe).name == "miniature":
        planned = replace(planned, exemplars=10, points=5, n_t=20, draws=5)
    if stage not in CAPACITY_STAGES:
        raise ReproError(f"unknown stage {stage!r}: expected one of {', '.join(CAPACITY_STAGES)}")
    return replace(planned, **CAPACITY_STAGES[stage])


def measured_layers(stage: str) -> tuple[str, ...] | None:
    """Return the layers that a stage such as ``capacity/points-10`` measures; None for all."""
    return POINTS_LAYERS if stage.startswith("capacity/points-") else None
