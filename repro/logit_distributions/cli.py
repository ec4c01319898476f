"""The ``logitdist`` command: parses, calls, prints."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logit_distributions import __version__, jobs, plans, recipes, store
from logit_distributions.errors import ReproError, exit_code, not_installed
from logit_distributions.recipes import Evaluation, Manifolds, Scale
from logit_distributions.store import places

if TYPE_CHECKING:
    from logit_distributions.make.options import Machine, Options

DESCRIPTION = """\
Reproduce 'Understanding the Logit Distributions of Adversarially-Trained Deep Neural
Networks': train, distil, attack, and store logits as labelled datasets.

  logitdist make table2                     everything behind Table 2, from nothing to datasets
  logitdist make at --seed 0 --scale paper  one network, trained and attacked
  logitdist make epochs/st                  one file of each seed
  logitdist list table2                     what of it is stored, what is missing, hours
  logitdist show data/logits/FILE.nc        what a dataset holds and where it came from

Every command skips what is done and resumes what was cut."""

GO_ON = 75
"""Exit code of what is not finished, but goes on if it is called again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 an error, 2 a usage error, 75 go on."""
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        parsed = build_parser().parse_args(given)
        with places.at(parsed.data):
            return int(parsed.handler(parsed))

    return exit_code("logitdist: error", command, "--debug" in given)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data",
        type=_path,
        metavar="DIR",
        help="folder of stored results (default REPRO_DATA, or data/ of the checkout)",
    )
    common.add_argument("--debug", action="store_true", help="show tracebacks")
    parser = argparse.ArgumentParser(
        "logitdist", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_make, _add_list, _add_show, _add_validate, _add_fetch, _add_attack,
                _add_capacity, _add_replay, _add_adopt, _add_bench):  # fmt: skip
        handler = globals()[add.__name__.removeprefix("_add")]
        name = handler.__name__.removeprefix("_")
        command = commands.add_parser(
            name, help=handler.__doc__, description=handler.__doc__, parents=[common]
        )
        command.set_defaults(handler=handler)
        add(command)
    return parser


def _add_make(command: argparse.ArgumentParser) -> None:
    _add_words(command, required=True)
    _add_choice(command)
    _add_running(command)
    command.add_argument("--budget", type=_duration, metavar="TIME",
        help="stop after 90s, 9m or 2h, where the same command goes on (exit code 75)",
    )  # fmt: skip


def _make(parsed: argparse.Namespace) -> int:
    """Make datasets: train, distil, attack, measure, whatever is missing."""
    wanted = _plan(parsed)
    options = _options(parsed)
    from logit_distributions.make.options import OutOfTime
    from logit_distributions.make.run import make

    for number, job in enumerate(wanted):
        try:
            path = make(job, options)
        except OutOfTime as stopped:
            print(f"logitdist: {number} of {len(wanted)} done; {stopped}", file=sys.stderr)
            return GO_ON
        print(f"{job.words}, seed {job.seed}: {_accuracy(path)}[{path}]", flush=True)
    return 0


def _accuracy(path: Path) -> str:
    """Return natural and adversarial accuracy of a dataset of logits in words; else nothing."""
    from logit_distributions.read import distribution

    if path.suffix != ".nc":
        return ""
    dataset = store.open_dataset(path)
    if dataset.attrs["kind"] != "logits":
        return ""
    natural = distribution.is_correct(dataset["logits"].values, dataset["label"].values).mean()
    robust = dataset["robust"].values[-1].mean()
    count = dataset.sizes["sample"]
    return f"natural {natural:.2%}, adversarial {robust:.2%} of {count:,} images  "


def _add_list(command: argparse.ArgumentParser) -> None:
    _add_words(command)
    _add_choice(command)
    command.add_argument("--speed", type=_path, metavar="FILE",
        help="what 'logitdist bench --json FILE' measured, for hours (default: the paper's)",
    )  # fmt: skip
    command.add_argument(
        "--files",
        action="store_true",
        help="print the paths that another machine needs to go on, relative to this folder",
    )


def _list(parsed: argparse.Namespace) -> int:
    """List what is stored; of a plan what is stored, missing, and hours, or files to take along."""
    if not parsed.words:
        return _list_stored()
    wanted = _plan(parsed)
    if parsed.files:
        here = Path.cwd()
        for path in plans.files(wanted):
            absolute = path.absolute()
            print(absolute.relative_to(here) if absolute.is_relative_to(here) else path)
        return 0
    speed = plans.read_speed(parsed.speed) if parsed.speed else plans.paper_speed()
    print("\n".join(plans.lines(parsed.words, wanted, speed)))
    return 0


def _list_stored() -> int:
    files = store.stored_files(places.data())
    if not files:
        raise ReproError(f"{places.data()}: no datasets; make some with 'logitdist make table2'")
    bad = 0
    for file in files:
        name = file.relative_to(places.data()).as_posix()
        try:
            dataset = store.open_dataset(file)
        except ReproError as error:
            print(error)
            bad += 1
            continue
        sizes = ", ".join(f"{dim} {count:,}" for dim, count in dataset.sizes.items())
        print(f"{name:58s} {dataset.attrs['created_at'][:10]}  {sizes}")
    return 1 if bad else 0


def _add_show(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", nargs="+", type=_path, metavar="FILE")


def _show(parsed: argparse.Namespace) -> int:
    """Show what datasets hold, where they came from, and their accuracies or capacities."""
    from logit_distributions.read import capacity, describe

    opened = [store.open_dataset(path) for path in parsed.paths]
    for path, dataset in zip(parsed.paths, opened, strict=True):
        print(f"{path}:" if len(opened) > 1 else "", dataset.drop_attrs(deep=False), sep="\n")
        for name, value in dataset.attrs.items():
            print(f"  {name:20s} {value}")
    logits = [each for each in opened if each.attrs["kind"] == "logits"]
    if logits:
        print(describe.describe(*logits))
    for each in opened:
        if each.attrs["kind"] == "capacity":
            print("\n".join(capacity.network_lines(each)))
    return 0


def _add_validate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "paths",
        nargs="*",
        type=_path,
        metavar="PATH",
        help="files or folders (default: all stored)",
    )


def _validate(parsed: argparse.Namespace) -> int:
    """Name every fault of what is stored: datasets, weights, images, lines of SHA256SUMS."""
    checked: list[tuple[Path, list[str]]] = []
    paths = parsed.paths or [places.data()]
    for path in paths:
        checked += store.validate_folder(path) if path.is_dir() else [(path, store.validate(path))]
    if not checked:
        raise ReproError(f"{paths[0]}: expected stored files such as *.nc, got none")
    for file, faults in checked:
        for fault in faults:
            print(f"{file}: {fault}")
    bad = sum(bool(faults) for _, faults in checked)
    print(f"{len(checked)} files, {bad} with faults")
    return 1 if bad else 0


def _add_fetch(command: argparse.ArgumentParser) -> None:
    _add_dataset(command)
    _add_images(command)


def _fetch(parsed: argparse.Namespace) -> int:
    """Get the images, check them by content; keep some for the figures."""
    from logit_distributions import images

    for part in ("train", "validation", "test"):
        data = images.load(parsed.dataset, part, parsed.images)
        print(f"{parsed.dataset} {part}: {len(data):,} images, content verified")
    images.keep_sheet(data, parsed.dataset)
    return 0


def _add_attack(command: argparse.ArgumentParser) -> None:
    _add_network(command)
    command.add_argument(
        "--engine",
        default=Evaluation.engine,
        choices=tuple(recipes.ENGINES),
        help="repro: APGD-CE then APGD-DLR (default); autoattack: the same two of the official "
        "implementation; autoattack-full: its whole suite; autoattack-square: Square alone; odi: "
        "PGD with diversified starts",
    )
    command.add_argument("--eps", type=_length, help="Linf radius (default the recipe's, 8/255)")
    command.add_argument("--iterations", type=int, help="of APGD (default 100)")
    command.add_argument("--restarts", type=int, help="random restarts (default 1)")
    command.add_argument("--limit", type=_count, metavar="N", help="only the first N test images")


def _attack(parsed: argparse.Namespace) -> int:
    """Attack a network of yours, or one of ours with other settings, and store its logits."""
    wanted = _network(parsed)
    settings = _evaluation(parsed, wanted)
    name = parsed.checkpoint.stem if wanted is None else wanted.run
    output = _output(parsed.output or Path(f"{name}-{parsed.engine}.nc"))
    options = _options(parsed)
    from logit_distributions import images
    from logit_distributions.make import logits
    from logit_distributions.read import describe

    data = images.first_test(parsed.dataset, parsed.limit, parsed.images)
    digest = hashlib.sha256(str(output.absolute()).encode()).hexdigest()
    partial = places.cache() / "attacks" / f"to-{digest[:16]}.npz"
    if wanted is None:
        dataset = logits.of_yours(parsed.checkpoint, parsed.model, data, settings, options, partial)
    else:
        checkpoint = _made_checkpoint(wanted, options)
        model = checkpoint.model(len(data.classes))
        key = (name, checkpoint.weights_sha256)
        dataset = logits.attack(model, data, settings, options, key, partial)
        dataset = dataset.assign_attrs(checkpoint.attributes("logits", data))
    store.save(dataset, output)
    partial.unlink(missing_ok=True)
    networks = {name: dataset, **describe.teachers(parsed.dataset)}
    print("\n".join([*describe.lines(networks), str(output)]))
    return 0


FIXED = {
    "autoattack-full": ("iterations", "restarts"),
    "autoattack-square": ("iterations", "restarts"),
    "odi": ("iterations",),
}
"""Settings that an engine does not let anybody choose."""


def _evaluation(parsed: argparse.Namespace, wanted: jobs.Job | None) -> Evaluation:
    for name in FIXED.get(parsed.engine, ()):
        if getattr(parsed, name) is not None:
            raise ReproError(f"--{name}: does not apply to the engine {parsed.engine}")
    given = {
        name: getattr(parsed, name)
        for name in ("engine", "eps", "iterations", "restarts")
        if getattr(parsed, name) is not None
    }
    return Evaluation(**{"eps": wanted.recipe.eps if wanted else Evaluation.eps} | given)


def _add_capacity(command: argparse.ArgumentParser) -> None:
    _add_network(command)
    command.add_argument(
        "--kind", default="adversarial", choices=("adversarial", "random", "class"),
        help="ends of PGD from random starts (default), random points in the ball, clean classes",
    )  # fmt: skip
    command.add_argument("--exemplars", type=_count, metavar="P", help="default 50")
    command.add_argument("--points", type=_count, default=50, metavar="M", help="default 50")
    command.add_argument("--draws", type=_count, default=60, help="of simulations (default 60)")
    command.add_argument("--eps", type=_length, help="Linf radius (default 8/255)")
    command.add_argument("--layers", nargs="+", metavar="NAME", help="names of modules")
    command.set_defaults(dataset=None)


def _capacity(parsed: argparse.Namespace) -> int:
    """Measure the capacity of manifolds, layer by layer, of a network of yours or of ours."""
    if parsed.images and parsed.dataset and parsed.recipe is None:
        raise ReproError("--dataset: does not apply beside --images, which are yours")
    parsed.dataset = parsed.dataset or "cifar10"
    wanted = _network(parsed)
    settings = _manifolds(parsed)
    name = parsed.checkpoint.stem if wanted is None else wanted.run
    output = _output(parsed.output or Path(f"{name}-capacity.nc"))
    options = _options(parsed)
    from logit_distributions import images
    from logit_distributions.make import capacity
    from logit_distributions.read.capacity import network_lines

    if parsed.images:
        data = images.of_yours(parsed.images)
    else:
        data = images.first_test(parsed.dataset, images.SHEET_IMAGES)
    if wanted is None:
        weights, model = parsed.checkpoint, parsed.model
        dataset = capacity.of_yours(weights, model, data, settings, parsed.layers, options, output)
    else:
        checkpoint = _made_checkpoint(wanted, options)
        dataset = capacity.written(
            checkpoint.model(len(images.spec_of(parsed.dataset).classes)), data, settings, name,
            options, parsed.layers, checkpoint.attributes("capacity", data), output,
        )  # fmt: skip
    print("\n".join([*network_lines(dataset), str(output)]))
    return 0


def _manifolds(parsed: argparse.Namespace) -> Manifolds:
    if parsed.kind == "class":
        for name in ("exemplars", "eps"):
            if getattr(parsed, name) is not None:
                raise ReproError(f"--{name}: does not apply to manifolds of kind class")
    eps = Manifolds.eps if parsed.eps is None else parsed.eps
    if not 0 < eps <= 1:
        raise ReproError(f"--eps: expected a length in (0, 1], got {eps}; 8/255 is usual")
    exemplars = parsed.exemplars or Manifolds.exemplars
    return Manifolds(parsed.kind, exemplars, parsed.points, eps, draws=parsed.draws)


def _add_replay(command: argparse.ArgumentParser) -> None:
    command.add_argument("paths", nargs="*", type=_path, metavar="FILE",
        help="datasets with adversarial images (default: all stored ones)",
    )  # fmt: skip
    _add_yours(command)


def _replay(parsed: argparse.Namespace) -> int:
    """Judge stored adversarial images again: in the ball, in the box, misclassified as stored."""
    stored = store.stored_files(places.data() / plans.ADVERSARIAL)
    if (parsed.checkpoint is None) != (parsed.model is None):
        raise ReproError("expected --checkpoint and --model, or neither")
    if not (paths := parsed.paths or stored):
        raise ReproError(
            f"{places.data() / plans.ADVERSARIAL}: no adversarial images; make some with "
            f"'logitdist make {plans.ADVERSARIAL}'"
        )
    try:
        from logit_distributions.make.checkpoint import of_dataset
        from logit_distributions.make.logits import replay
        from logit_distributions.make.network import load
    except ImportError as error:
        raise not_installed(error) from error
    disagreeing = 0
    for path in paths:
        dataset = store.open_dataset(path)
        model = load(parsed.checkpoint, parsed.model) if parsed.model else of_dataset(dataset)
        judged = replay(dataset, model)
        words = {str(name).replace("_", " "): int(each.sum()) for name, each in judged.items()}
        counts = ", ".join(f"{name} {count}" for name, count in words.items())
        print(f"{dataset.attrs['run']}: of {judged.sizes['sample']} images {counts}")
        disagreeing += words["agrees"] < judged.sizes["sample"]
    return int(disagreeing > 0)


def _add_adopt(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="letters, digits and underscores")
    _add_dataset(command)
    _add_yours(command)
    command.add_argument("--targets", type=_path, metavar="FILE",
        help="instead of a network: netCDF with logits (sample, class) for each training image",
    )  # fmt: skip
    _add_images(command)


def _adopt(parsed: argparse.Namespace) -> int:
    """Let a network of yours stand for at, at scales such as small+given-NAME; or targets."""
    given = (parsed.checkpoint is not None, parsed.model is not None)
    if given != ((True, True) if parsed.targets is None else (False, False)):
        raise ReproError("expected --checkpoint and --model, or --targets alone")
    try:
        from logit_distributions.make.checkpoint import adopt
        from logit_distributions.make.distill import adopt_targets
    except ImportError as error:
        raise not_installed(error) from error
    if parsed.targets is not None:
        student, path = adopt_targets(parsed.name, parsed.targets, parsed.dataset, parsed.images)
        print(f"{path}: targets of the student {student}, for instance in")
        print(f"logitdist make {student} --data RESULTS")
        return 0
    path = adopt(parsed.name, parsed.checkpoint, parsed.model, parsed.dataset)
    print(f"{path}: stands for at, for instance in")
    print(f"logitdist make table2 --scale small+{recipes.GIVEN}{parsed.name} --data RESULTS")
    return 0


def _add_bench(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--width", type=_count, help="of the network (default 64 on a GPU, else 8)"
    )
    _add_machine(command)
    command.add_argument("--quick", action="store_true", help="time few steps")
    command.add_argument("--json", type=_path, metavar="FILE", help="write the numbers, too")


def _bench(parsed: argparse.Namespace) -> int:
    """Time training and attacks here, beside a plain loop and the limits."""
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


# What several commands take


def _add_words(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument(
        "words",
        nargs="+" if required else "*",
        metavar="WORD",
        help=f"{', '.join(plans.PLANS)}; or a recipe ({', '.join(recipes.NAMES)}); or one file "
        "of it, such as epochs/at, capacity/class/st, logits/odi/at, train/at@40",
    )


def _plan(parsed: argparse.Namespace) -> list[jobs.Job]:
    scale = parsed.scale or plans.default_scale(parsed.words)
    return plans.plan(parsed.words, scale, parsed.dataset, parsed.seed)


def _add_network(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "recipe",
        nargs="?",
        choices=recipes.NAMES,
        metavar="RECIPE",
        help="one of ours, with its first seed; or a network of yours, by the next two:",
    )
    _add_yours(command)
    command.add_argument("--output", type=_path, metavar="FILE", help="where the dataset goes")
    _add_choice(command)
    _add_running(command)
    command.set_defaults(**dict.fromkeys(OF_RECIPES))


OF_RECIPES = ("scale", "seed", "precision", "save_every")
"""Options that say nothing of a network of yours."""


def _add_yours(command: argparse.ArgumentParser) -> None:
    command.add_argument("--checkpoint", type=_path, metavar="FILE", help="weights of your own")
    command.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="makes your own network; the code that it names is run",
    )


def _network(parsed: argparse.Namespace) -> jobs.Job | None:
    """Return the job whose checkpoint is meant, or None of a network of yours."""
    if (parsed.recipe is None) == (parsed.checkpoint is None):
        raise ReproError("expected a recipe, or --checkpoint with a network of your own")
    from logit_distributions.images import spec_of

    spec_of(parsed.dataset)
    if parsed.recipe is None and parsed.model is None:
        raise ReproError("--checkpoint: expected --model MODULE:FUNCTION beside it")
    if parsed.recipe is not None and parsed.model is not None:
        raise ReproError("--model: does not apply to a recipe")
    for name in OF_RECIPES if parsed.recipe is None else ():
        if getattr(parsed, name) is not None:
            raise ReproError(f"--{name.replace('_', '-')}: does not apply to --checkpoint")
    parsed.precision = parsed.precision or "auto"
    parsed.save_every = 60.0 if parsed.save_every is None else parsed.save_every
    if parsed.recipe is None:
        return None
    seeds = parsed.seed or recipes.SEEDS[:1]
    if len(seeds) > 1:
        raise ReproError(f"--seed: expected one, got {' '.join(map(str, seeds))}")
    wanted = recipes.recipe(parsed.recipe, parsed.scale or "small", parsed.dataset)
    return jobs.Job("checkpoint", wanted, seeds[0])


def _output(path: Path) -> Path:
    """Return a path that a dataset can be written to, or refuse it before anything is made."""
    if path.is_dir():
        raise ReproError(f"--output {path}: expected a file, got a folder")
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ReproError(f"--output {path}: cannot be written, as {folder} is no writable folder")
    return path


def _made_checkpoint(job: jobs.Job, options: Options):  # type: ignore[no-untyped-def]
    from logit_distributions.make.checkpoint import Checkpoint
    from logit_distributions.make.run import make

    make(job, options)
    return Checkpoint.of(job)


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", default="cifar10", help="data set (default cifar10)")


def _add_choice(command: argparse.ArgumentParser) -> None:
    """Add what says which runs are meant, beside words."""
    _add_dataset(command)
    command.add_argument(
        "--scale",
        type=_scale,
        metavar="SCALE",
        help=f"{', '.join(recipes.SCALES)}, or a variation such as small+resnet34+eps4 or "
        "small+given-NAME (default small; paper for the plan paper)",
    )
    command.add_argument(
        "--seed", type=_seed, nargs="+", default=list(recipes.SEEDS), help="default 0 1 2"
    )


def _add_images(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--images",
        type=_path,
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


def _add_running(command: argparse.ArgumentParser) -> None:
    _add_images(command)
    _add_machine(command)
    command.add_argument(
        "--save-every",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds between rolling checkpoints (default 60)",
    )


def _machine(parsed: argparse.Namespace) -> Machine:
    """Return the machine that was asked for; before this, torch is not imported."""
    try:
        import torch

        from logit_distributions.make.options import Machine
    except ImportError as error:
        raise not_installed(error) from error
    if parsed.threads is not None:
        torch.set_num_threads(parsed.threads)
    return Machine(parsed.device, parsed.precision).resolve()


def _options(parsed: argparse.Namespace) -> Options:
    machine = _machine(parsed)
    from logit_distributions.make.options import Budget, Options

    budget = Budget(getattr(parsed, "budget", None))
    return Options(machine, parsed.images, parsed.save_every, budget, parsed.threads)


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


def _path(text: str) -> Path:
    if not text:  # Path("") would be the current folder
        raise argparse.ArgumentTypeError("expected a path, got an empty string")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _scale(text: str) -> Scale:
    try:
        return Scale.parse(text)
    except ReproError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
