"""Made-up stored results of every kind that the figures read, small and quick to write."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from logit_distributions import images, recipes, store
from logit_distributions.read import capacity
from logit_distributions.recipes import Evaluation
from paper import audit

SAMPLES, SWEEP_SAMPLES, EPOCHS = 120, 90, (1, 2, 3)
CLASSES = images.CIFAR10.classes
STUDENTS = (
    "normal", "fix-1-permute", "fix-3-permute", "fix-1-average", "fix-7-average",
    "logits-epoch-1", "logits-epoch-3", "softmax-epoch-3",
)  # fmt: skip


def attributes(kind: str, recipe: recipes.Recipe, seed: int) -> dict[str, object]:
    return {
        "kind": kind, "run": recipe.run(seed), "method": recipe.method,
        "dataset": recipe.dataset, "data_sha256": "0" * 64, "recipe": recipe.to_json(),
        "recipe_hash": recipe.hash, "seed": seed, "scale": recipe.scale, "checkpoint_epoch": 3,
        "versions": "{}", "commit": "none", "created_at": "2021-01-01",
        "evaluation": json.dumps(dataclasses.asdict(Evaluation())), "rounded_to": 1 / 64,
    }  # fmt: skip


def logits(recipe: recipes.Recipe, seed: int, samples: int) -> xr.Dataset:
    """Return logits that know the class, with those of ``at`` smaller and sturdier."""
    draws = np.random.default_rng([seed, len(recipe.name)])
    label = np.arange(SAMPLES) % 10
    size = 1.5 if recipe.name == "st" else 0.5
    natural = size * (2 * np.eye(10)[label] + draws.normal(size=(SAMPLES, 10)))
    attacked = natural + (0.0 if recipe.name != "st" else 3.0) * draws.normal(size=(SAMPLES, 10))
    attacked[::3] = -natural[::3]
    hit = natural.argmax(1) == label
    both = hit & (attacked.argmax(1) == label)
    dataset = xr.Dataset(
        {
            "logits": (("sample", "class"), natural.astype(np.float32)),
            "adversarial_logits": (("sample", "class"), attacked.astype(np.float32)),
            "robust": (("attack", "sample"), np.stack([both, both])),
            "label": ("sample", label.astype(np.int16)),
            "index": ("sample", np.arange(SAMPLES, dtype=np.int32)),
        },
        coords={"class": list(CLASSES), "attack": list(Evaluation().attacks)},
        attrs=attributes("logits", recipe, seed),
    )
    return dataset.isel(sample=slice(samples))


def epochs(recipe: recipes.Recipe, seed: int) -> xr.Dataset:
    draws = np.random.default_rng([seed, 9])
    top = np.sort(draws.gamma(2.0, 1.0, (len(EPOCHS), SAMPLES, 2)), 2).astype(np.float32)
    label = np.arange(SAMPLES) % 10
    return xr.Dataset(
        {
            "largest": (("epoch", "sample"), top[..., 1]),
            "second": (("epoch", "sample"), top[..., 0]),
            "prediction": (("epoch", "sample"), np.stack([label] * len(EPOCHS)).astype(np.int16)),
            "label": ("sample", label.astype(np.int16)),
            "index": ("sample", np.arange(SAMPLES, dtype=np.int32)),
            "test": ("sample", np.arange(SAMPLES) >= SAMPLES // 2),
        },
        coords={"epoch": np.array(EPOCHS, np.int32), "class": list(CLASSES)},
        attrs=attributes("epochs", recipe, seed),
    )


def log(recipe: recipes.Recipe, seed: int) -> xr.Dataset:
    values = {name: ("epoch", np.linspace(0.2, 0.4, len(EPOCHS))) for name in store.KINDS["log"]}
    coords = {"epoch": np.array(EPOCHS, np.int32)}
    return xr.Dataset(values, coords=coords, attrs=attributes("log", recipe, seed))


@functools.cache
def _layer() -> xr.Dataset:
    settings = recipes.Manifolds(n_t=40, draws=15)
    return capacity.measure(audit.ellipsoids(8, 6, [0.5, 0.5]), settings)


def capacities(recipe: recipes.Recipe, seed: int) -> xr.Dataset:
    """Return capacities that fall from layer to layer, faster for some networks."""
    step = 0.01 * (1 + len(recipe.name) + seed)
    parts = []
    for i, _ in enumerate(capacity.LAYERS):
        one = _layer().copy(deep=True)
        for name in one.variables:
            if "capacity" in str(name):
                one[name] = one[name] * np.float32(np.exp(-step * i))
            elif str(name).endswith(("_features", "dimensions")):
                one[name] = one[name] * np.float32(np.exp(step * i))
        one["radius"] = one["radius"] * np.float32(1 + step * i)
        parts.append(one)
    layers = xr.Variable("layer", list(capacity.LAYERS))
    joined = xr.concat(parts, layers, data_vars="all", coords="minimal", join="exact")
    joined["exemplar"] = ("manifold", np.arange(8, dtype=np.int32))
    for name in ("seconds", "seconds_activations"):
        joined[name] = ("layer", np.ones(len(capacity.LAYERS)))
    joined["features"] = ("layer", np.full(len(capacity.LAYERS), 3000, np.int32))
    settings = dataclasses.asdict(recipes.Manifolds())
    more = {f"manifold_{name}": value for name, value in settings.items()}
    return joined.assign_attrs(
        {**attributes("capacity", recipe, seed), **more, "checkpoint_sha256": "0" * 64}
    )


def masking(recipe: recipes.Recipe, seed: int, targets: Iterable[str] = ()) -> xr.Dataset:
    """Return what attacks of every strength find on a network that is honest."""
    evaluations, targets = recipes.masking(recipe), list(targets)
    hard = np.random.default_rng([seed, len(recipe.name)]).permutation(SAMPLES) / SAMPLES
    survives = [hard > 255 * each.eps / 20 for each in evaluations]  # of each image its own radius
    return xr.Dataset(
        {
            "label": ("sample", (np.arange(SAMPLES) % 10).astype(np.int16)),
            "index": ("sample", np.arange(SAMPLES, dtype=np.int32)),
            "natural": ("sample", np.ones(SAMPLES, bool)),
            "no_gradient": ("sample", np.zeros(SAMPLES, bool)),
            "eps": ("setting", np.array([each.eps for each in evaluations])),
            "iterations": ("setting", np.array([e.iterations for e in evaluations], np.int32)),
            "restarts": ("setting", np.array([e.restarts for e in evaluations], np.int32)),
            "survives": (("setting", "attack", "sample"), np.stack([survives, survives], 1)),
            "survives_square": ("sample", hard > 0.2),
            "transferred": (("target", "sample"), np.ones((len(targets), SAMPLES), bool)),
        },
        coords={
            "class": list(CLASSES),
            "attack": list(Evaluation().attacks),
            "target": np.array(targets, dtype=str),
        },
        attrs=attributes("masking", recipe, seed),
    )


def distances(recipe: recipes.Recipe, seed: int) -> xr.Dataset:
    """Return radii near those that gaps and slopes predict; one is beyond the largest ball."""
    draws = np.random.default_rng([seed, len(recipe.name)])
    gap = draws.gamma(2.0, 4.0 if recipe.name == "st" else 1.0, SAMPLES).astype(np.float32)
    slope = (gap.mean() * draws.uniform(20, 40, SAMPLES)).astype(np.float32)
    radius = (gap / slope * draws.uniform(0.6, 1.0, SAMPLES)).astype(np.float32)
    right = np.arange(SAMPLES) % 4 > 0
    radius[~right], radius[1] = 0, np.nan
    values = {"natural": right, "gap": gap, "gradient_l1": slope, "radius": radius}
    return xr.Dataset(
        {
            "label": ("sample", (np.arange(SAMPLES) % 10).astype(np.int16)),
            "index": ("sample", np.arange(SAMPLES, dtype=np.int32)),
            **{name: ("sample", each) for name, each in values.items()},
        },
        coords={"class": list(CLASSES)},
        attrs=attributes("distances", recipe, seed),
    )


def write_capacity(folder: Path, name: str, seeds: Iterable[int]) -> None:
    """Write capacities of a network."""
    recipe = recipes.recipe(name)
    for seed in seeds:
        store.write(capacities(recipe, seed), folder / "capacity" / f"{recipe.run(seed)}.nc")


def write(folder: Path) -> None:
    """Write the results of a small CIFAR-10 world, and of teachers on CIFAR-100."""
    for dataset, scale in (("cifar10", "small"), ("cifar100", "paper")):
        for name in recipes.TEACHERS:
            for seed in (0, 1):
                recipe = recipes.recipe(name, scale, dataset)
                run = f"{recipe.run(seed)}.nc"
                store.write(logits(recipe, seed, SAMPLES), folder / "logits" / run)
                store.write(epochs(recipe, seed), folder / "epochs" / run)
                store.write(log(recipe, seed), folder / "log" / run)
    for name in STUDENTS:
        for seed in (0, 1) if name == "normal" else (0,):
            recipe = recipes.recipe(name)
            samples = SAMPLES if name == "normal" else SWEEP_SAMPLES
            store.write(logits(recipe, seed, samples), folder / "logits" / f"{recipe.run(seed)}.nc")
    for name in recipes.FIGURE5:
        write_capacity(folder, name, (0, 1) if name in recipes.TEACHERS else (0,))
    pictures = np.random.default_rng(0).integers(0, 256, (SAMPLES, 3, 32, 32)).astype(np.uint8)
    (folder / "images").mkdir()
    images.write_sheet(pictures, folder / "images" / "cifar10-test-first-1000.png")
