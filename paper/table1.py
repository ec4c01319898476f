"""Table 1: accuracies on CIFAR-10 and CIFAR-100 (the paper's AT is that of epoch 40)."""

import sys

from logit_distributions import store
from paper import selection, tables
from paper.style import printed

PARTS = {"cifar10": "table1", "cifar100": "table1-cifar100"}


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    rows, notes = _half("cifar10")
    try:
        more_rows, more_notes = _half("cifar100")
    except store.Missing as error:
        more_rows, more_notes = [], [f"{printed('cifar100')}: {error}."]
    notes = [tables.method_note(), *notes, *more_notes]
    return tables.Table("table1", ("network", *tables.HEADER), rows + more_rows, notes)


def _half(dataset: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the rows and notes of one data set."""
    reported = tables.reported(PARTS[dataset])
    rows, notes = [], []
    for runs in selection.printed("logits", list(reported), dataset):
        for name, paper in reported.items():
            ours = tables.accuracies(name, runs[name])
            label = f"{printed(dataset)} {paper['label']} ({_epochs(ours.epochs)})"
            rows.append(tables.accuracy_row(label, paper, runs.scale, ours))
        notes.append(
            f"{printed(dataset)}: {tables.scale_note(runs, ours)} Epochs are in the order of seeds."
        )
    return rows, notes


def _epochs(epochs: tuple[int, ...]) -> str:
    """Return the epoch of every seed, or of all, in words."""
    if len(set(epochs)) == 1:
        return f"epoch {epochs[0]}"
    return f"epochs {', '.join(map(str, epochs))}"


if __name__ == "__main__":
    sys.exit(tables.main("table1", make, sys.argv[1:]))
