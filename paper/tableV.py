"""Table V: how far stronger attacks lower adversarial accuracy, on the first test images."""

from __future__ import annotations

import sys

import numpy as np
import xarray as xr

from logit_distributions import plans, store
from paper import selection, tables

ENGINES = {"autoattack-full": "full AutoAttack", "odi": "ODI"}
STAGES = {engine: f"logits/{engine}" for engine in ENGINES}


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    scale = _scale()
    if scale is None:
        scale = selection.select("logits", plans.TABLE2).scale
        store.need(STAGES["autoattack-full"], "at", scale=scale)
    rows, counts = [], set[int]()
    for name in plans.TABLE2:
        attacked = {engine: _pairs(stage, name, scale) for engine, stage in STAGES.items()}
        if any(attacked.values()):
            cells = []
            for some in attacked.values():
                pairs = [_both(main, other) for main, other in some]
                counts |= {other.sizes["sample"] for _, other in some}
                cells += [_points(pairs, place) for place in (0, 1)] + [_fall(pairs)]
            rows.append((selection.label(name), *cells))
    if not rows:
        store.need("logits", "at", scale=scale)
    header = ("network", *(h for e in ENGINES.values() for h in ("main attack", e, "lower by")))
    notes = [
        f"Scale {scale}; adversarial accuracy in percent on the first "
        f"{' or '.join(f'{c:,}' for c in sorted(counts))} test images, seeds as stored; main "
        "attack: APGD-CE, then APGD-DLR, on the same images. Paper: similar results (section 3)."
    ]
    return tables.Table("tableV", header, rows, notes)


def verified() -> list[tuple[xr.Dataset, xr.Dataset]]:
    """Return the datasets of the main attack and of a stronger one, of every cell of the table."""
    scale = _scale()
    return [
        pair
        for stage in STAGES.values()
        for name in plans.TABLE2
        if scale is not None
        for pair in _pairs(stage, name, scale)
    ]


def _scale() -> str | None:
    """Return the first scale of which a network was verified, if there is one."""
    return next(
        (s for s in selection.scales() if any(store.find(e, scale=s) for e in STAGES.values())),
        None,
    )


def _pairs(stage: str, name: str, scale: str) -> list[tuple[xr.Dataset, xr.Dataset]]:
    """Return a network under the main attack and another, for each seed that has both."""
    main = {int(each.attrs["seed"]): each for each in store.find("logits", name, scale=scale)}
    others = store.find(stage, name, scale=scale)
    return [(main[d.attrs["seed"]], d) for d in others if d.attrs["seed"] in main]


def _both(main: xr.Dataset, other: xr.Dataset) -> tuple[float, float]:
    """Return adversarial accuracy under the main attack and another, on the other's images."""
    here = np.isin(main["index"].values, other["index"].values)
    return (
        100 * float(main["robust"].values[-1, here].mean()),
        100 * float(other["robust"].values[-1].mean()),
    )


def _points(pairs: list[tuple[float, float]], place: int) -> str:
    return f"{np.mean([pair[place] for pair in pairs]):.2f}" if pairs else "–"


def _fall(pairs: list[tuple[float, float]]) -> str:
    return f"{np.mean([first - second for first, second in pairs]):.2f}" if pairs else "–"


if __name__ == "__main__":
    sys.exit(tables.main("tableV", make, sys.argv[1:]))
