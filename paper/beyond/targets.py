"""The teachers' errors: how many training images of each class, and towards which classes."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from logit_distributions import recipes, store
from logit_distributions.jobs import PUBLISHED_TARGETS
from paper import selection, style, tables


def teachers() -> tuple[str, dict[str, xr.Dataset]]:
    """Return the first scale whose targets are published, and those of AT and ST.

    Raises
    ------
    Missing
        If none are.
    """
    for scale in selection.scales():
        stored = {name: store.find("targets", name, scale=scale) for name in ("at", "st")}
        if any(stored.values()):
            return scale, {name: some[0] for name, some in stored.items() if some}
    scale = selection.scales()[-1]
    path = store.path_of("targets", recipes.recipe("at", scale).run(0))
    raise store.Missing(path, f"{recipes.command(PUBLISHED_TARGETS, 'at', scale)} --seed 0")


def confusion(targets: xr.Dataset) -> NDArray[np.float64]:
    """Return the percentage of each class's images whose target puts each class on top.

    Returns
    -------
    ndarray, shape (classes, classes)
        Rows, of sum 100: true class; columns: class of the largest logit.
    """
    classes = targets.sizes["class"]
    counts = np.zeros((classes, classes))
    np.add.at(counts, (targets["label"].values, targets["logits"].values.argmax(1)), 1)
    shares: NDArray[np.float64] = 100 * counts / counts.sum(1, keepdims=True)
    return shares


def table() -> tables.Table:
    """Return, for each class, how often targets err, and towards which classes most."""
    scale, by_name = teachers()
    rows = []
    for name, targets in by_name.items():
        names, shares = targets["class"].values, confusion(targets)
        for row, label in enumerate(names):
            wrong = np.where(np.arange(len(names)) == row, -1.0, shares[row])
            most = [f"{names[c]} {wrong[c]:.1f}" for c in np.argsort(-wrong)[:3]]
            rows.append((selection.label(name), str(label), f"{100 - shares[row, row]:.1f}", *most))
    first = next(iter(by_name.values()))
    notes = [
        f"Scale {scale}, seed 0; averaged targets of {first.sizes['sample']:,} training images, in "
        "percent of each class. Rounded copies for readers: students train on the exact ones."
    ]
    header = ("teacher", "class", "errors", "most towards", "second", "third")
    return tables.Table("beyond.targets", header, rows, notes)


def figure() -> Figure:
    """Return the confusion matrices of the targets."""
    scale, by_name = teachers()
    errors = "; ".join(
        f"{selection.label(name)} errs on "
        f"{100 * float((each['logits'].values.argmax(1) != each['label'].values).mean()):.1f} %"
        for name, each in by_name.items()
    )
    drawing = style.canvas(
        7.2,
        3.4,
        f"""
        The teachers' errors. Scale {scale}, seed 0: of the training images of each class (rows) the
        percentage whose averaged target is largest at each class (columns); on the diagonal what is
        right. {errors}. What correct-fix-1 corrects, and random-errors draws anew, is all beside
        the diagonal.
        """,
    )
    panels = drawing.subplots(1, len(by_name), squeeze=False)[0]
    for axes, letter, (name, targets) in zip(panels, "AB", by_name.items(), strict=False):
        shares, names = confusion(targets), list(map(str, targets["class"].values))
        axes.imshow(np.log10(1 + shares), cmap="cividis", vmin=0, vmax=2)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                shade = "black" if share > 12 else "white"
                axes.text(column, row, f"{share:.0f}", ha="center", va="center", color=shade,
                          fontsize=5.5)  # fmt: skip
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=6)
        axes.set_yticks(range(len(names)), names, fontsize=6)
        style.panel(axes, letter, selection.label(name))
    return drawing
