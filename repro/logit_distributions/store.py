"""The stored datasets: their schema, provenance, registry, and how they are opened.

One run, one netCDF file. Several seeds are combined by opening, never by copying. Nothing
here needs torch. Where the netCDF library is not installed, as on a borrowed GPU machine, a
dataset is written as plain arrays with JSON beside them (`.npz`), which ``logitdist import`` turns
into netCDF elsewhere: the same values, the same attributes, the same content hash.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from logit_distributions import __version__, paths
from logit_distributions.errors import ReproError, brief

SCHEMA = "logit-distributions/1"
REGISTRY = "SHA256SUMS"
NETCDF, PLAIN = ".nc", ".npz"
COMPRESSED = 1 << 12
"""Bytes from which a variable is compressed; chunks of a smaller one would take more room."""


@dataclass(frozen=True)
class Variable:
    """Dimensions, kind of number and meaning of a stored variable."""

    dims: tuple[str, ...]
    kind: str
    long_name: str


_SAMPLE = {
    "label": Variable(("sample",), "i", "true class"),
    "index": Variable(("sample",), "i", "position in the original files of the part"),
}

KINDS: dict[str, dict[str, Variable]] = {
    "logits": {
        **_SAMPLE,
        "logits": Variable(("sample", "class"), "f", "logits on the natural image"),
        "adversarial_logits": Variable(
            ("sample", "class"), "f", "logits on the strongest adversarial image found"
        ),
        "robust": Variable(
            ("attack", "sample"), "b", "classified correctly after this attack and all before"
        ),
    },
    "targets": {
        **_SAMPLE,
        "logits": Variable(("sample", "class"), "f", "teacher's logits, averaged over passes"),
    },
    "log": {
        "loss": Variable(("epoch",), "f", "mean training loss"),
        "accuracy": Variable(("epoch",), "f", "training accuracy, on the inputs trained on"),
        "learning_rate": Variable(("epoch",), "f", "learning rate at the end of the epoch"),
        "seconds": Variable(("epoch",), "f", "wall time of the epoch"),
        "validation_accuracy": Variable(("epoch",), "m", "natural accuracy, validation images"),
        "validation_robust_accuracy": Variable(
            ("epoch",), "m", "accuracy under PGD, validation images"
        ),
    },
    "epochs": {
        **_SAMPLE,
        "test": Variable(("sample",), "b", "of the test part; of the training part otherwise"),
        "largest": Variable(("epoch", "sample"), "f", "largest logit on the natural image"),
        "second": Variable(("epoch", "sample"), "f", "second largest logit"),
        "prediction": Variable(("epoch", "sample"), "i", "class of the largest logit"),
    },
    "capacity": {
        "exemplar": Variable(("manifold",), "i", "place of the image among those given, or class"),
        "features": Variable(("layer",), "i", "features N, before a projection"),
        **{
            f"{name}{end}": Variable(("layer", "manifold"), "f", f"{meaning}{by}")
            for name, meaning in (
                ("capacity", "mean-field capacity, manifolds per feature"),
                ("radius", "radius, in norms of the centre"),
                ("dimension", "dimension"),
            )
            for end, by in (("", ""), ("_se", ", standard error over Gaussian vectors"))
        },
        "combined_capacity": Variable(("layer",), "f", "mean-field capacity of all manifolds"),
        "combined_capacity_se": Variable(("layer",), "f", "its standard error"),
        "raw_capacity": Variable(("layer",), "f", "the same with the centres' low rank kept"),
        "raw_capacity_se": Variable(("layer",), "f", "its standard error"),
        "center_correlation": Variable(("layer",), "f", "mean absolute cosine of centres"),
        "low_rank_dimension": Variable(("layer",), "i", "dimensions removed from the centres"),
        **{
            f"{name}_capacity{end}": Variable(("layer",), "m", f"{meaning}{by}")
            for name, meaning in (
                ("simulated", "simulated capacity, with a bias"),
                ("unbiased", "simulated capacity of centred points, without a bias"),
                ("conic", "conic capacity of centred points"),
            )
            for end, by in (("", ""), ("_low", ", 95 % from"), ("_high", ", 95 % to"))
        },
        "simulated_features": Variable(("layer", "draw"), "m", "fewest features that separate"),
        "unbiased_features": Variable(("layer", "draw"), "m", "the same without a bias"),
        "conic_dimensions": Variable(("layer", "draw"), "f", "squared projection on the cone"),
        "kkt_residual": Variable(("layer",), "f", "worst violation of optimality conditions"),
        "undecided": Variable(("layer",), "i", "separability tests without a proof"),
        "seconds": Variable(("layer",), "f", "wall time of all estimators"),
        "seconds_activations": Variable(("layer",), "f", "wall time of attack and pass, shared"),
    },
    "theory": {
        f"{name}_margin": Variable(("eps", "sample"), "f", f"label's logit minus {other}")
        for name, other in (
            ("hard", "the largest other"),
            ("soft", "the log-sum-exp of the others"),
            ("mean", "the mean of the others"),
        )
    },
}
"""Variables of each kind of dataset; kinds of number as numpy's, ``m`` a float or missing."""

