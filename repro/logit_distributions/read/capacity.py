"""A layer's capacity by every estimator, and what follows; stored ones as a table. No torch.

Rule for a row: two capacities agree if 1 is in the 95 % interval of their ratio, else they differ.
Where not even all features separate half of the dichotomies, or hardly so, nothing is compared.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

import manifold_capacity as mc
from logit_distributions.recipes import Manifolds
from manifold_capacity.capacity import KEPT

Array = NDArray[np.float64]

BLOCKS = tuple(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))
LAYERS = ("input", "stem", *BLOCKS, "pool", "logits")
"""Where activations are read in our ResNet-18, from pixels to logits."""

SIMULATED_LAYERS = ("input", "stem", *BLOCKS)
"""Layers with so many more features than exemplars that a simulation finds its capacity."""

ROBUST = ("at", "normal", "fix-1-average")
"""Those of Figure 5 with non-zero adversarial accuracy in the paper; the others have none."""


GLUE = {
    "dimension": "dimension",
    "radius": "radius",
    "utility": "utility",
    "approximate_capacity": "approximate capacity",
    "center_alignment": "alignment of centres",
    "axis_alignment": "alignment of axes",
    "center_axis_alignment": "alignment of centres and axes",
}
"""The GLUE measures that are stored, beside the conic capacity, and what they are."""


def measure(points: NDArray[Any], settings: Manifolds, threads: int | None = None) -> xr.Dataset:
    """Return what every estimator says of the manifolds of one layer.

    Mean-field theory with the centres' low-rank structure removed by the rule of the package that
    the paper used, manifolds included whose centre that rule annihilates (`is_kept`), by ours, and
    kept; simulation with a bias; and, on points minus their global mean, which is the frame that
    the theory works in, simulation without a bias, conic geometry and the GLUE measures.

    Parameters
    ----------
    points : ndarray, shape (P, N, M)
        Features by points of every manifold. Results do not depend on their order in memory.
    settings : Manifolds
        Its `n_t`, `draws` and `seed` count here.
    threads : int, optional
        Default: all processors. Results do not depend on it.
    """
    points = np.ascontiguousarray(points)  # in which order sums are rounded decides signs of bases
    seed, draws = settings.seed, settings.draws

    by_theory = functools.partial(
        mc.mean_field_capacity, points, n_t=settings.n_t, seed=seed, threads=threads
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "manifolds .* keep less", RuntimeWarning)
        theory = by_theory(low_rank="package")
    guarded, raw = by_theory(low_rank="guarded"), by_theory(low_rank=False)
    centred = points - points.mean(axis=(0, 2), keepdims=True, dtype=np.float64)
    biased = mc.simulated_capacity(points, draws, seed=seed, threads=threads)
    unbiased = mc.simulated_capacity(centred, draws, bias=False, seed=seed, threads=threads)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "glue: .* not unique")  # stored as a share
        glue = mc.glue(centred, draws, seed=seed, threads=threads)
    values: dict[str, Any] = {
        name: ("manifold", theory[name].astype(np.float32))
        for quantity in ("capacity", "radius", "dimension")
        for name in (quantity, f"{quantity}_se")
    }
    value, error = theory["capacity"], theory["capacity_se"]
    values |= {
        "combined_capacity": float(combined(value)),
        "combined_capacity_se": combined_error(value, error),
        "center_kept": ("manifold", theory["center_kept"].astype(np.float32)),
        "raw_capacity": raw["combined_capacity"],
        "raw_capacity_se": raw["combined_capacity_se"],
        "guarded_capacity": guarded["combined_capacity"],
        "guarded_capacity_se": guarded["combined_capacity_se"],
        "guarded_low_rank_dimension": np.int32(guarded["low_rank_dimension"]),
        "guarded_radius": ("manifold", guarded["radius"].astype(np.float32)),
        "guarded_dimension": ("manifold", guarded["dimension"].astype(np.float32)),
        "glue_ambiguous_share": glue["ambiguous_share"],
        "glue_manifold_dimension": ("manifold", glue["manifold_dimension"].astype(np.float32)),
        "glue_manifold_radius": ("manifold", glue["manifold_radius"].astype(np.float32)),
        **{f"glue_{name}{end}": glue[f"{name}{end}"] for name in GLUE for end in ("", "_se")},
        "center_correlation": theory["center_correlation"],
        "low_rank_dimension": np.int32(theory["low_rank_dimension"]),
        "kkt_residual": max(each["kkt_residual"] for each in (theory, guarded, raw, glue)),
        "undecided": np.int32(biased["undecided"] + unbiased["undecided"]),
        "simulated_features": ("draw", biased["smallest_separable"].astype(np.float32)),
        "unbiased_features": ("draw", unbiased["smallest_separable"].astype(np.float32)),
        "conic_dimensions": ("draw", glue["sq_projection"].astype(np.float32)),
    }
    for name, estimate in (("simulated", biased), ("unbiased", unbiased), ("conic", glue)):
        for end in ("", "_low", "_high"):
            values[f"{name}_capacity{end}"] = estimate[f"capacity{end}"]
    return xr.Dataset(values)


def combined(capacity: NDArray[Any]) -> Array:
    """Return the capacity of all manifolds together, the harmonic mean along the last axis."""
    inverse: Array = np.mean(1 / capacity.astype(np.float64), axis=-1)
    return np.asarray(1 / inverse)


def combined_error(capacity: NDArray[Any], error: NDArray[Any]) -> float:
    """Return the standard error of `combined`, from those of all, shape (P,), independent."""
    value, errors = capacity.astype(np.float64), error.astype(np.float64)
    return float(combined(value) ** 2 * np.sqrt(((errors / value**2) ** 2).sum()) / len(value))


def is_kept(dataset: xr.Dataset) -> NDArray[np.bool_]:
    """True of manifolds of which the package's rule keeps a centre, of one layer or of each.

    The others say little (`manifold_capacity.mean_field_capacity`) and are left out of capacity,
    radius and dimension. True of all where it was not recorded, before 2026-11-25.
    """
    if "center_kept" not in dataset:
        return np.ones(dataset["capacity"].shape, bool)
    return np.asarray(dataset["center_kept"].values >= KEPT)


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
        """True if value and interval are numbers; simulations run out of features."""
        return bool(np.isfinite([self.value, self.low, self.high]).all() and self.low > 0)


ESTIMATORS = {
    "theory": "mean-field theory",
    "guarded": "the same, our rule",
    "raw": "the same, centres' low rank kept",
    "simulated": "simulation with bias",
    "unbiased": "simulation without bias",
    "conic": "conic geometry",
}
"""The capacities of a layer and what they are."""


def estimates(layer: xr.Dataset) -> dict[str, Interval]:
    """Return the capacities of one layer of a dataset by name of `ESTIMATORS`.

    The theory's interval is Monte Carlo's, over Gaussian vectors, for these very manifolds, those
    of `is_kept`. Files from before 2026-11-25 have none by our rule.
    """

    def number(name: str) -> float:
        return float(layer[name])

    kept = is_kept(layer)
    value, error = layer["capacity"].values[kept], layer["capacity_se"].values[kept]
    unknown = Interval(np.nan, np.nan, np.nan)
    intervals = {
        "theory": Interval.of(float(combined(value)), combined_error(value, error))
        if kept.any()
        else unknown,
        "guarded": unknown,
        "raw": Interval.of(number("raw_capacity"), number("raw_capacity_se")),
    }
    if "guarded_capacity" in layer:
        intervals["guarded"] = Interval.of(
            number("guarded_capacity"), number("guarded_capacity_se")
        )
    for name in ("simulated", "unbiased", "conic"):
        ends = [number(f"{name}_capacity{end}") for end in ("", "_low", "_high")]
        intervals[name] = Interval(*ends)
    return intervals


def compared(ratio: Interval) -> str:
    """Return whether two capacities ``"agree"`` or ``"differ"``, by their ratio; or why neither."""
    if not ratio.known:
        return "few features"
    return "agree" if ratio.contains(1.0) else "differ"


@dataclass(frozen=True)
class Row:
    """The capacities of one set of manifolds, and what follows.

    Attributes
    ----------
    name : str
        Network, seed and layer, or the synthetic manifolds.
    capacities : dict of Interval
        By name of `ESTIMATORS`.
    correlation : float
        Of the centres.
    rank : int
        Dimensions removed from the centres, by the package's rule.
    left_out : int
        Manifolds that it leaves hardly a centre, which do not count.
    ball, point : float
        α_Ball(R, D) and α_point(R√D) over the theory's capacity.
    worst : float
        By what share the theory's capacity rises without the manifold of the lowest.
    exact : float
        Capacity in the limit of many manifolds in random directions; NaN where unknown.
    layer : str
    """

    name: str
    capacities: dict[str, Interval]
    correlation: float
    rank: int
    left_out: int
    ball: float
    point: float
    worst: float
    exact: float = float("nan")
    layer: str = ""

    @property
    def theory_to_simulation(self) -> Interval:
        """The paper's comparison (A.4.3): low rank removed, simulation with a bias."""
        return self.capacities["theory"].over(self.capacities["simulated"])

    @property
    def conic_to_simulation(self) -> Interval:
        """Two estimates of one thing, capacity without a bias."""
        return self.capacities["conic"].over(self.capacities["unbiased"])

    @property
    def steps(self) -> dict[str, float]:
        """Factors whose product is the ratio of theory to simulation."""
        value = {name: each.value for name, each in self.capacities.items()}
        return {
            "removing the centres' low rank": value["theory"] / value["raw"],
            "random centres, replica theory": value["raw"] / value["conic"],
            "finite size": value["conic"] / value["unbiased"],
            "the bias": value["unbiased"] / value["simulated"],
        }


