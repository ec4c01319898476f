"""The ``repro`` command: parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repro import paths, recipes, store
from repro.errors import ReproError, not_installed
from repro.theory_command import add_theory_command

if TYPE_CHECKING:
    from repro.capacity import Settings

DESCRIPTION = """\
Reproduce 'Understanding the Logit Distributions of Adversarially-Trained Deep Neural
Networks': train, distil, attack, and store logits as labelled datasets.

  repro run table2                  everything behind Table 2, from nothing to datasets
  repro run at --seed 0 --scale paper
  repro list                        what is stored
  repro claims                      what becomes of the paper's claims
  repro show data/logits/FILE.nc    what a dataset holds and where it came from

Every command skips what is done and resumes what was cut."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 an error, 2 a usage error."""
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
        print(f"repro: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if parsed.debug:
            raise
        print(f"repro: error: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("repro: stopped; the same command resumes", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help=f"folder of stored results (default {paths.data()}, or REPRO_DATA)",
    )
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = argparse.ArgumentParser(
        "repro", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
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
    fetch.add_argument("--dataset", default="cifar10", help="data set (default cifar10)")
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
        "recipe", choices=recipes.NAMES, metavar="RECIPE", help="as for train and distill"
    )
    _add_running(attack)
    attack.add_argument(
        "--engine",
        default="repro",
        metavar="NAME",
        help="repro: APGD-CE then APGD-DLR (default); autoattack: the same two of the official "
        "implementation; autoattack-full: its whole suite; odi: PGD with diversified starts",
    )
    attack.add_argument("--eps", type=_length, default=8 / 255, help="Linf radius (default 8/255)")
    attack.add_argument("--iterations", type=int, default=100, help="of APGD (default 100)")
    attack.add_argument("--restarts", type=int, default=1, help="random restarts (default 1)")
    attack.add_argument("--limit", type=_count, metavar="N", help="only the first N test images")

    run = add("run", "Make datasets: train, distil, attack, whatever is missing.", _run)
    run.add_argument(
        "recipes",
        nargs="+",
        metavar="RECIPE",
        help=f"{', '.join(recipes.PLANS)}, or any of {', '.join(recipes.NAMES)}",
    )
    run.add_argument("--dataset", default="cifar10", help="data set (default cifar10)")
    _add_running(run, seeds=True)

    validate = add("validate", "Name every fault of stored datasets.", _validate)
    validate.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or folders")

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
    manifolds.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of your own")
    manifolds.add_argument("--model", metavar="MODULE:FUNCTION", help="makes your own network")
    manifolds.add_argument("--layers", nargs="+", metavar="NAME", help="of your own network")
    manifolds.add_argument("--output", type=Path, metavar="FILE", help="for your own network")

    audit = add("audit", "Hold mean-field theory against simulation and conic geometry.", _audit)
    audit.add_argument(
        "--recompute", action="store_true", help="measure a layer of a stored network again first"
    )

    claims = add("claims", "Judge every claim of the paper by the stored datasets.", _claims)
    claims.add_argument("ids", nargs="*", metavar="ID", help="only these claims (default all)")
    claims.add_argument("--details", action="store_true", help="quotation, measure, rule, seeds")
    claims.add_argument("--json", action="store_true", help="print JSON, with all details")

    add_theory_command(commands, parents=[common])

    show = add("show", "Show what a dataset holds and where it came from.", _show)
    show.add_argument("path", type=Path, metavar="PATH")
    return parser


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="local copy of the data set: original batches, their tarball, or PNG sheets",
    )


def _add_running(command: argparse.ArgumentParser, seeds: bool = False) -> None:
    _add_images(command)
    command.add_argument("--scale", default="small", choices=tuple(recipes.SCALES))
    if seeds:
        command.add_argument(
            "--seed", type=_seed, nargs="+", default=list(recipes.SEEDS), help="default 0 1 2"
        )
    else:
        command.add_argument("--seed", type=_seed, default=0, help="default 0")
    command.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 (default auto)")
    command.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16"),
        help="of training; logits are always recorded in float32",
    )
    command.add_argument("--threads", type=_count, metavar="N", help="CPU threads")
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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


