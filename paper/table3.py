"""Table 3: training time on CIFAR-10."""

import json
import sys

import numpy as np

from logit_distributions import store
from paper import selection, tables

NETWORKS = ("st", "at", "normal")
"""One of each method, without which a scale has no row of it; all runs of the method count."""


def make() -> tables.Table:
    """Return the table from the stored training logs."""
    rows: list[tuple[str, ...]] = []
    notes = [
        "Hours of training steps alone, mean ± sd over runs: without validation and without making "
        "targets (the paper's distillation has its teacher in the loop), on a machine that did "
        "other work meanwhile, so not to be compared. The paper's on a Titan Xp."
    ]
    for runs in selection.printed("log", NETWORKS, paired=False):
        settings: dict[str, None] = {}
        stored = store.find("log", scale=runs.scale)
        for method, paper in tables.reported("table3").items():
            logs = [log for log in stored if log.attrs["method"] == method]
            hours = np.array([log["seconds"].values.sum() / 3600 for log in logs])
            images = sum(log.attrs["training_images"] * log.sizes["epoch"] for log in logs)
            rows.append(
                (
                    paper["label"],
                    runs.scale,
                    f"{paper['hours']:.2f}",
                    tables.in_percent(hours),
                    str(len(logs)),
                    f"{images / (3600 * hours.sum()):,.0f}",
                )
            )
            for log in logs:
                how = json.loads(log.attrs["training"])
                text = f"{how['device']}, {how['precision']}, threads: {how['threads']}"
                settings[text] = None
        notes.append(f"Scale {runs.scale}: {'; '.join(settings)}.")
    header = ("training", "scale", "paper", "ours", "runs", "images/s")
    return tables.Table("table3", header, rows, notes)


if __name__ == "__main__":
    sys.exit(tables.main("table3", make, sys.argv[1:]))
