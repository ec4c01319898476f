"""The ``logitdist`` command: parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logit_distributions import recipes, schedule, store
from logit_distributions.errors import ReproError, not_installed
from logit_distributions.make.options import Budget, OutOfTime
from logit_distributions.store import places
from logit_distributions.theory_command import add_theory_command

if TYPE_CHECKING:
    from logit_distributions.capacity import Settings
    from logit_distributions.make.attack import Evaluation
    from logit_distributions.make.train import Machine

DESCRIPTION = """\
Reproduce 'Understanding the Logit Distributions of Adversarially-Trained Deep Neural
Networks': train, distil, attack, and store logits as labelled datasets.

  logitdist run table2                  everything behind Table 2, from nothing to datasets
  logitdist run at --seed 0 --scale paper
  logitdist list                        what is stored
  logitdist show data/logits/FILE.nc    what a dataset holds and where it came from

Every command skips what is done and resumes what was cut."""


MADE = {"train": "training log", "epochs": "logits by epoch", "manifolds": "capacities"}
"""What a job has made, in words, where accuracies are not printed."""

TEMPORARY_FAILURE = 75
"""Exit code of what is not finished, but goes on if it is called again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 an error, 2 a usage error, 75 go on."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    if parsed.data is not None:
        os.environ["REPRO_DATA"] = str(parsed.data)
    try:
        code: int = parsed.handler(parsed)
        return code
    except ReproError as error:
        if parsed.debug:
            raise
        print(f"logitdist: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if parsed.debug:
            raise
        print(f"logitdist: error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("logitdist: stopped; the same command resumes", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"folder of stored results (default {places.data()}, or REPRO_DATA)",
    )
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = argparse.ArgumentParser(
        "logitdist", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, text: str, handler: Callable[[argparse.Namespace], int]
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        command.set_defaults(handler=handler)
        return command

    fetch = add(
        "fetch", "Get the images, check them by content; keep some for the figures.", _fetch
    )
    _add_dataset(fetch)
    _add_images(fetch)

    train = add("train", "Train a standard (st) or an adversarial (at) network.", _train)
    train.add_argument("recipe", choices=("st", "at"))
    _add_running(train)

    distill = add("distill", "Distil a student; its teachers are trained if need be.", _train)
    students = [n for n in recipes.NAMES if n not in ("st", "at")]
    distill.add_argument("recipe", choices=students, metavar="RECIPE", help=", ".join(students))
    _add_running(distill)

    attack = add("attack", "Attack a trained network and store its logits.", _attack)
    attack.add_argument(
        "recipe", nargs="?", choices=recipes.NAMES, metavar="RECIPE",
        help="as for train and distill; or a network of your own:",
    )  # fmt: skip
    _add_foreign(attack)
    _add_running(attack)
    attack.add_argument(
        "--engine",
        default="repro",
        metavar="NAME",
        help="repro: APGD-CE then APGD-DLR (default); autoattack: the same two of the official "
        "implementation; autoattack-full: its whole suite; odi: PGD with diversified starts",
    )
    attack.add_argument("--eps", type=_length, help="Linf radius (default the recipe's, 8/255)")
    attack.add_argument("--iterations", type=int, default=100, help="of APGD (default 100)")
    attack.add_argument("--restarts", type=int, default=1, help="random restarts (default 1)")
    attack.add_argument("--limit", type=_count, metavar="N", help="only the first N test images")

    adopt = add(
        "adopt", "Let a network of your own stand for at, at scales as small+given-NAME.", _adopt
    )
    adopt.add_argument("name", metavar="NAME", help="letters, digits and underscores")
    _add_dataset(adopt)
    _add_foreign(adopt, required=True)

    run = add("run", "Make datasets: train, distil, attack, whatever is missing.", _run)
    run.add_argument(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help=f"paper (everything), {', '.join(recipes.PLANS)}, or any of "
        f"{', '.join(recipes.NAMES)}",
    )
    run.add_argument(
        "--budget",
        type=_duration,
        metavar="TIME",
        help="stop after 90s, 9m or 2h, where the same command goes on (exit code 75)",
    )
    _add_running(run, seeds=True)

    make = add("make", "Do one job of a plan, as a cluster's workflow does.", _make)
    make.add_argument("kind", choices=tuple(schedule.STORED_AS))
    make.add_argument(
        "recipe", choices=recipes.NAMES, metavar="RECIPE", help="as for train and distill"
    )
    _add_running(make)

    plan = add(
        "plan", "List the runs of a plan: needs, estimated hours and cost, what is done.", _plan
    )
    plan.add_argument(
        "recipes", nargs="*", default=[schedule.PAPER], metavar="RECIPE", help="as for run"
    )
    _add_choice(plan, seeds=True)
    plan.add_argument(
        "--speed", type=Path, metavar="FILE",
        help="what 'logitdist bench --json FILE' measured (default: the paper's Table 3)",
    )  # fmt: skip
    plan.add_argument("--price", type=_price, metavar="USD", help="of an hour, for the cost")
    plan.add_argument("--json", action="store_true", help="print JSON")

    validate = add("validate", "Name every fault of stored datasets.", _validate)
    validate.add_argument("paths", nargs="+", type=_path, metavar="PATH", help="files or folders")

    bench = add(
        "bench", "Time training and attacks here, beside a plain loop and the limits.", _bench
    )
    bench.add_argument("--width", type=_count, help="of the network (default 64 on a GPU, else 8)")
    _add_machine(bench)
    bench.add_argument("--quick", action="store_true", help="time few steps")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, too")

    add("list", "List the stored datasets.", _list)

    manifolds = add(
        "manifolds", "Measure the capacity of manifolds, layer by layer, and store it.", _manifolds
    )
    manifolds.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help="networks of ours (default those of Figure 5)"
    )
    _add_running(manifolds, seeds=True)
    manifolds.add_argument(
        "--kind", default="adversarial", choices=("adversarial", "random", "class"),
        help="ends of PGD from random starts (default), random points in the ball, clean classes",
    )  # fmt: skip
    manifolds.add_argument("--exemplars", type=_count, default=50, metavar="P", help="default 50")
    manifolds.add_argument("--points", type=_count, default=50, metavar="M", help="default 50")
    manifolds.add_argument("--draws", type=_count, default=60, help="of simulations (default 60)")
    manifolds.add_argument("--eps", type=_length, default=8 / 255, help="Linf radius")
    _add_foreign(manifolds)
    manifolds.add_argument("--layers", nargs="+", metavar="NAME", help="of your own network")

    add_theory_command(commands, parents=[common])

    show = add("show", "Show what a dataset holds and where it came from.", _show)
    show.add_argument("path", type=Path, metavar="PATH")
    return parser


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", default="cifar10", help="data set (default cifar10)")


def _add_choice(command: argparse.ArgumentParser, seeds: bool = False) -> None:
    """Add what says which runs are meant, beside recipes."""
    _add_dataset(command)
    command.add_argument(
        "--scale",
        type=_scale,
        metavar="SCALE",
        help=f"{', '.join(recipes.SCALES)}, or a variation such as small+resnet34+eps4 or "
        "small+given-NAME (default small; paper for the plan paper)",
    )
    if seeds:
        command.add_argument(
            "--seed", type=_seed, nargs="+", default=list(recipes.SEEDS), help="default 0 1 2"
        )
    else:
        command.add_argument("--seed", type=_seed, default=0, help="default 0")


def _add_foreign(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument(
        "--checkpoint", type=_path, metavar="FILE", help="weights of your own", required=required
    )
    command.add_argument(
        "--model", metavar="MODULE:FUNCTION", help="makes your own network", required=required
    )
    if not required:
        command.add_argument("--output", type=_path, metavar="FILE", help="for your own network")


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="local copy of the data set: original batches, their tarball, or PNG sheets",
    )


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default auto)")
    command.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16"),
        help="of training; logits are always computed in float32",
    )
    command.add_argument("--threads", type=_count, metavar="N", help="CPU threads")


