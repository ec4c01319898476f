"""The capacities of stored manifolds, layer by layer, as rows of a table. No torch.

Rule for a row: two capacities agree if 1 is in the 95 % interval of their ratio, else they differ.
Where not even all features separate half of the dichotomies, or hardly so, nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from logit_distributions import capacity
from logit_distributions.capacity import Interval, estimates


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
        By name of `capacity.ESTIMATORS`.
    correlation : float
        Of the centres.
    rank : int
        Dimensions removed from the centres.
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
        value = {name: found.value for name, found in self.capacities.items()}
        return {
            "removing the centres' low rank": value["theory"] / value["raw"],
            "random centres, replica theory": value["raw"] / value["conic"],
            "finite size": value["conic"] / value["unbiased"],
            "the bias": value["unbiased"] / value["simulated"],
        }


def row(name: str, measured: xr.Dataset, exact: float = float("nan")) -> Row:
    """Return the row of one layer, as `capacity.measure` gives it or as it is stored."""
    radius, dimension = measured["radius"].values, measured["dimension"].values
    found = estimates(measured)
    each = np.sort(measured["capacity"].values)
    return Row(
        name,
        found,
        float(measured["center_correlation"]),
        int(measured["low_rank_dimension"]),
        float(capacity.combined(capacity.ball(radius, dimension))) / found["theory"].value,
        float(capacity.combined(capacity.point(radius, dimension))) / found["theory"].value,
        float(capacity.combined(each[1:]) / capacity.combined(each)) - 1,
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


def heading(dataset: xr.Dataset, kind: str) -> str:
    """Return a line on the network and the settings behind its rows."""
    sizes, attributes = dataset.sizes, dataset.attrs
    seconds = float(dataset["seconds"].sum() + dataset["seconds_activations"].sum())
    return (
        f"{attributes['run']}: {kind} manifolds, P = {sizes['manifold']}, M = "
        f"{attributes['manifold_points']}, {attributes['manifold_n_t']} vectors, "
        f"{sizes['draw']} draws; measured in {seconds:.0f} s"
    )


HEAD = (
    f"  {'':26s}{'ρ':>4s} {'K':>2s} {'theory':>6s} {'K = 0':>6s} {'simul.':>6s}  "
    f"{'theory / simulation':32s}{'nobias':>6s} {'conic':>6s}  {'conic / no bias':32s}"
    f"{'ball':>5s} {'point':>5s}"
)


def table(some: Iterable[Row], exact: bool = False) -> Iterator[str]:
    """Yield the lines of a table of rows, with the `exact` capacities if asked."""
    yield HEAD + (f" {'exact':>6s}" if exact else "")
    for each in some:
        value = {name: f"{found.value:6.3f}" for name, found in each.capacities.items()}
        end = f" {each.exact:6.3f}" if exact else ""
        yield (
            f"  {each.name:26s}{each.correlation:4.2f} {each.rank:2d} {value['theory']} "
            f"{value['raw']} {value['simulated']}  {_ratio(each.theory_to_simulation)}"
            f"{value['unbiased']} {value['conic']}  {_ratio(each.conic_to_simulation)}"
            f"{each.ball:5.2f} {each.point:5.2f}{end}"
        )


def _ratio(ratio: Interval) -> str:
    numbers = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.known else ""
    return f"{numbers:18s}{compared(ratio):14s}"
