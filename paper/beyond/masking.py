"""Is it gradient masking? What stronger, weaker and gradient-free attacks find on each network."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from logit_distributions import choice, recipes, store
from logit_distributions.read.masking import Masking, masking
from paper import selection, style, tables

PALETTE = (
    style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, "#56b4e9", "#e69f00", style.GREY, "black",
)  # fmt: skip


def compared(scale: str) -> tuple[str, ...]:
    """Return Table 2's networks and the regularizers that validation chose."""
    return (*recipes.TABLE2, *choice.regularizers(scale))


def stored(stage: str) -> tuple[str, dict[str, xr.Dataset]]:
    """Return the first scale of which a stage is stored, and its datasets by recipe.

    Of Table 2's networks and the chosen regularizers, of the first seed.

    Raises
    ------
    Missing
        If there is none.
    """
    for scale in selection.scales():
        datasets = {
            name: some[0]
            for name in compared(scale)
            if (some := store.find(stage, name, scale=scale))
        }
        if datasets:
            return scale, datasets
    name, scale = recipes.TEACHERS[0], selection.scales()[-1]
    return scale, {name: store.need(stage, name, scale=scale)[0]}  # which there is none of


def readings() -> tuple[str, dict[str, Masking]]:
    """Return the scale, and what the checks read of each network."""
    scale, datasets = stored("masking")
    return scale, {
        name: masking(data, {n: other for n, other in datasets.items() if n != name})
        for name, data in datasets.items()
    }


def table() -> tables.Table:
    """Return what each check finds of each network, and a sentence on it."""
    scale, by_name = readings()
    rows = [_row(name, read) for name, read in by_name.items()]
    _, datasets = stored("masking")
    images = next(iter(datasets.values())).sizes["sample"]
    notes = [
        f"Scale {scale}, seed 0, first {images:,} test images, in percent of them; APGD-CE then "
        "APGD-DLR, Linf 8/255, 100 iterations, one start, but for what a column varies; Square "
        "alone: 5,000 queries. A sign is a difference of more than 1 % of the images, or that the "
        "first loss alone leaves more than twice as much and 5 points more.",
        *(read.sentence(selection.label(name)) for name, read in by_name.items()),
    ]
    if absent := _absent(scale, by_name):
        notes.append(f"{absent}; make them with 'logitdist make masking --scale {scale}'.")
    header = (
        "network", "natural", "8/255", "64/255", "500 iterations", "5 restarts", "Square alone",
        "only Square", "only others'", "CE alone", "no gradient", "signs",
    )  # fmt: skip
    return tables.Table("beyond.masking", header, rows, notes)


def _row(name: str, read: Masking) -> tuple[str, ...]:
    numbers = (
        read.natural, read.accuracy, read.by_eps[max(read.by_eps)],
        read.by_iterations[max(read.by_iterations)], read.by_restarts[max(read.by_restarts)],
        read.square, read.only_square, max(read.only_others.values(), default=0.0), read.one_loss,
        read.no_gradient,
    )  # fmt: skip
    cells = (f"{number:.1f}" for number in numbers)
    return (selection.label(name), *cells, ", ".join(read.signs) or "none")


def _absent(scale: str, by_name: dict[str, Masking]) -> str:
    """Return which networks are not stored yet, in words; an empty string if all are."""
    names = [name for name in compared(scale) if name not in by_name]
    return f"Not stored yet: {', '.join(map(selection.label, names))}" if names else ""


def figure() -> Figure:
    """Return accuracy against radius and iterations, and the transfer of adversarial images."""
    scale, by_name = readings()
    _, datasets = stored("masking")
    masked = [selection.label(name) for name, read in by_name.items() if read.signs]
    verdict = f"Signs of masked gradients: {', '.join(masked) if masked else 'on none of them'}."
    if absent := _absent(scale, by_name):
        verdict += f" {absent}."
    drawing = style.canvas(
        7.2,
        2.9,
        f"""
        Is it gradient masking? Scale {scale}, seed 0, first
        {next(iter(datasets.values())).sizes["sample"]:,} test images. A: accuracy against the
        attack's radius, which must fall to 0 and never rise. B: against its iterations in the ball
        of 8/255, which must be flat at the end; crosses: Square alone, which needs no gradient and
        must not be below. C: accuracy (%) of each column's network on the adversarial images of
        each row's; on the diagonal its own, which must be the smallest of their column. {verdict}
        """,
    )
    left, middle, right = drawing.subplots(1, 3, width_ratios=(1, 1, 1.25))
    for colour, (name, read) in zip(PALETTE, by_name.items(), strict=False):
        by_eps = {0.0: read.natural, **read.by_eps}
        shown = {"color": colour, "marker": "o", "ms": 2.5, "lw": 1}
        label = selection.label(name)
        left.plot([eps + 0.5 for eps in by_eps], list(by_eps.values()), label=label, **shown)
        middle.plot(list(read.by_iterations), list(read.by_iterations.values()), **shown)
        middle.plot(max(read.by_iterations), read.square, color=colour, marker="x", ls="")
    left.set_xscale("log")
    ticks = (0, 1, 4, 16, 64)
    left.set_xticks([tick + 0.5 for tick in ticks], [str(tick) for tick in ticks])
    left.minorticks_off()
    left.set(xlabel="radius (/255)", ylabel="accuracy (%)", ylim=(0, None))
    middle.set(xscale="log", xlabel="iterations of APGD", ylim=(0, None))
    _transfer(right, datasets, by_name)
    for axes, letter, title in zip(
        (left, middle, right), "ABC", ("radius", "iterations", "transfer"), strict=True
    ):
        style.panel(axes, letter, title)
    drawing.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7
    )
    return drawing


def _transfer(axes: Any, datasets: dict[str, xr.Dataset], by_name: dict[str, Masking]) -> None:
    names = list(datasets)
    matrix = np.full((len(names), len(names)), np.nan)
    for row, (source, data) in enumerate(datasets.items()):
        for column, target in enumerate(names):
            if source == target:
                matrix[row, column] = by_name[source].accuracy
            elif target in data["target"].values:
                right = data["transferred"].sel(target=target).values
                matrix[row, column] = 100 * right.mean()
    axes.imshow(matrix, cmap="cividis", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            shade = "black" if value > 55 else "white"
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", color=shade, fontsize=6
            )
    labels = [selection.label(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=60, ha="right", fontsize=6)
    axes.set_yticks(range(len(names)), labels, fontsize=6)
