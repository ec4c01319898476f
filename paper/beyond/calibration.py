"""Calibration and selective prediction: confidence, accuracy, and what abstaining is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from logit_distributions import choice, recipes, store
from logit_distributions.read import calibration as cal
from logit_distributions.read import distribution
from paper import selection, style, tables

IMAGES = {"natural": "logits", "attacked": "adversarial_logits"}
DASHES = {"max logit": ":", "softmax": "-", "gap": "--"}


def networks() -> tuple[selection.Selection, dict[str, xr.Dataset]]:
    """Return the scale that readers prefer of the teachers, and its networks' first seeds.

    Raises
    ------
    Missing
        If no scale has both teachers.
    """
    runs = selection.select("logits", recipes.TEACHERS)
    names = (*recipes.TABLE2, *recipes.CONTROLS, *choice.regularizers(runs.scale))
    stored = {name: store.find("logits", name, scale=runs.scale) for name in names}
    return runs, {name: some[0] for name, some in stored.items() if some}


def table() -> tables.Table:
    """Return calibration and the worth of abstaining, of natural and attacked images."""
    runs, by_name = networks()
    rows = [_row(name, data, kind) for kind in IMAGES for name, data in by_name.items()]
    notes = [
        f"{runs.setting()}; each network's first seed, all images that it was attacked on. In "
        "percent. ECE: expected calibration error, 15 bins, with a basic bootstrap interval over "
        "images. T: temperature fitted on every second image; ECE of the others before and after. "
        "Area: mean share of errors over all coverages when the network answers those images of "
        "which it is surest by that score; last: errors among all. Attacked: the strongest "
        "adversarial image, or the image itself where that is misclassified already."
    ]
    areas = tuple(f"area, {name}" for name in cal.SCORES)
    header = ("network", "images", "ECE", "95 % interval", "T", "before", "after", *areas, "errors")
    return tables.Table("beyond.calibration", header, rows, notes)


def _row(name: str, data: xr.Dataset, kind: str) -> tuple[str, ...]:
    logits, labels = data[IMAGES[kind]].values, data["label"].values
    read, hits = cal.calibration(logits, labels), distribution.is_correct(logits, labels)
    areas = [cal.risk_area(score(logits), hits) for score in cal.SCORES.values()]
    return (
        selection.label(name),
        kind,
        f"{100 * read.error:.1f}",
        f"[{100 * read.low:.1f}, {100 * read.high:.1f}]",
        f"{read.temperature:.2f}",
        f"{100 * read.before:.1f}",
        f"{100 * read.after:.1f}",
        *(f"{100 * area:.1f}" for area in areas),
        f"{100 * (1 - hits.mean()):.1f}",
    )


def figure() -> Figure:
    """Return reliability of ST and AT, and risk against coverage by three scores."""
    runs, by_name = networks()
    shown = {name: by_name[name] for name in recipes.TEACHERS}
    best = "; ".join(
        f"{selection.label(name)}, {kind}: {_best(data, kind)}"
        for kind in IMAGES
        for name, data in shown.items()
    )
    drawing = style.canvas(
        7.2,
        2.6,
        f"""
        Calibration and selective prediction. {runs.setting()}; the first seed of ST and AT. A:
        accuracy against mean confidence in 15 bins of the largest softmax value, natural images;
        area of a point: share of the images; on the line a network is as often right as it says. B
        and C: share of errors among the images that are answered, the surest first, by three
        scores, of natural images and under attack. Smallest area: {best}.
        """,
    )
    left, *others = drawing.subplots(1, 3)
    left.plot((0, 1), (0, 1), color=style.GREY, lw=0.8)
    for name, data in shown.items():
        colour = style.COLOURS[name]
        logits, labels = data["logits"].values, data["label"].values
        sure, right, count = cal.reliability(
            cal.confidence(logits), distribution.is_correct(logits, labels)
        )
        area = 200 * count / count.sum()
        left.scatter(sure, right, s=area, color=colour, alpha=0.8, lw=0, label=name.upper())
        for axes, kind in zip(others, IMAGES, strict=True):
            _risks(axes, data, kind, colour)
    left.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    left.legend(fontsize=7, markerscale=0.7)
    for score, dash in DASHES.items():
        others[0].plot([], [], color="black", ls=dash, label=score)
    others[0].legend(fontsize=7)
    for axes, letter, title in zip(
        (left, *others), "ABC", ("reliability", "natural images", "attacked images"), strict=True
    ):
        style.panel(axes, letter, title)
    return drawing


def _risks(axes: Any, data: xr.Dataset, kind: str, colour: str) -> None:
    logits = data[IMAGES[kind]].values
    hits = distribution.is_correct(logits, data["label"].values)
    for name, score in cal.SCORES.items():
        coverage, risk = cal.risk_coverage(score(logits), hits)
        few = np.unique(np.linspace(0, len(coverage) - 1, 300).astype(int))
        axes.plot(coverage[few], risk[few], color=colour, ls=DASHES[name], lw=1)
    axes.set(xlabel="coverage", ylabel="errors among answers", xlim=(0, 1), ylim=(0, 1))


def _best(data: xr.Dataset, kind: str) -> str:
    """Return the score with the smallest area under risk against coverage."""
    logits = data[IMAGES[kind]].values
    hits = distribution.is_correct(logits, data["label"].values)
    if not hits.any():
        return "none, as all answers are errors"
    return min(cal.SCORES, key=lambda name: cal.risk_area(cal.SCORES[name](logits), hits))
