"""Distances, not only verdicts: the radius that a gap and its slope predict, and the true one."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes
from logit_distributions.read import ranking
from paper import selection, style, tables
from paper.beyond.masking import stored


def predicted(data: xr.Dataset) -> NDArray[np.float64]:
    """Return the gap over the L1 norm of its gradient, in 255ths: a radius to first order."""
    slope = data["gradient_l1"].values.astype(np.float64)
    with np.errstate(divide="ignore"):
        ratio: NDArray[np.float64] = 255 * data["gap"].values / slope
    return ratio


def radius(data: xr.Dataset) -> NDArray[np.float64]:
    """Return the smallest radius of a successful attack, in 255ths; infinite beyond the largest."""
    values = 255 * data["radius"].values.astype(np.float64)
    return np.where(np.isnan(values), np.inf, values)


def table() -> tables.Table:
    """Return medians of gap, slope and both radii, over what each network classifies correctly."""
    scale, datasets = stored("distances")
    rows: list[tuple[str, ...]] = []
    for name, data in datasets.items():
        right = data["natural"].values
        ours, slope = radius(data)[right], predicted(data)[right]
        rank = ranking.rank_correlation(slope, np.minimum(ours, 1e6))
        rows.append(
            (
                selection.label(name),
                f"{right.sum():,}",
                f"{np.median(data['gap'].values[right]):.2f}",
                f"{np.median(data['gradient_l1'].values[right]):.1f}",
                f"{np.median(slope):.2f}",
                f"{np.median(ours):.2f}",
                f"{np.median(ours / slope):.2f}",
                f"{rank:+.2f}",
            )
        )
    first = next(iter(datasets.values()))
    notes = [
        f"Scale {scale}, seed 0; medians over those of the first {first.sizes['sample']:,} test "
        "images that each network classifies correctly. Gap: largest minus second largest logit; "
        "slope: L1 norm of its gradient in the pixels, of range 1; predicted: their ratio, in "
        "255ths; radius: smallest Linf ball in which APGD-CE, then APGD-DLR succeeds, bisected to "
        "0.25/255; rank correlation of the last two (Spearman).",
    ]
    absent = [name for name in recipes.TABLE2 if name not in datasets]
    if absent:
        notes.append(
            f"Not stored yet: {', '.join(map(selection.label, absent))}; make them with "
            f"'logitdist make distances --scale {scale}'."
        )
    header = (
        "network", "images", "gap", "slope", "predicted", "radius", "radius / predicted",
        "rank correlation",
    )  # fmt: skip
    return tables.Table("beyond.distances", header, rows, notes)


def figure() -> Figure:
    """Return predicted against measured radii, AT beside ST, and what the prediction is made of."""
    scale, datasets = stored("distances")
    shown = {name: datasets[name] for name in ("at", "st") if name in datasets} or dict(
        list(datasets.items())[:1]
    )
    medians = "; ".join(
        f"{selection.label(name)}: gap {np.median(data['gap'].values[right]):.2f}, slope "
        f"{np.median(data['gradient_l1'].values[right]):.1f}, radius "
        f"{np.median(radius(data)[right]):.2f}/255"
        for name, data in shown.items()
        for right in [data["natural"].values]
    )
    count = next(iter(shown.values())).sizes["sample"]
    drawing = style.canvas(
        7.2,
        2.6,
        f"""
        Distances. Scale {scale}, seed 0; what each network classifies correctly of the first
        {count:,} test images. A: radius that the gap and its slope predict against the smallest one
        at which the attack succeeds; on the line they agree, below it the gap closes earlier than
        its slope says. B: logit gaps. C: L1 norms of their gradients. A network may be robust
        with smaller gaps where the slope is smaller still. Medians: {medians}.
        """,
    )
    plane, gaps, slopes = drawing.subplots(1, 3)
    for name, data in shown.items():
        right = data["natural"].values
        colour, label = style.COLOURS.get(name, style.GREEN), selection.label(name)
        held = np.isfinite(radius(data)[right])
        plane.scatter(
            predicted(data)[right][held], radius(data)[right][held], s=4, alpha=0.4, lw=0,
            color=colour, label=label,
        )  # fmt: skip
    for axes, variable in ((gaps, "gap"), (slopes, "gradient_l1")):
        values = {n: data[variable].values[data["natural"].values] for n, data in shown.items()}
        every = np.maximum(np.concatenate(list(values.values())), 1e-3)
        edges = np.geomspace(every.min(), 1.001 * every.max(), 41)
        for name, some in values.items():
            axes.hist(some, edges, histtype="step", color=style.COLOURS.get(name, style.GREEN))
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    ends = np.array(plane.get_xlim())
    plane.plot(ends.clip(0.25), ends.clip(0.25), color=style.GREY, lw=0.8)
    plane.set(xscale="log", yscale="log", xlabel="gap / slope (/255)", ylabel="radius (/255)")
    gaps.set(xlabel="logit gap", ylabel="images")
    slopes.set(xlabel="slope (L1)")
    plane.legend(markerscale=2, fontsize=7)
    for axes, letter, title in zip(
        (plane, gaps, slopes), "ABC", ("radius", "gap", "slope"), strict=True
    ):
        style.panel(axes, letter, title)
    return drawing
