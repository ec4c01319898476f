"""Manifold capacity of one layer by every estimator, and what follows from the stored numbers.

No torch here: the left half (`manifolds`) hands over points, the right half (figures,
claims, audit) reads datasets of kind ``capacity``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from logit_distributions.recipes import Recipe, base

Array = NDArray[np.float64]
Kind = Literal["adversarial", "random", "class"]

BLOCKS = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))
LAYERS = ("input", "stem", *BLOCKS, "pool", "logits")
"""Where activations are read in our ResNet-18, from pixels to logits."""

SIMULATED_LAYERS = ("input", "stem", *BLOCKS)
"""Layers with so many more features than exemplars that a simulation finds its capacity."""

ROBUST = ("at", "normal", "fix-1-average")
"""Those of Figure 5 with non-zero adversarial accuracy in the paper; the others have none."""


@dataclass(frozen=True)
class Settings:
    """What decides the capacities of a network (paper, 4.2 and A.4), but for its images.

    Attributes
    ----------
    kind : {"adversarial", "random", "class"}
        Of the manifolds, see `manifolds`.
    exemplars : int
        P, the manifolds; for ``"class"`` there is one per class.
    points : int
        M, the points of each.
    eps, step : float
        Linf radius and step of PGD, in pixel units [0, 1].
    steps : int
        Of PGD.
    n_t : int
        Gaussian vectors per manifold of the mean-field theory.
    draws : int
        Of the simulations and of conic geometry.
    largest : int
        Features above which a layer is seen through a Gaussian projection to as many.
    seed : int
        Of everything that is drawn; the same for all networks.
    """

    kind: Kind = "adversarial"
    exemplars: int = 50
    points: int = 50
    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    n_t: int = 300
    draws: int = 60
    largest: int = 2048
    seed: int = 0

    @classmethod
    def planned(cls, recipe: Recipe) -> Settings:
        """Return the settings of a run's manifolds: the default, but for a rehearsal or a ball."""
        default = cls(eps=recipe.eps, step=recipe.eps / 4)
        if base(recipe.scale) != "miniature":
            return default
        return replace(default, exemplars=10, points=5, n_t=20, draws=5)


def measure(points: NDArray[Any], settings: Settings, threads: int | None = None) -> xr.Dataset:
    """Return what every estimator says of the manifolds of one layer.

    Mean-field theory with and without removing the centres' low-rank structure, by the rule of
    the package that the paper used, manifolds included whose centre that rule annihilates;
    simulation with a bias; and, on points minus their global mean, which is the frame that the
    theory works in, simulation without a bias and conic geometry.

    Parameters
    ----------
    points : ndarray, shape (P, N, M)
        Features by points of every manifold.
    settings : Settings
        Its `n_t`, `draws` and `seed` count here.
    threads : int, optional
        Default: all processors. Results do not depend on it.
    """
    import manifold_capacity as mc

    seed, draws = settings.seed, settings.draws
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "manifolds .* keep less", RuntimeWarning)
        theory = mc.mean_field_capacity(
            points, n_t=settings.n_t, low_rank="package", seed=seed, threads=threads
        )
    raw = mc.mean_field_capacity(
        points, n_t=settings.n_t, low_rank=False, seed=seed, threads=threads
    )
    centred = points - points.mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    biased = mc.simulated_capacity(points, draws, seed=seed, threads=threads)
    unbiased = mc.simulated_capacity(centred, draws, bias=False, seed=seed, threads=threads)
    conic = mc.conic_capacity(centred, draws, seed=seed, threads=threads)
    values: dict[str, Any] = {
        name: ("manifold", theory[name].astype(np.float32))
        for quantity in ("capacity", "radius", "dimension")
        for name in (quantity, f"{quantity}_se")
    }
    value, error = theory["capacity"], theory["capacity_se"]
    values["combined_capacity"] = float(combined(value))
    values["combined_capacity_se"] = float(
        combined(value) ** 2 * np.sqrt(((error / value**2) ** 2).sum()) / len(value)
    )
    values |= {
        "raw_capacity": raw["combined_capacity"],
        "raw_capacity_se": raw["combined_capacity_se"],
        "center_correlation": theory["center_correlation"],
        "low_rank_dimension": np.int32(theory["low_rank_dimension"]),
        "kkt_residual": max(found["kkt_residual"] for found in (theory, raw, conic)),
        "undecided": np.int32(biased["undecided"] + unbiased["undecided"]),
        "simulated_features": ("draw", biased["smallest_separable"].astype(np.float32)),
        "unbiased_features": ("draw", unbiased["smallest_separable"].astype(np.float32)),
        "conic_dimensions": ("draw", conic["sq_projection"].astype(np.float32)),
    }
    for name, found in (("simulated", biased), ("unbiased", unbiased), ("conic", conic)):
        for end in ("", "_low", "_high"):
            values[f"{name}_capacity{end}"] = found[f"capacity{end}"]
    return xr.Dataset(values)


