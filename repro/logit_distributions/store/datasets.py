"""The stored datasets: one run, one netCDF file; how they are written, opened and looked up."""

from __future__ import annotations

import functools
import json
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
"""Bytes from which a variable is compressed; chunks of a smaller one would take more room."""


def save(made: xr.Dataset | Saves, path: Path) -> None:
    """Write what a stage made, whole or not at all; enter it in the registry if it is published."""
    if not path.absolute().is_relative_to(places.data().absolute()):
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
    inside = path.absolute().is_relative_to(places.data().absolute())
    if inside and files.registry(path) is None:
        with files.registering(path):
            pass


def write(dataset: xr.Dataset, path: Path | str) -> None:
    """Seal, check and write a dataset, whole or not at all.

    Adds the schema version and the content hash; refuses what `faults` would.
    """
    path, kind = Path(path), dataset.attrs.get("kind")
    dataset = dataset.copy()
    for name, variable in KINDS.get(str(kind), {}).items():
        if name in dataset:
            dataset[name].attrs.setdefault("long_name", variable.long_name)
    dataset.attrs["schema"] = SCHEMA
    dataset.attrs["content_sha256"] = content_sha256(dataset)
    found = list(faults(dataset))
    if found:
        raise ReproError(f"{path}: refusing to write an invalid dataset: {'; '.join(found)}")
    write_file(dataset, path)


def write_file(dataset: xr.Dataset, path: Path) -> None:
    """Write any dataset, whole or not at all."""
    with files.atomic(path) as temporary:
        encoding = {
            name: {"zlib": True, "complevel": 9, "shuffle": True}
            for name, variable in dataset.variables.items()
            if variable.dtype.kind in "fiub" and variable.nbytes >= COMPRESSED
        }
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def read_file(path: Path) -> xr.Dataset:
    """Read what `write_file` wrote, into memory, unchecked."""
    with xr.open_dataset(path, engine="netcdf4") as file:
        return file.load()


def open_dataset(path: Path | str, kind: str | None = None) -> xr.Dataset:
    """Read a dataset into memory and refuse it if anything is wrong.

    Raises
    ------
    ReproError
        With the first fault, and how many more there are.
    """
    path = Path(path)
    found, dataset = _examined(path)
    if found or dataset is None:
        more = f" (and {len(found) - 1} more faults)" if len(found) > 1 else ""
        raise ReproError(f"{path}: {found[0]}{more}")
    if kind is not None and dataset.attrs["kind"] != kind:
        raise ReproError(f"{path}: expected a dataset of {kind}, got {dataset.attrs['kind']}")
    return dataset


def validate(path: Path) -> list[str]:
    """Return every fault of a stored file, in one line each; an empty list if there is none.

    A file that the registry beside it knows by another hash is not even opened.
    """
    return _examined(path)[0]


def _examined(path: Path) -> tuple[list[str], xr.Dataset | None]:
    """Return the faults of a file, and what was read if it could be."""
    if not path.is_file():
        return ["no such file"], None
    try:
        listed = files.registry(path)
    except ReproError as error:
        return [str(error)], None
    if listed is not None and (got := files.sha256(path)) != listed:
        fault = (
            f"expected SHA-256 {listed} as in {files.REGISTRY}, got {got}; likely damaged, or "
            "changed without 'logitdist' knowing"
        )
        return [fault], None
    try:
        dataset = read_file(path)
        return [*faults(dataset), *_misplaced(path, dataset)], dataset
    except Exception as error:
        fault = f"cannot be read as a dataset ({brief(error)}); likely truncated or damaged"
        return [fault], None


def _misplaced(path: Path, dataset: xr.Dataset) -> Iterator[str]:
    """Yield what a file in the data folder is not, though its place and name say so."""
    data = places.data().absolute()
    if not path.absolute().is_relative_to(data):
        return
    kind, run = dataset.attrs.get("kind"), dataset.attrs.get("run")
    folder = path.absolute().relative_to(data).parts[0]
    if kind != folder:
        yield f"expected a dataset of {folder}, as its folder says, got {kind}; likely misplaced"
    if run != path.stem:
        yield f"expected the run {path.stem}, as its name says, got {run}; likely copied or renamed"


def stored_files(folder: Path) -> list[Path]:
    """Return the datasets in a folder and below it, sorted."""
    return sorted(p for p in folder.rglob("*.nc") if p.is_file())


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
        Of the recipe; ``*`` for any.
    """
    datasets = []
    for path in (places.data() / stage).glob(f"{dataset}-{scale}-{name}-seed*.nc"):
        if re.search(r"-seed\d+$", path.stem):  # not a copy such as "…-seed0 (1).nc"
            status = path.stat()
            opened = _opened(path.resolve(), stage, (status.st_size, status.st_mtime_ns))
            if name in ("*", recipe_of(opened)["name"]):
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
