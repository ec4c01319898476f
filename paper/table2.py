"""Table 2: accuracies of students distilled using manipulated logits, CIFAR-10."""

import sys

import numpy as np

from logit_distributions import store
from paper import selection, tables


def make() -> tables.Table:
    """Return the table from the stored datasets."""
    reported = tables.reported("table2")
    rows, notes = [], [tables.METHOD_NOTE]
    for runs in selection.selections("logits", list(reported)):
        measured = {name: tables.accuracies(name, runs[name]) for name in reported}
        for name, ours in measured.items():
            paper = reported[name]
            rows.append(tables.accuracy_row(paper["label"], paper, runs.scale, ours))
        notes.append(tables.scale_note(runs, ours))
        errors = [
            100 * log.attrs["teacher_training_error"]
            for log in store.need("log", "normal", scale=runs.scale)
            if log.attrs["seed"] in ours.seeds
        ]
        notes.append(
            f"The teacher gets {tables.in_percent(np.array(errors))} % of the training images "
            "wrong (paper: 19.6 ± 0.6)."
        )
        notes.append(_order_note(runs.scale, measured))
    return tables.Table("table2", ("student", *tables.HEADER), rows, notes)


def _order_note(scale: str, measured: dict[str, tables.Accuracies]) -> str:
    """Say whether every seed ranks the students as the paper does."""
    adversarial = np.array([ours.adversarial for ours in measured.values()])
    steps = adversarial[:-1] - adversarial[1:]
    holds = int((steps >= 0).all(axis=0).sum())
    return (
        f"Scale {scale}: adversarial accuracy falls (or stays) from row to row, as in the paper, "
        f"in {holds} of {adversarial.shape[1]} seeds."
    )


if __name__ == "__main__":
    sys.exit(tables.main("table2", make))