ATTRIBUTES = (
    "schema", "kind", "run", "method", "dataset", "data_sha256", "recipe", "recipe_hash",
    "seed", "scale", "versions", "commit", "created_at", "content_sha256",
)  # fmt: skip


def provenance() -> dict[str, str]:
    """Return versions, commit and time of making, as attributes."""
    names = ("numpy", "xarray", "netcdf4", "torch", "torchvision", "pyautoattack")
    versions = {"python": platform.python_version(), "logit-distributions": __version__}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": json.dumps(versions),
        "commit": _commit(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """Return the commit of the sources; where they came without git's, that of REPRO_COMMIT."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "repro", "kernels")
    except OSError:
        commit = changed = ""
    commit += "+changes" if changed else ""
    return commit or os.environ.get("REPRO_COMMIT", "unknown")


def content_sha256(dataset: xr.Dataset) -> str:
    """Hash of names, dimensions, values and attributes, independent of the file's layout."""
    digest = hashlib.sha256()
    for name in sorted(map(str, dataset.variables)):
        variable = dataset[name]
        values = variable.values
        if values.dtype.kind in "OUST":
            payload = json.dumps([str(v) for v in values.ravel().tolist()]).encode()
        else:
            payload = np.ascontiguousarray(values).tobytes()
        digest.update(f"{name}{variable.dims}{values.shape}{values.dtype.kind}".encode() + payload)
    attributes = {k: str(v) for k, v in dataset.attrs.items() if k != "content_sha256"}
    digest.update(json.dumps(attributes, sort_keys=True).encode())
    return digest.hexdigest()


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


def suffix() -> str:
    """Return how the names of datasets that are written here end."""
    return NETCDF if importlib.util.find_spec("netCDF4") is not None else PLAIN


def write_file(dataset: xr.Dataset, path: Path) -> None:
    """Write any dataset, whole or not at all, in the format that the end of the name asks for."""
    with paths.atomic(path) as temporary:
        if path.suffix == PLAIN:
            _write_plain(dataset, temporary)
            return
        encoding = {
            name: {"zlib": True, "complevel": 9, "shuffle": True}
            for name, variable in dataset.variables.items()
            if variable.dtype.kind in "fiub" and variable.nbytes >= COMPRESSED
        }
        dataset.to_netcdf(temporary, engine="netcdf4", encoding=encoding)


def read_file(path: Path) -> xr.Dataset:
    """Read what `write_file` wrote, into memory, unchecked."""
    if path.suffix == PLAIN:
        return _read_plain(path)
    with xr.open_dataset(path, engine="netcdf4") as file:
        return file.load()


def _write_plain(dataset: xr.Dataset, path: Path) -> None:
    arrays: dict[str, Any] = {}
    about = {}
    for name, variable in dataset.variables.items():
        values = variable.values
        arrays[str(name)] = values.astype(str) if values.dtype.kind == "O" else values
        about[str(name)] = {"dims": variable.dims, "attrs": variable.attrs}
    described = {"variables": about, "coords": sorted(map(str, dataset.coords))}
    described["attrs"] = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in dataset.attrs.items()
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays, json=np.array(json.dumps(described)))