def row(name: str, measured: xr.Dataset, exact: float = float("nan")) -> Row:
    """Return the row of one layer, as `measure` gives it or as it is stored."""
    kept = is_kept(measured)
    radius, dimension = measured["radius"].values[kept], measured["dimension"].values[kept]
    capacities = estimates(measured)
    each = np.sort(measured["capacity"].values[kept])
    return Row(
        name,
        capacities,
        float(measured["center_correlation"]),
        int(measured["low_rank_dimension"]),
        int((~kept).sum()),
        float(combined(ball(radius, dimension))) / capacities["theory"].value,
        float(combined(point(radius, dimension))) / capacities["theory"].value,
        float(combined(each[1:]) / combined(each)) - 1,
        exact,
        str(measured["layer"].values) if "layer" in measured.coords else "",
    )


def rows(dataset: xr.Dataset) -> list[Row]:
    """Return a row for each layer of a dataset of kind ``capacity``."""
    layers = [str(layer) for layer in dataset["layer"].values]
    return [row(name, dataset.isel(layer=i)) for i, name in enumerate(layers)]


def network_lines(dataset: xr.Dataset) -> Iterator[str]:
    """Yield the rows of one network for a terminal."""
    yield heading(dataset, dataset.attrs["manifold_kind"])
    yield from table(rows(dataset))
    yield from glue_table(dataset)


