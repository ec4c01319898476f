"""Table S: Tables 1 and 2 at every scale beside the paper, and what moves towards it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise

from logit_distributions import recipes, store
from paper import selection, tables
from paper.style import printed

PARTS = {"table1": "cifar10", "table1-cifar100": "cifar100", "table2": "cifar10"}
KINDS = ("natural", "adversarial")
UNCHANGED = 1.0
"""Points below which a change between scales counts as none."""


@dataclass(frozen=True)
class Row:
    """A network: what the paper prints of it, and its accuracies by scale."""

    label: str
    paper: dict[str, float]
    by_scale: dict[str, tables.Accuracies]

    def cell(self, kind: str, scale: str) -> str:
        """Return an accuracy at a scale as ``mean ± sd``."""
        ours = self.by_scale.get(scale)
        return "–" if ours is None else tables.in_percent(getattr(ours, kind))

    def distance(self, kind: str, scale: str) -> float:
        """Return how far an accuracy is from the paper's, in points."""
        return abs(float(getattr(self.by_scale[scale], kind).mean()) - self.paper[kind])


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    measured = _rows()
    if not any(row.by_scale for row in measured):
        store.need("logits", recipes.TEACHERS[0], scale=selection.scales()[-1])
    scales = [
        scale
        for scale in reversed(selection.scales())
        if any(scale in row.by_scale for row in measured)
    ]
    header = ("network", *(f"{kind}: {each}" for kind in KINDS for each in (*scales, "the paper")))
    rows = [
        (
            row.label,
            *(
                cell
                for kind in KINDS
                for cell in (
                    *(row.cell(kind, scale) for scale in scales),
                    f"{row.paper[kind]:.2f}",
                )
            ),
        )
        for row in measured
    ]
    notes = [
        "In percent, mean ± sd over all stored seeds.",
        *(_described(scale) for scale in scales),
    ]
    notes += [_movement(measured, *both) for both in pairwise(scales)]
    if len(scales) == 1:
        notes.append(f"Only scale {scales[0]} is stored: how numbers move with scale is not known.")
    return tables.Table("tableS", header, rows, notes)


def _rows() -> list[Row]:
    return [
        Row(
            f"{printed(dataset)} {paper['label']}",
            {kind: paper[kind][0] for kind in KINDS},
            {
                scale: tables.accuracies(name, datasets)
                for scale in selection.scales()
                if (datasets := store.find("logits", name, dataset, scale))
            },
        )
        for part, dataset in PARTS.items()
        for name, paper in tables.reported(part).items()
    ]


def _described(scale: str) -> str:
    of = recipes.SCALES[scale]
    return f"Scale {scale}: ResNet-18 of width {of.width}, {of.epochs} epochs."


def _movement(rows: list[Row], smaller: str, larger: str) -> str:
    """Return which numbers move towards the paper between two scales, and which do not."""
    groups: dict[str, list[str]] = {"towards the paper": [], "away": [], "neither": []}
    for row in rows:
        if {smaller, larger} <= row.by_scale.keys():
            for kind in KINDS:
                nearer = row.distance(kind, smaller) - row.distance(kind, larger)
                far = "towards the paper" if nearer > 0 else "away"
                groups["neither" if abs(nearer) < UNCHANGED else far].append(f"{row.label} {kind}")
    count = sum(map(len, groups.values()))
    if not count:
        return f"No network is stored at both {smaller} and {larger}."
    named = "; ".join(
        f"{len(some)} {where} ({', '.join(some)})" for where, some in groups.items() if some
    )
    return (
        f"From {smaller} to {larger}, of {count} numbers: {named}; by {UNCHANGED:g} point or more, "
        "else neither."
    )


if __name__ == "__main__":
    sys.exit(tables.main("tableS", make, sys.argv[1:]))