def combined(capacity: NDArray[Any]) -> Array:
    """Return the capacity of all manifolds together, the harmonic mean along the last axis."""
    inverse: Array = np.mean(1 / capacity.astype(np.float64), axis=-1)
    return np.asarray(1 / inverse)


def ball(radius: NDArray[Any], dimension: NDArray[Any]) -> Array:
    """Return α_Ball(R, D) of A.4.2, element by element: (1 + R²) α_point(R√D)."""
    return np.asarray((1 + np.asarray(radius, float) ** 2) * point(radius, dimension))


def point(radius: NDArray[Any], dimension: NDArray[Any]) -> Array:
    """Return α_point(R√D) of A.4.2, element by element."""
    import manifold_capacity as mc

    kappa = np.asarray(radius, float) * np.sqrt(np.asarray(dimension, float))
    return np.asarray(np.vectorize(mc.point_capacity, otypes=[float])(kappa))


def radius_share(
    radius: tuple[NDArray[Any], NDArray[Any]], dimension: tuple[NDArray[Any], NDArray[Any]]
) -> Array:
    """Return the share of a fall of log capacity that the radius accounts for.

    By α_Ball(R, D): the change with R alone, averaged over D being the first and the last one,
    over the whole change. NaN where that is no fall.

    Parameters
    ----------
    radius, dimension : pair of ndarray
        At the first and at the last layer.
    """

    def log_capacity(r: int, d: int) -> Array:
        return np.asarray(np.log(ball(radius[r], dimension[d])))

    whole = log_capacity(1, 1) - log_capacity(0, 0)
    part = log_capacity(1, 0) - log_capacity(0, 0) + log_capacity(1, 1) - log_capacity(0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole < 0, part / 2 / whole, np.nan))


def separable_share(dataset: xr.Dataset, load: float) -> Array:
    """Return the share of simulated dichotomies separable at `load` times α_c, by layer.

    Parameters
    ----------
    dataset : xr.Dataset
        Of kind ``capacity``; simulations with a bias.
    load : float
        P/n in units of the simulated capacity.
    """
    fewest = dataset["simulated_features"].values
    critical = dataset.sizes["manifold"] / dataset["simulated_capacity"].values
    return np.asarray((fewest <= (critical / load)[:, None]).mean(1))


@dataclass(frozen=True)
class Interval:
    """A positive number with a 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, standard_error: float) -> Interval:
        """Return the normal interval of a value with a standard error."""
        reach = float(ndtri(0.975)) * standard_error
        return cls(value, value - reach, value + reach)

    def over(self, other: Interval) -> Interval:
        """Return the ratio, errors independent, each taken as normal on the log scale."""
        value = self.value / other.value
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.log([self.low / self.value, self.high / self.value])
            other_low, other_high = np.log([other.low / other.value, other.high / other.value])
        below, above = np.hypot(low, other_high), np.hypot(high, other_low)
        return Interval(value, value * float(np.exp(-below)), value * float(np.exp(above)))

    def contains(self, value: float) -> bool:
        """Return whether a number is inside."""
        return self.low <= value <= self.high

    @property
    def known(self) -> bool:
        """Whether value and interval are numbers; simulations run out of features."""
        return bool(np.isfinite([self.value, self.low, self.high]).all() and self.low > 0)


ESTIMATORS = {
    "theory": "mean-field theory",
    "raw": "the same, centres' low rank kept",
    "simulated": "simulation with bias",
    "unbiased": "simulation without bias",
    "conic": "conic geometry",
}
"""The capacities of a layer and what they are."""


def estimates(layer: xr.Dataset) -> dict[str, Interval]:
    """Return the capacities of one layer of a dataset by name of `ESTIMATORS`.

    The theory's interval is Monte Carlo's, over Gaussian vectors, for these very manifolds.
    """

    def number(name: str) -> float:
        return float(layer[name])

    found = {
        "theory": Interval.of(number("combined_capacity"), number("combined_capacity_se")),
        "raw": Interval.of(number("raw_capacity"), number("raw_capacity_se")),
    }
    for name in ("simulated", "unbiased", "conic"):
        ends = [number(f"{name}_capacity{end}") for end in ("", "_low", "_high")]
        found[name] = Interval(*ends)
    return found