def _read_plain(path: Path) -> xr.Dataset:
    with np.load(path, allow_pickle=False) as file:
        described = json.loads(str(file["json"]))
        variables = {
            name: (tuple(about["dims"]), file[name], about["attrs"])
            for name, about in described["variables"].items()
        }
    dataset = xr.Dataset(variables, attrs=described["attrs"])
    return dataset.set_coords(described["coords"])


def faults(dataset: xr.Dataset) -> Iterable[str]:
    """Yield every fault of a dataset, one line each."""
    attributes = dataset.attrs
    missing = [name for name in ATTRIBUTES if name not in attributes]
    if missing:
        yield f"missing attributes {', '.join(missing)}"
    if "schema" in attributes and attributes["schema"] != SCHEMA:
        yield f"unknown schema version: expected {SCHEMA!r}, got {attributes['schema']!r}"
        return
    kind = str(attributes.get("kind"))
    if kind not in KINDS:
        yield f"unknown kind: expected one of {', '.join(KINDS)}, got {kind!r}"
        return
    if "content_sha256" in attributes and attributes["content_sha256"] != content_sha256(dataset):
        yield "content does not match its own SHA-256; likely changed after it was written"
    usable = True
    for name, variable in KINDS[kind].items():
        fault = _variable_fault(dataset, name, variable)
        if fault:
            usable = False
            yield fault
    if usable and "label" in KINDS[kind]:
        yield from _sample_faults(dataset)
    if usable and kind == "capacity":
        yield from _capacity_faults(dataset)


def _variable_fault(dataset: xr.Dataset, name: str, variable: Variable) -> str | None:
    if name not in dataset:
        return f"missing variable {name!r}"
    found = dataset[name]
    if found.dims != variable.dims:
        return f"{name}: expected dimensions {variable.dims}, got {found.dims}"
    kind = "f" if variable.kind == "m" else variable.kind
    if found.dtype.kind != kind:
        return f"{name}: expected numbers of kind {kind!r}, got {found.dtype}"
    if variable.kind == "f" and not np.isfinite(found.values).all():
        return f"{name}: {int((~np.isfinite(found.values)).sum())} values are NaN or infinite"
    return None


def _sample_faults(dataset: xr.Dataset) -> Iterable[str]:
    classes = dataset.sizes["class"]
    label = dataset["label"].values
    if dataset.sizes["sample"] == 0:
        yield "no samples"
        return
    if label.min() < 0 or label.max() >= classes:
        yield f"label: expected 0 to {classes - 1}, got {label.min()} to {label.max()}"
        return
    if "prediction" in dataset:
        outside = (dataset["prediction"].values < 0) | (dataset["prediction"].values >= classes)
        if outside.any():
            yield f"prediction: {int(outside.sum())} values are not in 0 to {classes - 1}"
        if count := int((dataset["largest"].values < dataset["second"].values).sum()):
            yield f"largest: {count} values are below the second largest"
    if "robust" not in dataset:
        return
    natural = dataset["logits"].values.argmax(1) == label
    adversarial = dataset["adversarial_logits"].values.argmax(1) == label
    robust = dataset["robust"].values
    count = int((robust[-1] != (natural & adversarial)).sum())
    if count:
        yield f"robust: contradicts the adversarial logits of {count} samples"
    count = int((robust[1:] & ~robust[:-1]).any(0).sum()) + int((robust[0] & ~natural).sum())
    if count:
        yield f"robust: {count} samples are robust after an attack but not before it"


