"""The stored datasets: one run, one netCDF file; how they are written, opened and looked up."""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import xarray as xr

from logit_distributions import recipes
from logit_distributions.errors import ReproError, brief
from logit_distributions.store import files, places
from logit_distributions.store.schema import KINDS, SCHEMA, content_sha256, faults

COMPRESSED = 1 << 12
"""Bytes from which a variable is compressed; chunks of a smaller one would take more room.

A stored result of smaller ones alone is written in the classic format, as the other takes some
10 KB more for a file and 1 KB for a variable. Other files keep the other's checksums: a stored one
has its hash in the registry.
"""

CLASSIC_INTEGERS = ("int8", "int16", "int32")
"""What the classic format has; it would narrow others."""


def save(made: xr.Dataset | Saves, path: Path) -> None:
    """Write what a stage made, whole or not at all; enter it in the registry if it is published."""
    if places.name_in_data(path) is None:
        _write(made, path)
        return
    with files.registering(path):
        _write(made, path)


class Saves(Protocol):
    """A checkpoint, which brings torch and is not known here."""

    def save(self, path: Path) -> None:
        """Write to `path`, whole or not at all."""


def _write(made: xr.Dataset | Saves, path: Path) -> None:
    if isinstance(made, xr.Dataset):
        write(made, path)
    else:
        made.save(path)


def enter(path: Path) -> None:
    """Enter a stored file in the registry, unless it is there, or lies elsewhere."""
    if places.name_in_data(path) is not None and files.registry(path) is None:
        with files.registering(path):
            pass


def write(dataset: xr.Dataset, path: Path | str) -> None:
    """Seal, check and write a dataset, whole or not at all.

    Adds the schema version and the content hash; refuses what `faults` would.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from logit_distributions import from_arrays, open_dataset, write
    >>> mine = from_arrays([[2.0, 0.5], [0.1, 0.3]], [0, 1], name="mine")
    >>> with TemporaryDirectory() as folder:
    ...     write(mine, Path(folder) / "mine.nc")
    ...     open_dataset(Path(folder) / "mine.nc").attrs["run"]
    'mine'
    """
    path, kind = Path(path), dataset.attrs.get("kind")
    dataset = dataset.copy()
    for name, variable in KINDS.get(str(kind), {}).items():
        if name in dataset:
            dataset[name].attrs.setdefault("long_name", variable.long_name)
    dataset.attrs["schema"] = SCHEMA
    dataset.attrs["content_sha256"] = content_sha256(dataset)
    problems = list(faults(dataset))
    if problems:
        raise ReproError(f"{path}: refusing to write an invalid dataset: {'; '.join(problems)}")
    write_file(dataset, path)


def write_file(dataset: xr.Dataset, path: Path) -> None:
    """Write any dataset, whole or not at all."""
    with files.atomic(path) as temporary:
        encoding = {
            name: {"zlib": True, "complevel": 9, "shuffle": not str(name).endswith("images")}
            for name, variable in dataset.variables.items()
            if variable.dtype.kind in "fiub" and variable.nbytes >= COMPRESSED
        }
        fits = all(
            variable.dtype.kind in "fbU" or variable.dtype in CLASSIC_INTEGERS
            for variable in dataset.variables.values()
        )
        is_classic = fits and not encoding and places.name_in_data(path) is not None
        form: Any = "NETCDF3_64BIT" if is_classic else "NETCDF4"
        dataset.to_netcdf(temporary, engine="netcdf4", format=form, encoding=encoding)


def read_file(path: Path) -> xr.Dataset:
    """Read what `write_file` wrote, into memory, unchecked."""
    with xr.open_dataset(path, engine="netcdf4") as file:
        dataset = file.load()
    texts = {name: each for name, each in dataset.variables.items() if each.dtype.kind == "O"}
    return dataset.assign({name: each.astype(str) for name, each in texts.items()})


