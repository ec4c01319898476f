"""What a dataset of each kind holds, where it came from, and how it is sealed."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from logit_distributions import __version__
from logit_distributions.store import places

SCHEMA = "logit-distributions/1"

FROM_ARRAYS = "arrays"
"""The attribute ``method`` of what `from_arrays` made."""


@dataclass(frozen=True)
class Variable:
    """Dimensions, kind of number and meaning of a stored variable.

    Attributes
    ----------
    dims : tuple of str
    kind : str
        As numpy's, ``m`` a float or missing.
    long_name : str
    since : str or None
        Day from which it is written, as 2026-11-25. Files without it stay valid; where it is there
        it is checked. None: in every file.
    optional : bool
        Whether it may be missing in what `from_arrays` made of logits of others, who need not
        have attacked; in no other dataset.
    """

    dims: tuple[str, ...]
    kind: str
    long_name: str
    since: str | None = None
    optional: bool = False


_SAMPLE = {
    "label": Variable(("sample",), "i", "true class"),
    "index": Variable(("sample",), "i", "position in the original files of the part"),
}

_ATTACKED = {
    "logits": Variable(("sample", "class"), "f", "logits on the natural image"),
    "adversarial_logits": Variable(
        ("sample", "class"), "f", "logits on the strongest adversarial image found"
    ),
    "robust": Variable(
        ("attack", "sample"), "b", "classified correctly after this attack and all before"
    ),
}

_WITH_ERROR = (("", ""), ("_se", ", standard error"))

_SECOND_EDITION = (
    (
        "center_kept",
        ("layer", "manifold"),
        "f",
        "share of the centre that the package's rule keeps",
    ),
    ("guarded_capacity", ("layer",), "m", "mean-field capacity by our rule of the low rank"),
    ("guarded_low_rank_dimension", ("layer",), "i", "dimensions that our rule removes"),
    ("guarded_radius", ("layer", "manifold"), "f", "radius by our rule"),
    ("guarded_dimension", ("layer", "manifold"), "f", "dimension by our rule"),
    ("glue_dimension", ("layer",), "m", "GLUE, whose capacity is the conic one: dimension"),
    ("glue_radius", ("layer",), "m", "GLUE: radius"),
    ("glue_utility", ("layer",), "m", "GLUE: capacity over its approximation"),
    ("glue_approximate_capacity", ("layer",), "m", "GLUE: capacity by radius and dimension"),
    ("glue_center_alignment", ("layer",), "m", "GLUE: mean |cosine| of two centres"),
    ("glue_axis_alignment", ("layer",), "m", "GLUE: mean |cosine| of two axes"),
    ("glue_center_axis_alignment", ("layer",), "m", "GLUE: mean |cosine| of centre and axis"),
    ("glue_ambiguous_share", ("layer",), "f", "GLUE: share of draws without unique anchors"),
    ("glue_manifold_dimension", ("layer", "manifold"), "m", "GLUE: a manifold's dimension"),
    ("glue_manifold_radius", ("layer", "manifold"), "m", "GLUE: a manifold's radius"),
)
"""Of a layer's manifolds, since the kernels have them."""

KINDS: dict[str, dict[str, Variable]] = {
    "logits": {
        **_SAMPLE,
        **{name: replace(each, optional=name != "logits") for name, each in _ATTACKED.items()},
    },
    "adversarial": {
        **_SAMPLE,
        **_ATTACKED,
        **{
            name: Variable(("sample", "channel", "row", "column"), "f", f"{what}, pixels in [0, 1]")
            for name, what in (
                ("images", "natural image"),
                ("adversarial_images", "strongest adversarial image found"),
            )
        },
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
        **{
            f"{name}{end}": Variable(dims, kind, f"{meaning}{by}", since="2026-11-25")
            for name, dims, kind, meaning in _SECOND_EDITION
            for end, by in (_WITH_ERROR if (dims, kind) == (("layer",), "m") else (("", ""),))
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
    "masking": {
        **_SAMPLE,
        "natural": Variable(("sample",), "b", "classified correctly"),
        "no_gradient": Variable(
            ("sample",), "b", "the cross-entropy has no gradient in the image at all"
        ),
        "eps": Variable(("setting",), "f", "Linf radius, in pixel units"),
        "iterations": Variable(("setting",), "i", "of APGD"),
        "restarts": Variable(("setting",), "i", "random restarts of each attack"),
        "survives": Variable(
            ("setting", "attack", "sample"), "b", "correct after this attack and all before it"
        ),
        "survives_square": Variable(("sample",), "b", "correct after Square alone"),
        "transferred": Variable(
            ("target", "sample"), "b", "another network's verdict on the image is correct"
        ),
    },
    "distances": {
        **_SAMPLE,
        "natural": Variable(("sample",), "b", "classified correctly"),
        "gap": Variable(("sample",), "f", "largest minus second largest logit"),
        "gradient_l1": Variable(("sample",), "f", "L1 norm of the gap's gradient in the pixels"),
        "radius": Variable(
            ("sample",), "m", "smallest Linf radius at which the attack succeeds, in pixel units"
        ),
    },
}
"""Variables of each kind of dataset.

A kind only grows: what is added gets a day, `Variable.since`. A changed meaning is another
`SCHEMA`, with a reader for this one; see ``data/README.md``.
"""

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
            ["git", "-C", str(places.ROOT), *arguments], capture_output=True, text=True
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
        optional = variable.optional and dataset.attrs.get("method") == FROM_ARRAYS
        return None if variable.since or optional else f"missing variable {name!r}"
    stored = dataset[name]
    if stored.dims != variable.dims:
        return f"{name}: expected dimensions {variable.dims}, got {stored.dims}"
    kind = "f" if variable.kind == "m" else variable.kind
    if stored.dtype.kind != kind:
        return f"{name}: expected numbers of kind {kind!r}, got {stored.dtype}"
    if variable.kind == "f" and not np.isfinite(stored.values).all():
        return f"{name}: {int((~np.isfinite(stored.values)).sum())} values are NaN or infinite"
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
    robust = dataset["robust"].values
    if "adversarial_logits" in dataset:
        adversarial = dataset["adversarial_logits"].values.argmax(1) == label
        if count := int((robust[-1] != (natural & adversarial)).sum()):
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
