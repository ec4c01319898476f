"""Figure A.8: capacity by mean-field theory and conic geometry against simulated capacity."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes
from logit_distributions.read import capacity
from paper import capacities, style

PAIRS = (
    ("simulated", "theory", "simulated, with bias", "mean-field (MFTMA) capacity"),
    ("simulated", "guarded", "simulated, with bias", "mean-field capacity, our rule"),
    ("unbiased", "conic", "simulated, without bias", "conic capacity"),
)


def make() -> Figure:
    """Return the figure."""
    runs = capacities.networks()
    points = {
        network: [
            (str(layer), capacity.estimates(dataset.sel(layer=layer)))
            for dataset in (*runs[network], *capacities.other_exemplars(runs, network))
            for layer in dataset["layer"].values
        ]
        for network in recipes.FIGURE5
    }
    first = runs["at"][0]
    everything = [of for some in points.values() for _, of in some]
    missing = [layer for some in points.values() for layer, of in some if not of["simulated"].known]
    without = ", ".join(dict.fromkeys(missing))
    gone = (
        f" Not shown: {len(missing)} network-layers ({without}) whose features are too few to "
        "separate half of the dichotomies, or hardly enough."
        if missing
        else ""
    )
    low = [
        f"{capacities.name(network)} {layer}"
        for network, some in points.items()
        for layer, of in some
        if of["simulated"].known and of["theory"].value < 0.8 * of["simulated"].value
    ]
    if low:
        gone += f" In A more than 20 % below the identity: {', '.join(dict.fromkeys(low))}."
    shown = [pair for pair in PAIRS if any(_known(of, pair) for of in everything)]
    fits = [_fit([of for of in everything if _known(of, pair)], *pair[:2]) for pair in shown]
    told = "; ".join(
        f"({letter}) slope {fit[0]:.2f}, correlation {fit[2]:.2f}, median ratio "
        f"{fit[3]:.2f} over {fit[4]} points"
        for letter, fit in zip("ABC", fits, strict=False)
    )
    text = f"""
        Figure A.8. (A) Capacity by mean-field theory, low-rank structure of the centres removed as
        in the paper, against simulated capacity; (B) the same by our rule, which guards every
        centre; (C) capacity by conic geometry, which assumes nothing of the centres, against
        simulation without a bias. One point per network, seed, set of exemplars and
        layer; bars: 95 % intervals of the estimators for these very manifolds
        ({first.attrs["manifold_n_t"]} Gaussian vectors per manifold; {first.sizes["draw"]} draws of
        labels and projection). Dashed: identity; line: least squares: {told}.{gone}
        {capacities.about(runs)}
    """
    figure = style.canvas(8.2, 3.3, text)
    panels = figure.subplots(1, len(PAIRS))
    for axes, letter, pair in zip(panels, "ABC", PAIRS, strict=True):
        x, y, xlabel, ylabel = pair
        axes.set(xlabel=xlabel, ylabel=ylabel)
        style.panel(axes, letter, "")
        if pair not in shown:
            continue
        for network, some in points.items():
            _scatter(axes, [of for _, of in some if _known(of, pair)], x, y, network)
        slope, intercept, *_ = fits[shown.index(pair)]
        values = [of[each].value for of in everything if _known(of, pair) for each in (x, y)]
        ends = np.array([0.85 * min(values), 1.1 * max(values)])
        axes.plot(ends, ends, "--", color="#888888", linewidth=1, zorder=0)
        axes.plot(ends, intercept + slope * ends, "-", color="#333333", linewidth=1, zorder=0)
        axes.set(xlim=ends, ylim=ends, aspect="equal")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6)
    return figure


def _known(estimates: dict[str, capacity.Interval], pair: tuple[str, str, str, str]) -> bool:
    """True of a layer that has both capacities of a pair."""
    return estimates[pair[0]].known and np.isfinite(estimates[pair[1]].value)


def _scatter(
    axes: Any, estimates: list[dict[str, capacity.Interval]], x: str, y: str, network: str
) -> None:
    def bars(name: str) -> NDArray[np.float64]:
        return np.array(
            [[f[name].value - f[name].low, f[name].high - f[name].value] for f in estimates]
        ).T

    axes.errorbar(
        [f[x].value for f in estimates], [f[y].value for f in estimates], bars(y), bars(x),
        fmt="o" if network in capacity.ROBUST else "s", color=capacities.COLOURS[network],
        markersize=4, elinewidth=0.7, alpha=0.8, label=capacities.name(network),
    )  # fmt: skip


def _fit(
    points: list[dict[str, capacity.Interval]], x: str, y: str
) -> tuple[float, float, float, float, int]:
    """Return slope, intercept, correlation, median ratio and number of points."""
    pairs = np.array([(of[x].value, of[y].value) for of in points])
    slope, intercept = np.polyfit(pairs[:, 0], pairs[:, 1], 1)
    correlation = float(np.corrcoef(pairs.T)[0, 1])
    ratio = float(np.median(pairs[:, 1] / pairs[:, 0]))
    return float(slope), float(intercept), correlation, ratio, len(pairs)


if __name__ == "__main__":
    sys.exit(style.main("figureA8", make, sys.argv[1:]))