def glue_table(dataset: xr.Dataset) -> Iterator[str]:
    """Yield the GLUE measures of each layer, ± a standard error; none if they were not recorded."""
    if "glue_radius" not in dataset:
        return
    words = {"center_alignment": "centres", "axis_alignment": "axes"}
    words |= {"center_axis_alignment": "centre-axis", "approximate_capacity": "approximate"}
    yield f"  {'GLUE':26s}" + "".join(f"{words.get(name, name):>17s}" for name in GLUE)
    for i, layer in enumerate(dataset["layer"].values):
        cells = ""
        for name in GLUE:
            value, error = (float(dataset[f"glue_{name}{end}"][i]) for end in ("", "_se"))
            cell = f"{value:.3f} ± {error:.3f}" if np.isfinite(value) else "–"
            cells += f"{cell:>17s}"
        ambiguous = float(dataset["glue_ambiguous_share"][i])
        yield f"  {layer!s:26s}{cells}" + (f"  {ambiguous:.0%} ambiguous" if ambiguous else "")


def heading(dataset: xr.Dataset, kind: str) -> str:
    """Return a line on the network and the settings behind its rows."""
    sizes, attributes = dataset.sizes, dataset.attrs
    seconds = float(dataset["seconds"].sum() + dataset["seconds_activations"].sum())
    which = int(attributes.get("manifold_exemplar_set", 0))
    exemplars = f" of exemplar set {which + 1}" if which else ""
    return (
        f"{attributes['run']}: {kind} manifolds{exemplars}, P = {sizes['manifold']}, M = "
        f"{attributes['manifold_points']}, {attributes['manifold_n_t']} vectors, "
        f"{sizes['draw']} draws; measured in {seconds:.0f} s"
    )


HEAD = (
    f"  {'':26s}{'ρ':>4s} {'K':>2s} {'out':>3s} {'theory':>6s} {'ours':>6s} {'K = 0':>6s} "
    f"{'simul.':>6s}  "
    f"{'theory / simulation':32s}{'nobias':>6s} {'conic':>6s}  {'conic / no bias':32s}"
    f"{'ball':>5s} {'point':>5s}"
)


def table(some: Iterable[Row], exact: bool = False) -> Iterator[str]:
    """Yield the lines of a table of rows, with the `exact` capacities if asked."""
    yield HEAD + (f" {'exact':>6s}" if exact else "")
    for each in some:
        value = {
            name: f"{shown.value:6.3f}" if np.isfinite(shown.value) else f"{'–':>6s}"
            for name, shown in each.capacities.items()
        }
        end = f" {each.exact:6.3f}" if exact else ""
        by_theory = f"{value['theory']} {value['guarded']} {value['raw']}"
        yield (
            f"  {each.name:26s}{each.correlation:4.2f} {each.rank:2d} {each.left_out or '':>3} "
            f"{by_theory} {value['simulated']}  {_ratio(each.theory_to_simulation)}"
            f"{value['unbiased']} {value['conic']}  {_ratio(each.conic_to_simulation)}"
            f"{each.ball:5.2f} {each.point:5.2f}{end}"
        )


def _ratio(ratio: Interval) -> str:
    numbers = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.known else ""
    return f"{numbers:18s}{compared(ratio):14s}"
