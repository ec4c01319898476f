"""Table 1: accuracies of standard and adversarially trained networks."""

import sys

from paper import selection, tables
from paper.style import title

PARTS = {"cifar10": "table1", "cifar100": "table1-cifar100"}


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    rows, notes = [], [tables.METHOD_NOTE]
    for dataset, part in PARTS.items():
        if dataset != "cifar10" and not selection.scales(dataset=dataset):
            command = f"logitdist run table1 --dataset {dataset}"
            notes.append(f"{title(dataset)}: not stored yet; make it with '{command}'.")
            continue
        more_rows, more_notes = _half(dataset, part)
        rows += more_rows
        notes += more_notes
    text = "Table 1: accuracies on CIFAR-10 and CIFAR-100 (the paper's AT is that of epoch 40)"
    return tables.Table("table1", text, ("network", *tables.HEADER), rows, notes)


def _half(dataset: str, part: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows and notes of one data set."""
    rows, notes = [], []
    for scale in selection.scales(dataset=dataset) or ["small"]:
        measured = {}
        for name, paper in tables.reported(part).items():
            measured[paper["label"]] = ours = tables.accuracies("table1", scale, name, dataset)
            epochs = "/".join(map(str, dict.fromkeys(ours.epochs)))
            label = f"{title(dataset)} {paper['label']} (epoch {epochs})"
            rows.append(tables.accuracy_row(label, paper, scale, ours))
        notes.append(f"{title(dataset)}: {tables.scale_note(scale, measured)}")
    return rows, notes


if __name__ == "__main__":
    sys.exit(tables.main("table1", make))