def _add_running(command: argparse.ArgumentParser, seeds: bool = False) -> None:
    _add_choice(command, seeds)
    _add_images(command)
    _add_machine(command)
    command.add_argument(
        "--save-every",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds between rolling checkpoints (default 60)",
    )


def _length(text: str) -> float:
    """Parse ``8/255`` or ``0.031``."""
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(
            f"expected a length such as 8/255 or 0.031, got {text!r}"
        ) from None


def _duration(text: str) -> float:
    """Parse ``90s``, ``9m`` or ``2h`` to seconds."""
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        seconds = float(text[:-1]) * units[text[-1]]
    except (ValueError, KeyError, IndexError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 9m or 2h, got {text!r}")
    return seconds


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise argparse.ArgumentTypeError(f"expected dollars such as 0.40, got {text!r}")
    return price


def _path(text: str) -> Path:
    if not text:  # Path("") would be the current folder
        raise argparse.ArgumentTypeError("expected a path, got an empty string")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _scale(text: str) -> str:
    try:
        recipes.variation(text)
    except ReproError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _wanted(parsed: argparse.Namespace, name: str) -> recipes.Recipe:
    return recipes.recipe(name, parsed.scale or "small", parsed.dataset)


def _machine(parsed: argparse.Namespace) -> Machine:
    """Return the machine that was asked for; before this, torch is not imported."""
    try:
        import torch

        from logit_distributions.make.train import Machine
    except ImportError as error:
        raise not_installed(error) from error
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    return Machine(parsed.device, parsed.precision).resolve()


def _options(parsed: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Return the pipeline module, which needs torch, and its options."""
    machine = _machine(parsed)
    from logit_distributions import pipeline

    budget = Budget(getattr(parsed, "budget", None))
    return pipeline, pipeline.Options(machine, parsed.images, parsed.save_every, budget)


def _fetch(parsed: argparse.Namespace) -> int:
    from logit_distributions import images

    for part in ("train", "validation", "test"):
        found = images.load(parsed.dataset, part, parsed.images)
        print(f"{parsed.dataset} {part}: {len(found):,} images, content verified")
    sheet = images.stored_sheet(parsed.dataset)
    if not sheet.exists():
        with store.registering(sheet):
            images.write_sheet(found.images[: images.SHEET_IMAGES], sheet)
    return 0


def _train(parsed: argparse.Namespace) -> int:
    wanted = _wanted(parsed, parsed.recipe)
    pipeline, options = _options(parsed)
    pipeline.do(schedule.Job("train", wanted, parsed.seed), options)
    checkpoint = pipeline.trained(wanted, parsed.seed, options)
    last = checkpoint.log[-1]
    part = "validation" if "validation_accuracy" in last else "training"
    accuracy = last.get("validation_accuracy", last["accuracy"])
    print(
        f"{wanted.run(parsed.seed)}: epoch {checkpoint.epoch} of {wanted.epochs} stands for the "
        f"run; {part} accuracy {accuracy:.1%}"
    )
    return 0


def _attack(parsed: argparse.Namespace) -> int:
    if (parsed.recipe is None) == (parsed.checkpoint is None):
        raise ReproError("expected a recipe, or --checkpoint with a network of your own")
    pipeline, options = _options(parsed)
    from logit_distributions.make.attack import Evaluation

    wanted = None if parsed.recipe is None else _wanted(parsed, parsed.recipe)
    eps = (wanted.eps if wanted else Evaluation.eps) if parsed.eps is None else parsed.eps
    settings = Evaluation(parsed.engine, eps, parsed.iterations, parsed.restarts)
    if wanted is None:
        return _foreign_logits(parsed, settings, options.machine)
    _print_accuracy(pipeline.recorded(wanted, parsed.seed, options, settings, parsed.limit))
    return 0


def _adopt(parsed: argparse.Namespace) -> int:
    try:
        from logit_distributions import foreign
    except ImportError as error:
        raise not_installed(error) from error
    path = foreign.adopt(parsed.name, parsed.checkpoint, parsed.model, parsed.dataset)
    print(f"{path}: stands for at, for instance in")
    print(f"logitdist run table2 --scale small+{recipes.GIVEN}{parsed.name} --data RESULTS")
    return 0


def _jobs(parsed: argparse.Namespace) -> list[schedule.Job]:
    scale = parsed.scale or schedule.scale_of(parsed.recipes)
    return schedule.jobs(parsed.recipes, scale, parsed.dataset, parsed.seed)


def _run(parsed: argparse.Namespace) -> int:
    jobs = _jobs(parsed)
    pipeline, options = _options(parsed)
    for number, job in enumerate(jobs):
        try:
            path = pipeline.do(job, options)
        except OutOfTime as stopped:
            print(f"logitdist: {number} of {len(jobs)} done; {stopped}", file=sys.stderr)
            return TEMPORARY_FAILURE
        _print_made(job, path)
    return 0


def _make(parsed: argparse.Namespace) -> int:
    job = schedule.Job(parsed.kind, _wanted(parsed, parsed.recipe), parsed.seed)
    pipeline, options = _options(parsed)
    _print_made(job, pipeline.do(job, options))
    return 0


def _plan(parsed: argparse.Namespace) -> int:
    from logit_distributions import estimate

    jobs = _jobs(parsed)
    speeds = estimate.read_speeds(parsed.speed) if parsed.speed else estimate.paper_speeds()
    if parsed.json:
        print(json.dumps(estimate.plain(jobs, speeds, parsed.price), indent=2))
        return 0
    print("\n".join(estimate.lines(parsed.recipes, jobs, speeds, parsed.price)))
    return 0


def _print_made(job: schedule.Job, path: Path) -> None:
    if job.kind == "attack":
        _print_accuracy(path)
    else:
        print(f"{path.stem}: {MADE[job.kind]}  [{path}]", flush=True)


def _print_accuracy(path: Path) -> None:
    from logit_distributions import statistics

    dataset = store.open_dataset(path, "logits")
    natural = statistics.correct(dataset["logits"].values, dataset["label"].values).mean()
    robust = dataset["robust"].values[-1].mean()
    print(
        f"{path.stem}: natural {natural:.2%}, adversarial {robust:.2%} of "
        f"{dataset.sizes['sample']:,} images  [{path}]",
        flush=True,
    )


def _validate(parsed: argparse.Namespace) -> int:
    files: list[Path] = []
    for path in parsed.paths:
        files += store.stored_files(path) if path.is_dir() else [path]
    if not files:
        raise ReproError(f"{parsed.paths[0]}: expected datasets (*.nc), got none")
    bad = 0
    for file in files:
        found = store.validate(file)
        bad += bool(found)
        for fault in found:
            print(f"{file}: {fault}")
    print(f"{len(files)} datasets, {bad} with faults")
    return 1 if bad else 0


def _list(parsed: argparse.Namespace) -> int:
    files = store.stored_files(places.data())
    if not files:
        raise ReproError(f"{places.data()}: no datasets; make some with 'logitdist run table2'")
    for file in files:
        dataset = store.open_dataset(file)
        sizes = ", ".join(f"{dim} {count:,}" for dim, count in dataset.sizes.items())
        name = file.relative_to(places.data()).as_posix()
        print(f"{name:58s} {dataset.attrs['created_at'][:10]}  {sizes}")
    return 0


def _bench(parsed: argparse.Namespace) -> int:
    machine = _machine(parsed)
    from logit_distributions import bench

    width = parsed.width or bench.WIDTH[machine.kind]
    rows = []
    for row in bench.bench(machine, width, bench.QUICK if parsed.quick else bench.Effort()):
        print(f"logitdist: {row.what}: {row.ours} s", file=sys.stderr)
        rows.append(row)
    print("\n".join(bench.table(rows, machine, width)))
    if parsed.json is not None:
        bench.write_json(parsed.json, bench.to_json(rows, machine, width))
    return 0


def _manifolds(parsed: argparse.Namespace) -> int:
    from logit_distributions import capacity

    settings = capacity.Settings(
        parsed.kind, parsed.exemplars, parsed.points, parsed.eps, draws=parsed.draws
    )
    pipeline, options = _options(parsed)
    if parsed.checkpoint is not None:
        return _foreign_manifolds(parsed, settings)
    names = parsed.recipes or recipes.FIGURE5
    wanted = [_wanted(parsed, name) for name in names]
    for seed in parsed.seed:
        for each in wanted:
            path = pipeline.measured(each, seed, options, settings, parsed.threads)
            print(f"{path.stem}: capacities of {settings.kind} manifolds  [{path}]", flush=True)
    return 0


def _foreign_logits(parsed: argparse.Namespace, settings: Evaluation, machine: Machine) -> int:
    from logit_distributions import foreign, images, profile
    from logit_distributions.make import capacity as manifolds

    model = _foreign_model(parsed)
    if parsed.images is None and (parsed.limit or sys.maxsize) <= images.SHEET_IMAGES:
        data = manifolds.stored_images(parsed.dataset)
    else:
        data = images.load(parsed.dataset, "test", parsed.images)
    data = data.take(data.index[: parsed.limit])
    dataset = foreign.logits(parsed.checkpoint, model, data, settings, machine)
    path = parsed.output or Path(f"{parsed.checkpoint.stem}-logits.nc")
    store.write(dataset, path)
    networks = {parsed.checkpoint.stem: dataset, **profile.teachers(parsed.dataset)}
    print("\n".join([*profile.lines(networks), str(path)]))
    return 0


def _foreign_model(parsed: argparse.Namespace) -> str:
    if parsed.model is None:
        raise ReproError("--checkpoint: expected --model MODULE:FUNCTION beside it")
    return str(parsed.model)


def _foreign_manifolds(parsed: argparse.Namespace, settings: Settings) -> int:
    from logit_distributions import foreign
    from logit_distributions.make import capacity as manifolds
    from logit_distributions.read.capacity import network_lines

    model = _foreign_model(parsed)
    given = foreign.given_images(parsed.images) if parsed.images else None
    data = given or manifolds.stored_images("cifar10")
    dataset = foreign.capacities(parsed.checkpoint, model, data, settings, parsed.layers)
    path = parsed.output or Path(f"{parsed.checkpoint.stem}-capacity.nc")
    store.write(dataset, path)
    print("\n".join(network_lines(dataset)))
    print(path)
    return 0


def _show(parsed: argparse.Namespace) -> int:
    dataset = store.open_dataset(parsed.path)
    print(dataset.drop_attrs(deep=False))
    for name, value in dataset.attrs.items():
        print(f"  {name:20s} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
