"""What to make, in which order, and what it will take: tables, figures, the whole paper.

An artefact's plan is a list of jobs, finished results first. Hours are estimates.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from logit_distributions import choice, images, jobs, recipes
from logit_distributions.errors import ReproError, brief
from logit_distributions.jobs import Job
from logit_distributions.recipes import (
    FIGURE5,
    SEEDS,
    TEACHERS,
    Recipe,
    Scale,
    recipe,
    scale_of,
)

PAPER = "paper"
"""The plan of everything in the paper."""

RUNS_OF_THE_PAPER = 136
"""Training runs that the paper counts (A.1), without listing them."""

BY_EPOCH = ("figure1", "figureB1", "figures")
"""Plans whose teachers are recorded by epoch too."""

OF_TEACHERS = (
    "table1", "figure1", "figure2", "figure3", "figureB1", "figureB2", "figureB3",
)  # fmt: skip
CONTROLS = "controls"
"""The plan of what the paper does not have: other students, and regularizers at each strength.

Once the logs of all strengths are stored, the chosen ones are attacked and verified by the full
AutoAttack, and have other seeds too.
"""

MANIFOLDS = "manifolds"
"""The plan of what the capacities of the first seed depend on, beside the network."""

TABLE2 = recipes.TABLE2

CHECKS = ("masking", "distances")
"""Plans, and stages, of the networks of Table 2 and the chosen regularizers, seed 0."""

ADVERSARIAL = "adversarial"
"""The plan, and stage, of adversarial images of the published networks, for `replay`."""

VERIFIED_BY = ("logits/autoattack-full", "logits/odi")
"""Stages that verify the networks of Table 2, seed 0 (paper, section 3)."""

PLANS = (
    "table1", "table2", "tableV", "figure1", "figure2", "figure3", "figure4", "figure5",
    "figureA6", "figureA7", "figureA8", "figureB1", "figureB2", "figureB3", "figureC3", "figures",
    CONTROLS, MANIFOLDS, *CHECKS, ADVERSARIAL, PAPER,
)  # fmt: skip


SHOWN = (*OF_TEACHERS, "table2", "figure4", "figureA6", "figureA7", "figures")
"""Plans of attacked networks, see `names`."""


def names(plan: str, scale: Scale) -> tuple[str, ...]:
    """Return the recipes whose attacked networks an artefact shows, in the order of making."""
    logits, softmax = (
        tuple(n for n in recipes.names(scale) if n.startswith(f"{start}-epoch-"))
        for start in ("logits", "softmax")
    )
    fixed = tuple(n for n in recipes.names(scale) if n.startswith("fix-") and n not in TABLE2)
    shown: dict[str, tuple[str, ...]] = {
        **dict.fromkeys(OF_TEACHERS, TEACHERS),
        "table2": TABLE2,
        "figure4": ("at", "normal", "fix-1-permute", *fixed),
        "figureA6": ("at", *logits),
        "figureA7": ("at", *logits, *softmax),
    }
    shown["figures"] = tuple(dict.fromkeys(name for each in shown.values() for name in each))
    return shown[plan]


def is_sweep(wanted: Recipe) -> bool:
    """True of a point of a sweep, which is in no table."""
    return wanted.name.startswith(("fix-", "logits-", "softmax-")) and wanted.name not in TABLE2


def default_scale(words: Sequence[str]) -> Scale:
    """Return the scale of what is asked for unless another is named."""
    return recipes.SCALES["paper" if PAPER in words else "small"]


def plan(
    words: Sequence[str], scale: Scale, dataset: str = "cifar10", seeds: Sequence[int] = SEEDS
) -> list[Job]:
    """Return the jobs that words ask for, in an order that yields finished results early.

    Parameters
    ----------
    words : sequence of str
        Of `PLANS`, recipes (which are trained to the end and attacked), or jobs such as
        ``epochs/at``.
    scale : Scale
    dataset : str
        The plan of the whole paper has its own.
    seeds : sequence of int

    Returns
    -------
    list of Job
        Each once. What is in no table comes after what is; else seed by seed. Of a given network
        there is no training and there are no logits by epoch.

    Raises
    ------
    ReproError
        If a word is none of these.
    """
    wanted = list(_paper(scale, seeds)) if PAPER in words else []
    others = [j for word in words if word != PAPER for j in _jobs(word, scale, dataset, seeds)]
    wanted += sorted(others, key=lambda job: is_sweep(job.recipe))
    return list(dict.fromkeys(wanted))


def _jobs(word: str, scale: Scale, dataset: str, seeds: Sequence[int]) -> Iterator[Job]:
    if "/" in word:
        yield from jobs.parse(word, scale, dataset, seeds)
    elif word in ("figure5", "figureA8"):
        yield from _each("capacity", FIGURE5, scale, dataset, seeds)
    elif word == MANIFOLDS:
        yield from _what_capacities_depend_on(scale, dataset, seeds[:1])
    elif word == "tableV":
        for stage in VERIFIED_BY:
            yield from _each(stage, TABLE2, scale, dataset, seeds[:1])
    elif word == CONTROLS:
        yield from _trained_and_attacked(recipes.CONTROLS, scale, dataset, seeds)
        strengths = [n for n in recipes.names(scale) if n.startswith(tuple(recipes.REGULARIZERS))]
        yield from _each("log", strengths, scale, dataset, seeds[:1])
        best = choice.regularizers(str(scale), dataset)
        yield from _trained_and_attacked(best, scale, dataset, seeds)
        yield from _each(VERIFIED_BY[0], ("at", *best), scale, dataset, seeds[:1])
    elif word == ADVERSARIAL:
        yield from _each(word, scale.published or TABLE2, scale, dataset, seeds[:1])
    elif word in CHECKS:
        shown = (*TABLE2, *choice.regularizers(str(scale), dataset))
        yield from _each(word, shown, scale, dataset, seeds[:1])
    elif word == "figureC3":
        yield from _each("theory", TABLE2, scale, dataset, seeds[:1])
    else:
        shown = names(word, scale) if word in SHOWN else (word,)
        for job in _trained_and_attacked(shown, scale, dataset, seeds):
            yield job
            if word in BY_EPOCH and job.stage == "logits" and job.recipe.name in TEACHERS:
                yield from _if_trained(Job("epochs", job.recipe, job.seed))


def _trained_and_attacked(
    shown: Sequence[str], scale: Scale, dataset: str, seeds: Sequence[int]
) -> Iterator[Job]:
    """Yield attack and log, which comes last where the training goes on after that epoch."""
    for job in _each("logits", shown, scale, dataset, seeds):
        log = list(_if_trained(Job("log", job.recipe, job.seed)))
        goes_on = scale_of(job.recipe).at_epoch is not None and job.recipe.pgd is not None
        yield from (job, *log) if goes_on else (*log, job)


def _if_trained(job: Job) -> Iterator[Job]:
    if job.recipe.epochs:
        yield job


def _each(
    stage: str, shown: Sequence[str], scale: Scale, dataset: str, seeds: Sequence[int]
) -> Iterator[Job]:
    wanted = [recipe(name, scale, dataset) for name in shown]
    return (Job(stage, each, seed) for seed in seeds for each in wanted)


def _paper(scale: Scale, seeds: Sequence[int]) -> Iterator[Job]:
    """Yield Table 2 seed by seed, the teachers' last epochs, the sweeps, CIFAR-100, the manifolds.

    A teacher that Table 2 needs trained to its last epoch is recorded by epoch at once, where
    its checkpoints are.
    """

    def goes_on(job: Job) -> bool:
        return job.recipe.pgd is not None and scale.at_epoch is not None

    late = []
    for job in _trained_and_attacked(TABLE2, scale, "cifar10", seeds):
        if job.stage == "log" and goes_on(job):
            late.append(job)
            continue
        yield job
        if job.stage == "logits" and job.recipe.name in TEACHERS and not goes_on(job):
            yield from _if_trained(Job("epochs", job.recipe, job.seed))
    yield from late
    for job in _each("epochs", TEACHERS, scale, "cifar10", seeds):
        yield from _if_trained(job)
    students = [name for name in names("figures", scale) if name not in TEACHERS]
    yield from _trained_and_attacked(students, scale, "cifar10", seeds)
    yield from _trained_and_attacked(TEACHERS, scale, "cifar100", seeds)
    for job in _each("epochs", TEACHERS, scale, "cifar100", seeds):
        yield from _if_trained(job)
    yield from _each("capacity", FIGURE5, scale, "cifar10", seeds)


def _what_capacities_depend_on(scale: Scale, dataset: str, seeds: Sequence[int]) -> Iterator[Job]:
    """Yield capacities untrained, of other manifolds, other exemplars and numbers of points."""
    yield from _each("capacity", (recipes.UNTRAINED,), scale, dataset, seeds)
    for kind in ("random", "class"):
        yield from _each(f"capacity/{kind}", TEACHERS, scale, dataset, seeds)
    for number in recipes.EXEMPLAR_SETS:
        yield from _each(f"capacity/set-{number}", FIGURE5, scale, dataset, seeds)
    for count in recipes.POINTS:
        yield from _each(f"capacity/points-{count}", FIGURE5, scale, dataset, seeds)


def runs(wanted: Sequence[Job]) -> list[tuple[Recipe, int]]:
    """Return the networks behind jobs, recipe and seed, each once, teachers before students."""
    return list(dict.fromkeys((job.recipe, job.seed) for job in jobs.with_needs(wanted)))


@dataclass(frozen=True)
class Speed:
    """Hours of an epoch of training by method, and of an evaluation; at one width of ResNet-18.

    Attributes
    ----------
    epoch : dict of float
        Hours of an epoch of 45,000 images, by method.
    evaluation : float
        Hours of the attack on 10,000 images.
    width : int
    source : str
        Where they come from, for the reader.
    """

    epoch: dict[str, float]
    evaluation: float
    width: int
    source: str


METHODS = ("standard", "adversarial", "distillation")
_EPOCHS, _TRAINING, _TEST = 200, 45_000, 10_000


def paper_speed() -> Speed:
    """Return the speed that the paper's Table 3 prints (Titan Xp, width 64, 200 epochs).

    No hours are printed for attacks: each of the 200 iterations gets the time of an ascent in
    adversarial training, whose ten ascents and one step make an epoch.
    """
    hours = dict(zip(METHODS, (1.66, 18.0, 3.83), strict=True))
    epoch = {method: each / _EPOCHS for method, each in hours.items()}
    ascents = 2 * recipes.Evaluation.iterations * _TEST / (_TRAINING * (recipes.PGD.steps + 1))
    return Speed(epoch, ascents * epoch["adversarial"], 64, "of the paper's Table 3 (Titan Xp)")


def read_speed(path: Path) -> Speed:
    """Return the speed in a file that ``logitdist bench --json`` wrote.

    Raises
    ------
    ReproError
        If it is no such file.
    """
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        hours = {
            name: float(sorted(measured[name]["seconds"])[len(measured[name]["seconds"]) // 2])
            / 3600
            for name in (*METHODS, "attack")
        }
        if not all(0 < each < math.inf for each in hours.values()):
            raise ValueError(f"hours are {list(hours.values())}")
        source = "measured by 'logitdist bench' on {device} ({precision}, width {width})"
        evaluation = hours.pop("attack")
        return Speed(hours, evaluation, int(measured["width"]), source.format_map(measured))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ReproError(
            f"{path}: expected what 'logitdist bench --json FILE' writes, got something else "
            f"({type(error).__name__}: {brief(error)})"
        ) from error


def hours(job: Job, speed: Speed) -> float:
    """Return the hours that a job is estimated to take: its epochs, passes or attacked images.

    Work grows with the square of the width. A variation counts as its base; what takes little
    beside training and attacks, and manifolds, which are no GPU's work, count nothing.
    """
    wanted = job.recipe
    spec = images.spec_of(wanted.dataset)
    training = spec.count["train"] - len(spec.classes) * spec.validation_per_class
    share = min(wanted.images or training, training) / _TRAINING
    work = (wanted.width / speed.width) ** 2
    if job.kind == "train":
        before = [need.epoch or 0 for need in job.needs if need.kind == "train"]
        epochs = (job.epoch or wanted.epochs) - (before[0] if before else 0)
        return work * share * epochs * speed.epoch[wanted.method] if epochs else 0.0
    if job.kind == "targets":
        return work * share * job.passes * speed.epoch["standard"] / 3  # forward only
    if job.kind in CHECKS:
        return work * _attacks(job) * speed.evaluation
    if job.kind == "logits":
        attacked = recipes.evaluated_images(job.stage, wanted) or spec.count["test"]
        return work * attacked / _TEST * speed.evaluation
    return 0.0


_QUERIES = 5000
"""Of Square: passes forward, each a third of a step of the other attacks."""


def _attacks(job: Job) -> float:
    """Return how many evaluations of all test images a check is worth, if nothing is fooled."""
    usual = 2 * recipes.Evaluation.iterations  # of two attacks
    if job.kind == "masking":
        steps = sum(2 * each.iterations * each.restarts for each in recipes.masking(job.recipe))
        return (steps + _QUERIES / 3) / usual * recipes.MASKING_IMAGES / _TEST
    rounds = 1 + math.log2(recipes.FARTHEST / recipes.RESOLUTION)
    return rounds * recipes.DISTANCE_IMAGES / _TEST


def minutes_to_ask_for(job: Job, speed: Speed) -> int:
    """Return a limit on wall time: twice the estimate, and an hour for what it leaves out.

    A job that is cut goes on when retried.
    """
    return 60 + math.ceil(2 * 60 * hours(job, speed))


def megabytes_to_ask_for(job: Job) -> int:
    """Return a limit on memory: 4 GB for libraries and images, and activations on a CPU.

    These are the values and gradients of the 500 images that are attacked together: 40 MB for
    each unit of the width.
    """
    return 4000 + 40 * job.recipe.width


def lines(words: Sequence[str], wanted: Sequence[Job], speed: Speed) -> Iterator[str]:
    """Yield each run of a plan once, with hours and what is missing, then the totals."""
    made = jobs.with_needs(wanted)
    in_run: dict[tuple[Recipe, int], list[Job]] = {}
    for job in made:
        in_run.setdefault((job.recipe, job.seed), []).append(job)
    yield f"{'run':48s}{'hours':>9s}  missing"
    for (wanted_recipe, seed), some in in_run.items():
        asked = [job for job in some if job in set(wanted)]
        missing = [job.stage for job in asked if not job.path.exists()]
        spent = sum(hours(job, speed) for job in some)
        if asked:
            yield f"{wanted_recipe.run(seed):48s}{spent:9.3f}  {', '.join(missing) or '-'}"
    to_do = missing_jobs(wanted)
    all_hours, hours_to_do = (sum(hours(job, speed) for job in some) for some in (made, to_do))
    yield ""
    counted = ""
    if PAPER in words:
        counted = f"; the paper counts {RUNS_OF_THE_PAPER}, without listing them, we {len(in_run)}"
    yield (
        f"Plan {' '.join(words)}, scale {wanted[0].recipe.scale}: {len(in_run)} runs, "
        f"{len(wanted)} results{counted}."
    )
    yield f"Estimated hours: {all_hours:,.2f} in all, {hours_to_do:,.2f} still to do,"
    yield f"by the seconds of an epoch {speed.source}; an attack at most: what is fooled leaves."


def missing_jobs(wanted: Sequence[Job]) -> list[Job]:
    """Return the jobs that are still to be done for results that are not stored."""
    ordered: dict[Job, None] = {}
    for job in wanted:
        if not job.path.exists():
            ordered |= dict.fromkeys((*missing_jobs(job.needs), job))
    return list(ordered)


def files(wanted: Sequence[Job]) -> list[Path]:
    """Return what another machine needs to go on with jobs: results, and unfinished state.

    Of each result that exists the file; of one that does not, what exists of the files that it
    is made of, and what an unfinished stage goes on from.
    """
    paths: dict[Path, None] = {}
    for job in wanted:
        if job.path.exists():
            paths[job.path] = None
            continue
        paths |= dict.fromkeys(files(job.needs))
        unfinished = _epochs_read(job) + ([job.partial] if job.partial is not None else [])
        paths |= dict.fromkeys(path for path in unfinished if path.exists())
    return list(paths)


def _epochs_read(job: Job) -> list[Path]:
    """Return the checkpoints beside the last that a job reads: to record, or to choose among."""
    epochs: list[int] = []
    if job.kind == "epochs":
        epochs = choice.recorded_epochs(job.recipe)
    elif job.kind == "checkpoint" and choice.known_epoch(job.recipe) is None:
        epochs = choice.kept_epochs(job.recipe)
    return [jobs.epoch_file(job.recipe, job.seed, epoch) for epoch in epochs]