def open_dataset(path: Path | str, kind: str | None = None) -> xr.Dataset:
    """Read a dataset into memory and refuse it if anything is wrong.

    Raises
    ------
    ReproError
        With the first fault, and how many more there are.

    Examples
    --------
    >>> from logit_distributions import open_dataset
    >>> at = open_dataset("data/logits/cifar10-small-at-seed0.nc")
    >>> at.sizes["sample"]
    10000
    """
    path = Path(path)
    problems, dataset = _examined(path)
    if problems or dataset is None:
        more = f" (and {len(problems) - 1} more faults)" if len(problems) > 1 else ""
        raise ReproError(f"{path}: {problems[0]}{more}")
    if kind is not None and dataset.attrs["kind"] != kind:
        raise ReproError(f"{path}: expected a dataset of {kind}, got {dataset.attrs['kind']}")
    return dataset


def validate(path: Path) -> list[str]:
    """Return every fault of a stored file, in one line each; an empty list if there is none.

    A file that the registry knows by another hash is not even opened.
    """
    if path.suffix == ".nc" or not path.is_file():
        return _examined(path)[0]
    try:
        if fault := files.replaced(path):
            return [fault]
        return list(_checkpoint_faults(path)) if path.suffix == ".safetensors" else []
    except ReproError as error:
        return [str(error)]


