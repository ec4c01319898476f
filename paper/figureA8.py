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
    ("simulated", "theory", "simulated capacity, with bias", "mean-field (MFTMA) capacity"),
    ("unbiased", "conic", "simulated capacity, without bias", "conic capacity"),
)


def make() -> Figure:
    """Return the figure."""
    runs = capacities.networks()
    points = {
        network: [
            (str(layer), capacity.estimates(dataset.sel(layer=layer)))
            for dataset in runs[network]
            for layer in dataset["layer"].values
        ]
        for network in recipes.FIGURE5
    }
    first = runs["at"][0]
    everything = [each for some in points.values() for each in some]
    missing = [layer for layer, of in everything if not of["simulated"].known]
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
    fits = {x: _fit(everything, x, y) for x, y, *_ in PAIRS}
    told = "; ".join(
        f"({letter}) slope {fits[x][0]:.2f}, correlation {fits[x][2]:.2f}, median ratio "
        f"{fits[x][3]:.2f} over {fits[x][4]} points"
        for letter, (x, *_) in zip("AB", PAIRS, strict=True)
    )
    text = f"""
        Figure A.8. (A) Capacity by mean-field theory, low-rank structure of the centres removed as
        in the paper, against simulated capacity; (B) capacity by conic geometry, which assumes
        nothing of the centres, against simulation without a bias. One point per network, seed and
        layer; bars: 95 % intervals of the estimators for these very manifolds
        ({first.attrs["manifold_n_t"]} Gaussian vectors per manifold; {first.sizes["draw"]} draws of
        labels and projection). Dashed: identity; line: least squares: {told}.{gone}
        {capacities.about(runs)}
    """
    figure = style.canvas(8.2, 4.1, text)
    panels = np.asarray(figure.subplots(1, 2))
    for axes, letter, (x, y, xlabel, ylabel) in zip(panels, "AB", PAIRS, strict=True):
        for network, some in points.items():
            _scatter(axes, [of for _, of in some if of[x].known], x, y, network)
        slope, intercept, *_ = fits[x]
        shown = [f[each].value for _, f in everything if f[x].known for each in (x, y)]
        ends = np.array([0.85 * min(shown), 1.1 * max(shown)])
        axes.plot(ends, ends, "--", color="#888888", linewidth=1, zorder=0)
        axes.plot(ends, intercept + slope * ends, "-", color="#333333", linewidth=1, zorder=0)
        axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=xlabel, ylabel=ylabel)
        style.panel(axes, letter, f"{ylabel.replace('(MFTMA) ', '')} against simulation")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=6)
    return figure


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
    points: list[tuple[str, dict[str, capacity.Interval]]], x: str, y: str
) -> tuple[float, float, float, float, int]:
    """Return slope, intercept, correlation, median ratio and number of points."""
    pairs = np.array([(f[x].value, f[y].value) for _, f in points if f[x].known])
    slope, intercept = np.polyfit(pairs[:, 0], pairs[:, 1], 1)
    correlation = float(np.corrcoef(pairs.T)[0, 1])
    ratio = float(np.median(pairs[:, 1] / pairs[:, 0]))
    return float(slope), float(intercept), correlation, ratio, len(pairs)


if __name__ == "__main__":
    sys.exit(style.main("figureA8", make, sys.argv[1:]))
