"""What a plan will take: hours and cost of every run, from its arithmetic and a speed.

An estimate, not a measurement: the FLOPs of `work` over the FLOP/s that a device has
shown, in the paper's Table 3 or in ``logitdist bench``. Left out is what takes little beside
training and attacks (validation, logits by epoch), and what is no GPU's work (manifolds).
No torch here, but for networks other than ResNet-18.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from logit_distributions import images, schedule, work
from logit_distributions.errors import ReproError, brief, not_installed
from logit_distributions.recipes import GIVEN, Recipe, evaluated_images, recipe, teachers
from logit_distributions.schedule import STORED_AS, Job
from logit_distributions.store import places

REPORTED = places.ROOT / "paper" / "reported.toml"

METHODS = {"standard": "st", "adversarial": "at", "distillation": "normal"}
"""Ways to train, as in Table 3, and the recipe that stands for each."""


@dataclass(frozen=True)
class Speeds:
    """FLOP/s that a device achieves.

    Attributes
    ----------
    of : Mapping
        By method of training, and of the ``"attack"``.
    source : str
        Where they come from, for the reader.
    """

    of: Mapping[str, float]
    source: str


@cache
def _reported() -> dict[str, Any]:
    try:
        return tomllib.loads(REPORTED.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReproError(
            f"{REPORTED}: cannot be read ({brief(error)}); likely installed without the "
            "checkout: give speeds with --speed"
        ) from error


def paper_speeds() -> Speeds:
    """Return the speeds that the hours in the paper's Table 3 imply for its own recipes.

    No hours are printed for attacks; they get the speed of adversarial training, which is
    attack steps for the most part.
    """
    hours = {method: row["hours"] for method, row in _reported()["table3"].items()}
    found = {
        method: flops(Job("train", recipe(name, "paper"), 0)) / (3600 * hours[method])
        for method, name in METHODS.items()
    }
    found["attack"] = found["adversarial"]
    return Speeds(found, "that the hours in the paper's Table 3 imply (Titan Xp, width 64)")


def read_speeds(path: Path) -> Speeds:
    """Return the speeds in a file that ``logitdist bench --json`` wrote.

    Raises
    ------
    ReproError
    """
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))
        found = {name: float(measured[name]["flops_per_second"]) for name in (*METHODS, "attack")}
        if not all(0 < speed < math.inf for speed in found.values()):
            raise ValueError(f"speeds are {list(found.values())}")
        source = "measured by 'logitdist bench' on {device} ({precision}, width {width})"
        return Speeds(found, source.format_map(measured))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReproError(
            f"{path}: expected what 'logitdist bench --json FILE' writes, got something else "
            f"({type(error).__name__}: {brief(error)})"
        ) from error


def _forward(wanted: Recipe) -> work.Forward:
    """Return what an image takes in the network of a recipe."""
    if wanted.network == "resnet18":
        return work.resnet18(wanted.width, len(images.spec_of(wanted.dataset).classes))
    return _counted(wanted.network, wanted.dataset)


@cache
def _counted(name: str, dataset: str) -> work.Forward:
    try:
        from logit_distributions import foreign
        from logit_distributions.make import network
    except ImportError as error:
        raise not_installed(error) from error
    classes = len(images.spec_of(dataset).classes)
    if name.startswith(GIVEN):
        model = foreign.adopted(recipe("at", f"small+{name}", dataset), 0).model(classes)
    else:
        model = network.build(name, classes)
    return network.forward_work(model)


def _sizes(wanted: Recipe) -> tuple[int, int]:
    """Return training images and attacked images of a run."""
    spec = images.spec_of(wanted.dataset)
    training = spec.count["train"] - len(spec.classes) * spec.validation_per_class
    test = spec.count["test"]
    attacked = evaluated_images(wanted)
    return min(wanted.images or training, training), min(attacked or test, test)


def flops(job: Job) -> int:
    """Return the FLOPs of training, with a student's targets, or of an attack; of others 0.

    A teacher's targets are counted for every student, though they are made once; those of an
    attack are an upper bound, see `work.attack_flops`.

    Raises
    ------
    ReproError
        If there is no such network here.
    """
    wanted = job.recipe
    training, attacked = _sizes(wanted)
    if job.kind == "attack":
        return work.attack_flops(_forward(wanted), attacked)
    if job.kind != "train":
        return 0
    how = wanted.distillation
    passes = 0 if how is None else how.passes
    return work.training_flops(_forward(wanted), wanted, wanted.epochs * training) + sum(
        work.targets_flops(_forward(teacher), training, passes) for teacher in teachers(wanted)
    )


def hours(job: Job, speeds: Speeds) -> float:
    """Return the hours that a job is estimated to take."""
    speed = speeds.of["attack" if job.kind == "attack" else job.recipe.method]
    return flops(job) / speed / 3600


def minutes_to_ask_for(job: Job, speeds: Speeds) -> int:
    """Return a limit on wall time: twice the estimate, and an hour for what it leaves out.

    A job that is cut goes on when retried.
    """
    return 60 + math.ceil(2 * 60 * hours(job, speeds))


def megabytes_to_ask_for(job: Job) -> int:
    """Return a limit on memory: 4 GB for libraries and images, and activations on a CPU.

    These are the values and gradients of 500 images, as many as are attacked together.
    """
    return 4000 + 500 * 2 * 4 * _forward(job.recipe).elements // 1_000_000


@dataclass(frozen=True)
class Run:
    """A trained network, and everything that is made from it.

    Attributes
    ----------
    recipe : Recipe
    seed : int
    jobs : tuple of Job
        In the order of making; training first.
    """

    recipe: Recipe
    seed: int
    jobs: tuple[Job, ...]

    @property
    def missing(self) -> list[str]:
        """The kinds of dataset that are not stored yet."""
        return [STORED_AS[job.kind] for job in self.jobs if not job.path.exists()]

    def plain(self, speeds: Speeds, price: float | None) -> dict[str, Any]:
        """Return everything about the run as plain data."""
        spent = {job.kind: hours(job, speeds) for job in self.jobs}
        total = sum(spent.values())
        return {
            "run": self.recipe.run(self.seed),
            "method": self.recipe.method,
            "needs": [need.run for need in self.jobs[0].needs],
            "train_hours": spent.get("train", 0.0),
            "attack_hours": spent.get("attack", 0.0),
            "cost": None if price is None else price * total,
            "missing": self.missing,
        }


def runs(jobs: Sequence[Job]) -> list[Run]:
    """Return the runs behind jobs, each once, teachers before students."""
    found: dict[tuple[Recipe, int], list[Job]] = {}
    for job in schedule.with_needs(jobs):
        found.setdefault((job.recipe, job.seed), []).append(job)
    return [Run(*which, tuple(each)) for which, each in found.items()]


def totals(jobs: Sequence[Job], speeds: Speeds) -> dict[str, dict[str, float]]:
    """Return number and hours of jobs by kind, of training by method, of all and of those to do."""
    found: dict[str, dict[str, float]] = {}
    for job in schedule.with_needs(jobs):
        name = f"{job.recipe.method} training" if job.kind == "train" else job.kind
        to_do = not job.path.exists()
        for each in (name, "total"):
            row = found.setdefault(
                each, dict.fromkeys(("jobs", "hours", "to_do", "hours_to_do"), 0)
            )
            spent = hours(job, speeds)
            row["jobs"] += 1
            row["hours"] += spent
            row["to_do"] += to_do
            row["hours_to_do"] += to_do * spent
    found["total"] = found.pop("total")
    return found


def plain(jobs: Sequence[Job], speeds: Speeds, price: float | None) -> dict[str, Any]:
    """Return the whole estimate as plain data: speeds, runs, totals."""
    return {
        "speeds": dict(speeds.of),
        "speeds_from": speeds.source,
        "price_per_hour": price,
        "runs": [run.plain(speeds, price) for run in runs(jobs)],
        "totals": totals(jobs, speeds),
    }


def lines(
    names: Sequence[str], jobs: Sequence[Job], speeds: Speeds, price: float | None
) -> Iterator[str]:
    """Yield the estimate as a table: each run once, then totals."""
    found = plain(jobs, speeds, price)
    head = "" if price is None else f"{'USD':>10s}"

    def cells(spent: float) -> str:
        numbers = (spent,) if price is None else (spent, price * spent)
        return "".join(f"{each:10.2f}" for each in numbers)

    yield f"{'run':42s}{'needs':12s}{'train h':>10s}{'attack h':>10s}{head}  to do"
    for each, run in zip(found["runs"], runs(jobs), strict=True):
        needs = ", ".join(need.recipe.name for need in run.jobs[0].needs) or "-"
        cost = "" if price is None else f"{each['cost']:10.2f}"
        yield (
            f"{each['run']:42s}{needs:12s}{each['train_hours']:10.3f}{each['attack_hours']:10.3f}"
            f"{cost}  {', '.join(each['missing']) or 'done'}"
        )
    yield ""
    yield f"{'':24s}{'jobs':>6s}{'hours':>10s}{head}{'to do':>8s}{'hours':>10s}{head}"
    for name, row in found["totals"].items():
        all_, left = (
            cells(row[spent]) if row["hours"] else f"{'-':>10s}" + "".ljust(len(head))
            for spent in ("hours", "hours_to_do")
        )
        yield f"{name:24s}{row['jobs']:6.0f}{all_}{row['to_do']:8.0f}{left}".rstrip()
    yield ""
    of = f"Plan {' '.join(names)}, scale {jobs[0].recipe.scale}: {len(found['runs'])} runs"
    if schedule.PAPER in names:
        of += f"; the paper counts {_reported()['runs']['total']}, but does not list them"
    yield f"{of}."
    yield f"An estimate: the FLOPs of each run over the speed {speeds.source}."
    yield "Attacks at most: what is fooled leaves. Not estimated: validation, epochs, manifolds."