def _options(parsed: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Return the pipeline module and its options; only here is torch imported."""
    try:
        import torch

        from repro import pipeline
        from repro.training import Machine
    except ImportError as error:
        raise not_installed(error) from error
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    machine = Machine(parsed.device, parsed.precision).resolve()
    return pipeline, pipeline.Options(machine, parsed.images, parsed.save_every)


def _fetch(parsed: argparse.Namespace) -> int:
    from repro import images

    for part in ("train", "validation", "test"):
        found = images.load(parsed.dataset, part, parsed.images)
        print(f"{parsed.dataset} {part}: {len(found):,} images, content verified")
    sheet = images.stored_sheet(parsed.dataset)
    if not sheet.exists():
        with store.registering(sheet):
            images.write_sheet(found.images[: images.SHEET_IMAGES], sheet)
    return 0


def _train(parsed: argparse.Namespace) -> int:
    wanted = recipes.recipe(parsed.recipe, parsed.scale)
    pipeline, options = _options(parsed)
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
    wanted = recipes.recipe(parsed.recipe, parsed.scale)
    pipeline, options = _options(parsed)
    from repro.attack import Evaluation

    settings = Evaluation(parsed.engine, parsed.eps, parsed.iterations, parsed.restarts)
    _print_accuracy(pipeline.recorded(wanted, parsed.seed, options, settings, parsed.limit))
    return 0


def _run(parsed: argparse.Namespace) -> int:
    names = [n for wanted in parsed.recipes for n in recipes.plan(wanted, parsed.scale)]
    wanted = [recipes.recipe(name, parsed.scale, parsed.dataset) for name in dict.fromkeys(names)]
    by_epoch = recipes.TEACHERS if set(parsed.recipes) & set(recipes.BY_EPOCH) else ()
    pipeline, options = _options(parsed)
    jobs = [(each, seed) for seed in parsed.seed for each in wanted]
    for each, seed in sorted(jobs, key=lambda job: recipes.is_sweep(job[0])):
        _print_accuracy(pipeline.recorded(each, seed, options))
        if each.name in by_epoch:
            path = pipeline.recorded_by_epoch(each, seed, options)
            print(f"{path.stem}: logits by epoch  [{path}]", flush=True)
    return 0


def _print_accuracy(path: Path) -> None:
    from repro import statistics

    dataset = store.open_dataset(path, "logits")
    natural = statistics.correct(dataset["logits"].values, dataset["label"].values).mean()
    robust = dataset["robust"].values[-1].mean()
    print(
        f"{path.stem}: natural {natural:.2%}, adversarial {robust:.2%} of "
        f"{dataset.sizes['sample']:,} images  [{path}]",
        flush=True,
    )


def _validate(parsed: argparse.Namespace) -> int:
    files = []
    for path in parsed.paths:
        files += sorted(path.rglob("*.nc")) if path.is_dir() else [path]
    if not files:
        raise ReproError(f"{parsed.paths[0]}: expected datasets (*.nc), found none")
    bad = 0
    for file in files:
        found = store.validate(file)
        bad += bool(found)
        for fault in found:
            print(f"{file}: {fault}")
    print(f"{len(files)} datasets, {bad} with faults")
    return 1 if bad else 0


def _list(parsed: argparse.Namespace) -> int:
    files = sorted(paths.data().rglob("*.nc"))
    if not files:
        raise ReproError(f"{paths.data()}: no datasets; make some with 'repro run table2'")
    for file in files:
        dataset = store.open_dataset(file)
        sizes = ", ".join(f"{dim} {count:,}" for dim, count in dataset.sizes.items())
        name = file.relative_to(paths.data()).as_posix()
        print(f"{name:58s} {dataset.attrs['created_at'][:10]}  {sizes}")
    return 0


def _manifolds(parsed: argparse.Namespace) -> int:
    from repro import capacity

    settings = capacity.Settings(
        parsed.kind, parsed.exemplars, parsed.points, parsed.eps, draws=parsed.draws
    )
    pipeline, options = _options(parsed)
    if parsed.checkpoint is not None:
        return _foreign_manifolds(parsed, settings)
    wanted = [recipes.recipe(name, parsed.scale) for name in parsed.recipes or capacity.NETWORKS]
    for seed in parsed.seed:
        for each in wanted:
            path = pipeline.measured(each, seed, options, settings, parsed.threads)
            print(f"{path.stem}: capacities of {settings.kind} manifolds  [{path}]", flush=True)
    return 0


def _foreign_manifolds(parsed: argparse.Namespace, settings: Settings) -> int:
    from repro import audit, manifolds

    if parsed.model is None:
        raise ReproError("--checkpoint: expected --model MODULE:FUNCTION beside it")
    given = manifolds.given_images(parsed.images) if parsed.images else None
    dataset = manifolds.foreign(
        parsed.checkpoint, parsed.model, given or manifolds.stored_images("cifar10"), settings,
        parsed.layers,
    )  # fmt: skip
    path = parsed.output or Path(f"{parsed.checkpoint.stem}-capacity.nc")
    store.write(dataset, path)
    print("\n".join(audit.network_lines(dataset)))
    print(path)
    return 0


def _audit(parsed: argparse.Namespace) -> int:
    from repro import audit

    agrees = True
    if parsed.recompute:
        try:
            agrees = audit.recompute()
        except ImportError as error:
            raise not_installed(error) from error
    for line in audit.lines():
        print(line, flush=True)
    return 0 if agrees else 1


def _claims(parsed: argparse.Namespace) -> int:
    from repro import claims

    found = claims.verdicts(parsed.ids)
    if parsed.json:
        print(json.dumps([claims.plain(each) for each in found], indent=2, ensure_ascii=False))
        return 0
    width = shutil.get_terminal_size((0, 0)).columns  # 0: no terminal, lines of any length
    print("\n".join(claims.lines(found, parsed.details, width)))
    return 0


def _show(parsed: argparse.Namespace) -> int:
    dataset = store.open_dataset(parsed.path)
    print(dataset.drop_attrs(deep=False))
    for name, value in dataset.attrs.items():
        print(f"  {name:20s} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