def validate_folder(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every file in and below a folder, each with its faults.

    In the data folder these are too: a line of the registry without its file, and a file without
    a line. Another folder that looks like one, with a registry or folders named for what they
    hold, is taken for one. What is hidden is left out, and pages about the data.
    """
    if places.name_in_data(folder) is None and _is_of_data(folder):
        with places.at(folder):
            yield from validate_folder(folder)
        return
    paths = [path for path in _below(folder) if path.name not in (files.REGISTRY, "README.md")]
    try:
        listed = None if places.name_in_data(folder) is None else files.registered()
    except ReproError as error:
        yield places.data() / files.REGISTRY, [str(error).partition(": ")[2]]
        listed = None
    for path in paths:
        faults = validate(path)
        if listed is not None and not faults and places.name_in_data(path) not in listed:
            faults = [
                f"no line in {files.REGISTRY}; the next 'logitdist make' that wants it adds it"
            ]
        yield path, faults
    for name in sorted(listed or ()):
        path = places.data() / name
        if path.is_relative_to(folder) and not path.is_file():
            yield path, [f"listed in {files.REGISTRY}, but not there; likely deleted or renamed"]


def _is_of_data(folder: Path) -> bool:
    return any((folder / name).exists() for name in (files.REGISTRY, *KINDS))


def _below(folder: Path) -> list[Path]:
    """Return the files in and below a folder that are not hidden, sorted; links are followed."""
    paths, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(here.resolve())
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [here / name for name in names if not name.startswith(".")]
    return sorted(paths)


def _examined(path: Path) -> tuple[list[str], xr.Dataset | None]:
    """Return the faults of a file, and what was read if it could be."""
    if not path.is_file():
        return ["no such file"], None
    try:
        if fault := files.replaced(path):
            return [fault], None
    except ReproError as error:
        return [str(error)], None
    try:
        dataset = read_file(path)
        return [*faults(dataset), *_misplaced(path, dataset)], dataset
    except Exception as error:
        fault = f"cannot be read as a dataset ({brief(error)}); likely truncated or damaged"
        return [fault], None


def _misplaced(path: Path, dataset: xr.Dataset) -> Iterator[str]:
    """Yield what a file in the data folder is not, though its place and name say so."""
    name = places.name_in_data(path)
    if name is None:
        return
    folder, stage = Path(name).parent.as_posix(), _stage_of(dataset)
    if stage != folder:
        yield f"expected a dataset of {folder}, as its folder says, got {stage}; likely misplaced"
    yield from _misnamed(path, str(dataset.attrs.get("run")), dataset.attrs.get("seed"))


def _misnamed(path: Path, run: str, seed: Any) -> Iterator[str]:
    if run != path.stem:
        yield f"expected the run {path.stem}, as its name says, got {run}; likely copied or renamed"
    elif (match := re.search(r"-seed(\d+)$", run)) and match[1] != str(seed):
        yield f"expected seed {match[1]}, as its name says, got {seed}; likely tampered with"


def _stage_of(dataset: xr.Dataset) -> str:
    """Return the stage that a dataset is of by what it holds, such as ``logits/odi``."""
    kind = str(dataset.attrs.get("kind"))
    if kind == "logits":
        engine = json.loads(dataset.attrs.get("evaluation", "{}")).get("engine", "")
        return f"{kind}/{engine}" if engine not in ("", recipes.Evaluation.engine) else kind
    if kind == "capacity":
        for stage, settings in recipes.CAPACITY_STAGES.items():
            here = {name: dataset.attrs.get(f"manifold_{name}") for name in settings}
            if settings and here == settings:
                return stage
    return kind


def _checkpoint_faults(path: Path) -> Iterator[str]:
    """Yield what is wrong with the weights in a file, read without torch.

    A file of safetensors is eight bytes of length, a JSON header, and the bytes of the tensors.
    """
    try:
        content = path.read_bytes()
        begin = 8 + int.from_bytes(content[:8], "little")
        tensors = json.loads(content[8:begin])
        about = tensors.pop("__metadata__")
        digest = hashlib.sha256(about["checkpoint"].encode())
        for name in sorted(tensors):
            first, last = (begin + offset for offset in tensors[name]["data_offsets"])
            digest.update(name.encode() + content[first:last])
        plain = json.loads(about["checkpoint"])
        run = recipes.parse(plain["recipe"]).run(plain["seed"])
    except Exception as error:
        yield f"cannot be read as a checkpoint ({brief(error)}); likely truncated or damaged"
        return
    if digest.hexdigest() != about["sha256"]:
        yield "content does not match its own SHA-256; likely changed after it was written"
    if (name := places.name_in_data(path)) is not None:
        folder = Path(name).parent.as_posix()
        if folder != "checkpoints":
            yield f"expected no weights in {folder}, got some; likely misplaced"
        yield from _misnamed(path, run, plain["seed"])


def stored_files(folder: Path) -> list[Path]:
    """Return the datasets in a folder and below it, sorted; links are followed."""
    return [path for path in _below(folder) if path.suffix == ".nc"]


class Missing(ReproError):
    """A stored file that is needed, but not there; the message says which command makes it."""

    def __init__(self, path: Path, command: str) -> None:
        super().__init__(f"{places.brief(path)} is missing; make it with '{command}'")


def find(
    stage: str, name: str = "*", dataset: str = "cifar10", scale: str = "*"
) -> list[xr.Dataset]:
    """Return the stored datasets of a stage, by recipe, then by seed.

    Each file is opened and checked once, as long as it does not change.

    Parameters
    ----------
    stage : str
        A folder of the data, such as ``logits`` or ``capacity/random``.
    name, dataset, scale : str
        Of the recipe; ``*`` for any, ``fix-*`` for what begins so.

    Examples
    --------
    >>> from logit_distributions import find
    >>> at, *others = find("logits", "at", scale="small")
    >>> at.attrs["run"]
    'cifar10-small-at-seed0'
    """
    datasets = []
    for path in (places.data() / stage).glob(f"{dataset}-{scale}-{name}-seed*.nc"):
        if re.search(r"-seed\d+$", path.stem):  # not a copy such as "…-seed0 (1).nc"
            status = path.stat()
            opened = _opened(path.absolute(), stage, (status.st_size, status.st_mtime_ns))
            if fnmatch.fnmatchcase(recipe_of(opened)["name"], name):
                datasets.append(opened)
    return sorted(datasets, key=lambda each: (each.attrs["recipe"], int(each.attrs["seed"])))


def need(stage: str, name: str, dataset: str = "cifar10", scale: str = "*") -> list[xr.Dataset]:
    """Return the stored datasets of a recipe, by seed.

    Raises
    ------
    Missing
        If there is none, with the file of seed 0 and the command that makes it.
    """
    datasets = find(stage, name, dataset, scale)
    if not datasets:
        path = places.path_of(stage, f"{dataset}-{scale}-{name}-seed0")
        raise Missing(path, recipes.command(stage, name, scale, dataset))
    return datasets


@functools.cache
def _opened(path: Path, stage: str, stamp: tuple[int, int]) -> xr.Dataset:
    return open_dataset(path, stage.partition("/")[0])


def recipe_of(dataset: xr.Dataset) -> Mapping[str, Any]:
    """Return the recipe that a dataset was made with, as plain data."""
    recipe: Mapping[str, Any] = json.loads(dataset.attrs["recipe"])
    return recipe