def _capacity_faults(dataset: xr.Dataset) -> Iterable[str]:
    if "layer" not in dataset.coords or len(set(dataset["layer"].values)) != dataset.sizes["layer"]:
        yield "layer: expected a name for each layer, each once"
    for name in ("capacity", "combined_capacity", "raw_capacity"):
        if (count := int((dataset[name].values <= 0).sum())) > 0:
            yield f"{name}: {count} values are not positive"
    for name in ("simulated", "unbiased", "conic"):
        low, value, high = (
            dataset[f"{name}_capacity{end}"].values for end in ("_low", "", "_high")
        )
        if (count := int(((low > value) | (value > high)).sum())) > 0:
            yield f"{name}_capacity: {count} values are outside of their interval"
    if (outside := (np.abs(dataset["center_correlation"].values - 0.5) > 0.5)).any():
        yield f"center_correlation: {int(outside.sum())} values are not in 0 to 1"


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
        listed = registry(path)
    except ReproError as error:
        return [str(error)], None
    if listed is not None and (got := paths.sha256(path)) != listed:
        fault = (
            f"expected SHA-256 {listed} as in {REGISTRY}, got {got}; likely damaged, or changed "
            "without 'logitdist' knowing"
        )
        return [fault], None
    try:
        dataset = read_file(path)
        return list(faults(dataset)), dataset
    except Exception as error:
        return [_unreadable(path, error)], None


def _unreadable(path: Path, error: Exception) -> str:
    if path.suffix == NETCDF and suffix() != NETCDF:
        return "is netCDF, and netCDF4 is not installed; give an empty folder with --data"
    return f"cannot be read as a dataset ({brief(error)}); likely truncated or damaged"


def files(folder: Path) -> list[Path]:
    """Return the datasets in a folder and below it, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix in (NETCDF, PLAIN) and p.is_file())


def _registry_file(path: Path) -> Path | None:
    for folder in path.resolve().parents:
        if (folder / REGISTRY).is_file():
            return folder / REGISTRY
    return None


def _registered(file: Path) -> dict[str, str]:
    entries = {}
    for line in file.read_text(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not name:
            raise ReproError(
                f"{file}: expected lines of a SHA-256, two spaces and a name, got {line[:80]!r}; "
                "likely damaged: restore it from the repository"
            )
        entries[name] = digest
    return entries


def registry(path: Path) -> str | None:
    """Return the SHA-256 that the nearest registry above `path` lists for it, if any does."""
    file = _registry_file(path)
    if file is None:
        return None
    return _registered(file).get(path.resolve().relative_to(file.parent).as_posix())


@contextmanager
def registering(path: Path) -> Iterator[None]:
    """Enter a stored file in the registry of the data folder once the block has written it.

    The old entry is taken out first, so that a kill at any moment leaves either no entry
    or the right one. The format is that of ``sha256sum``: in the data folder,
    ``sha256sum -c SHA256SUMS`` checks every file.
    """
    _set_entry(path, None)
    yield
    _set_entry(path, paths.sha256(path))


def _set_entry(path: Path, digest: str | None) -> None:
    file = paths.data().resolve() / REGISTRY
    name = path.resolve().relative_to(file.parent).as_posix()
    with paths.locked(file.parent):
        entries = _registered(file) if file.exists() else {}
        if entries.get(name) == digest:
            return
        entries.pop(name, None)
        if digest is not None:
            entries[name] = digest
        with paths.atomic(file) as temporary:
            temporary.write_text("".join(f"{entries[n]}  {n}\n" for n in sorted(entries)))


def path_of(kind: str, run: str) -> Path:
    """Path of a stored dataset by kind (a folder of the data) and run."""
    return paths.data() / kind / f"{run}{suffix()}"


def runs(kind: str, **attributes: object) -> dict[str, xr.Dataset]:
    """Open every stored dataset of a kind whose attributes are as asked, by name of run.

    For instance ``runs("logits", dataset="cifar10", scale="small")``.
    """
    found = {}
    for path in sorted((paths.data() / kind).glob(f"*{suffix()}")):
        dataset = open_dataset(path, kind)
        if all(dataset.attrs.get(name) == value for name, value in attributes.items()):
            found[path.stem] = dataset
    return found


def recipe_of(dataset: xr.Dataset) -> Mapping[str, Any]:
    """Return the recipe that a dataset was made with, as plain data."""
    recipe: Mapping[str, Any] = json.loads(dataset.attrs["recipe"])
    return recipe
