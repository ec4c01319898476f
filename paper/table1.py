"""Table 1: accuracies of standard and adversarially trained networks."""

import sys

from paper import stored, tables


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    rows, notes = [], [tables.METHOD_NOTE]
    for scale in stored.scales() or ["small"]:
        measured = {}
        for name, paper in tables.reported("table1").items():
            measured[paper["label"]] = ours = tables.accuracies("table1", scale, name)
            epochs = "/".join(map(str, dict.fromkeys(ours.epochs)))
            label = f"{paper['label']} (epoch {epochs})"
            rows.append(tables.accuracy_row(label, paper, scale, ours))
        notes.append(tables.scale_note(scale, measured))
    title = "Table 1: accuracies on CIFAR-10 (the paper's AT network is that of epoch 40)"
    return tables.Table("table1", title, ("network", *tables.HEADER), rows, notes)


if __name__ == "__main__":
    sys.exit(tables.main("table1", make))
