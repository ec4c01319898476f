"""Any datasets in the place of the paper's: which networks they are of, and what to call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from logit_distributions import store
from logit_distributions.errors import ReproError
from logit_distributions.read import describe
from logit_distributions.store.schema import FROM_ARRAYS
from paper import selection, style

Networks = dict[str, list[xr.Dataset]]
"""By what a caption calls a network, its datasets: one for each seed."""


def of_files(paths: Sequence[str | Path], kinds: Sequence[str]) -> Networks:
    """Return the networks of files, in the order of the files; seeds of one recipe are one network.

    Raises
    ------
    ReproError
        If a file is no dataset of these kinds, is given twice, or there are too many to tell apart.
    """
    networks: Networks = {}
    keys: dict[tuple[str, ...], str] = {}
    seen: dict[str, str | Path] = {}
    for path in paths:
        dataset = store.open_dataset(path)
        if dataset.attrs["kind"] not in kinds:
            raise ReproError(
                f"{path}: expected a dataset of {' or '.join(kinds)}, got {dataset.attrs['kind']}"
            )
        if (first := seen.setdefault(dataset.attrs["content_sha256"], path)) != path:
            raise ReproError(f"{path}: holds the same as {first}; likely given twice")
        key = _key(dataset)
        if key not in keys:
            keys[key] = _label(dataset, networks)
        networks.setdefault(keys[key], []).append(dataset)
    if len(networks) > len(style.CYCLE):
        raise ReproError(f"expected at most {len(style.CYCLE)} networks, got {len(networks)}")
    return networks


def _key(dataset: xr.Dataset) -> tuple[str, ...]:
    """Return what the seeds of a recipe have in common; of a network of others, only its own."""
    attributes = dataset.attrs
    if attributes["method"] in ("given", FROM_ARRAYS):
        return (attributes["content_sha256"],)
    return attributes["kind"], attributes["recipe_hash"], attributes.get("evaluation", "")


def _label(dataset: xr.Dataset, others: Mapping[str, object]) -> str:
    """Return a name that no other network has."""
    attributes = dataset.attrs
    if attributes["method"] in ("given", FROM_ARRAYS):
        plain = str(attributes["run"])
    else:
        name = selection.label(store.recipe_of(dataset)["name"])
        where = "" if attributes["dataset"] == "cifar10" else f"{attributes['dataset']} "
        plain = f"{name}, scale {where}{attributes['scale']}"
    label, number = plain, 1
    while label in others:
        number += 1
        label = f"{plain} ({number})"
    return label


def colours(networks: Networks) -> dict[str, str]:
    """Return a colour for each network; of ST and AT the usual one, where it is free."""
    usual = {selection.label(name): colour for name, colour in style.COLOURS.items()}
    chosen: dict[str, str] = {}
    for label in networks:
        colour = usual.get(label.partition(",")[0])
        if colour is not None and colour not in chosen.values():
            chosen[label] = colour
    for label in networks:
        free = (each for each in style.CYCLE if each not in chosen.values())
        chosen.setdefault(label, next(free, style.GREY))
    return chosen


def about(networks: Networks) -> str:
    """Return a sentence on each network: its seeds, its images, what attacked it."""
    return " ".join(f"{label}: {_about(datasets)}." for label, datasets in networks.items())


def _about(datasets: Sequence[xr.Dataset]) -> str:
    first = datasets[0]
    seeds = ""
    if first.attrs["method"] not in ("given", FROM_ARRAYS):
        numbers = ", ".join(str(each.attrs["seed"]) for each in datasets)
        seeds = f"seed{'s' if len(datasets) > 1 else ''} {numbers}; "
    counts = " or ".join(sorted({f"{each.sizes['sample']:,}" for each in datasets}))
    words = f"{seeds}{counts} images"
    if first.attrs["kind"] != "logits":
        return words
    attack = "not attacked" if "robust" not in first else f"attacked by {describe.attack(first)}"
    return f"{words}, {attack}"


def on_common_images(networks: Networks) -> Networks:
    """Return the networks on the images that all of them have, told by ``index``, in one order.

    Raises
    ------
    ReproError
        If there are none, or a common image has two labels.
    """
    everyone = [each for datasets in networks.values() for each in datasets]
    if len({each.sizes["class"] for each in everyone}) > 1:
        raise ReproError("expected networks of the same classes, got different numbers of them")
    common = everyone[0]["index"].values
    for each in everyone:
        if len(np.unique(each["index"])) < each.sizes["sample"]:
            raise ReproError(f"{each.attrs['run']}: expected each image once, got some twice")
        common = np.intersect1d(common, each["index"].values)
    if not len(common):
        raise ReproError("expected networks on the same images, got none in common (index)")
    aligned = {
        label: [_in_order(each, common) for each in datasets]
        for label, datasets in networks.items()
    }
    first = next(iter(aligned.values()))[0]
    for datasets in aligned.values():
        for each in datasets:
            if not np.array_equal(each["label"].values, first["label"].values):
                raise ReproError(
                    f"{each.attrs['run']} and {first.attrs['run']}: expected the same label for "
                    "the same image (index), got different ones; likely of different sets"
                )
    return aligned


def _in_order(dataset: xr.Dataset, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> xr.Dataset:
    order = np.argsort(dataset["index"].values)
    place = np.searchsorted(dataset["index"].values[order], index)
    return dataset.isel(sample=order[place])
