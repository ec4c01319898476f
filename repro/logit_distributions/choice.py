"""Which epoch of a training counts, and which strength of a regularizer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import xarray as xr

from logit_distributions import images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.recipes import Recipe, scale_of

CHOOSING_SEED = 0
"""Of the trainings among which a strength is chosen."""


def kept_epochs(recipe: Recipe) -> list[int]:
    """Return the epochs after which a checkpoint is kept: of a long run every tenth."""
    every = 1 if recipe.epochs <= 20 else 10
    return [e for e in range(1, recipe.epochs + 1) if e % every == 0 or e == recipe.epochs]


def recorded_epochs(recipe: Recipe) -> list[int]:
    """Return the kept epochs whose logits are recorded."""
    every = scale_of(recipe).recorded_every
    return kept_epochs(recipe)[every - 1 :: every]


def asked_epochs(recipe: Recipe) -> list[int]:
    """Return the epochs that others ask for: of a teacher those of its students, and the last."""
    scale = scale_of(recipe)
    taught = (*scale.teacher_epochs, scale.at_epoch or recipe.epochs) if recipe.pgd else ()
    return sorted({*taught, recipe.epochs})


def known_epoch(recipe: Recipe) -> int | None:
    """Return the epoch that stands for a run, or None if its log must tell."""
    if recipe.pgd is None:
        return recipe.epochs
    if scale_of(recipe).at_epoch is not None:
        return scale_of(recipe).at_epoch
    return None if images.spec_of(recipe.dataset).validation_per_class else recipe.epochs


def best_epoch(log: Sequence[dict[str, float]]) -> int:
    """Return the kept epoch with the best trade-off, natural plus robust validation accuracy."""
    kept = [entry for entry in log if "validation_robust_accuracy" in entry]
    if not kept:
        raise ReproError("no epoch was validated; expected at least one kept checkpoint")
    best = max(kept, key=lambda e: e["validation_accuracy"] + e["validation_robust_accuracy"])
    return int(best["epoch"])


def evaluated_epoch(recipe: Recipe, log: Sequence[dict[str, float]]) -> int:
    """Return the epoch that stands for a finished run (paper, section 3)."""
    known = known_epoch(recipe)
    return best_epoch(log) if known is None else known


def reason(recipe: Recipe) -> str:
    """Return why that epoch stands for the run, for the record."""
    if recipe.pgd is None:
        return "last epoch"
    if scale_of(recipe).at_epoch is not None:
        return "the paper's choice, section 3"
    if not images.spec_of(recipe.dataset).validation_per_class:
        return "last epoch: no images are set aside to choose by"
    return "largest sum of natural and PGD accuracy on the validation images"


def best_strength(regularizer: str, scale: str, dataset: str = "cifar10") -> str:
    """Return the recipe of a regularizer at the strength that validation chooses.

    It has the largest accuracy under PGD on the validation images after the last epoch of seed 0;
    of equal ones the largest natural accuracy there, then the least strength.

    Parameters
    ----------
    regularizer : str
        Of `recipes.REGULARIZERS`.
    scale, dataset : str

    Raises
    ------
    Missing
        If the log of one of the strengths is not stored.
    """
    accuracies = validated(regularizer, scale, dataset)
    return max(accuracies, key=lambda name: accuracies[name])


def validated(
    regularizer: str, scale: str, dataset: str = "cifar10"
) -> dict[str, tuple[float, float]]:
    """Return what the strength is chosen by: by recipe, accuracy under PGD, then natural.

    Both as shares of the validation images, after the last epoch of seed 0; the least strength
    comes first.

    Raises
    ------
    Missing
        If the log of one of the strengths is not stored.
    """
    accuracies = {}
    for strength in recipes.REGULARIZERS[regularizer]:
        log = _log(f"{regularizer}-{strength}", scale, dataset)
        robust, natural = log["validation_robust_accuracy"], log["validation_accuracy"]
        accuracies[f"{regularizer}-{strength}"] = float(robust[-1]), float(natural[-1])
    return accuracies


def regularizers(scale: str, dataset: str = "cifar10") -> tuple[str, ...]:
    """Return the regularizers at the strengths that validation chooses, as far as it can yet."""
    best = []
    for name in recipes.REGULARIZERS:
        with contextlib.suppress(store.Missing):
            best.append(best_strength(name, scale, dataset))
    return tuple(best)


def _log(name: str, scale: str, dataset: str) -> xr.Dataset:
    for log in store.find("log", name, dataset, scale):
        if log.attrs["seed"] == CHOOSING_SEED:
            return log
    path = store.path_of("log", recipes.recipe(name, scale, dataset).run(CHOOSING_SEED))
    raise store.Missing(path, f"{recipes.command('log', name, scale, dataset)} --seed 0")
