"""The stored datasets: one run, one netCDF file; how they are written, opened and looked up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from logit_distributions.errors import ReproError, brief
from logit_distributions.store import files, places
from logit_distributions.store.schema import KINDS, SCHEMA, content_sha256, faults

COMPRESSED = 1 << 12
"""Bytes from which a variable is compressed; chunks of a smaller one would take more room."""


def write(dataset: xr.Dataset, path: Path) -> None:
    """Seal, check and write a dataset, whole or not at all.

    Adds the schema version and the content hash; refuses what `faults` would.
    """
    kind = dataset.attrs.get("kind")
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


def open_dataset(path: Path, kind: str | None = None) -> xr.Dataset:
    """Read a dataset into memory and refuse it if anything is wrong.

    Raises
    ------
    ReproError
        With the first fault, and how many more there are.
    """
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
        return list(faults(dataset)), dataset
    except Exception as error:
        fault = f"cannot be read as a dataset ({brief(error)}); likely truncated or damaged"
        return [fault], None


def stored_files(folder: Path) -> list[Path]:
    """Return the datasets in a folder and below it, sorted."""
    return sorted(p for p in folder.rglob("*.nc") if p.is_file())


def runs(kind: str, **attributes: object) -> dict[str, xr.Dataset]:
    """Open every stored dataset of a kind whose attributes are as asked, by name of run.

    For instance ``runs("logits", dataset="cifar10", scale="small")``.
    """
    found = {}
    for path in sorted((places.data() / kind).glob("*.nc")):
        dataset = open_dataset(path, kind)
        if all(dataset.attrs.get(name) == value for name, value in attributes.items()):
            found[path.stem] = dataset
    return found


def recipe_of(dataset: xr.Dataset) -> Mapping[str, Any]:
    """Return the recipe that a dataset was made with, as plain data."""
    recipe: Mapping[str, Any] = json.loads(dataset.attrs["recipe"])
    return recipe
