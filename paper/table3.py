"""Table 3: training time on CIFAR-10, by device."""

import json
import sys

import numpy as np
import xarray as xr

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
        "other work meanwhile, a GPU several trainings at once, so not to be compared. The paper's "
        "on a Titan Xp."
    ]
    for runs in selection.printed("log", NETWORKS, paired=False):
        stored = store.find("log", scale=runs.scale)
        for method, paper in tables.reported("table3").items():
            by_device: dict[str, list[xr.Dataset]] = {}
            for log in stored:
                if log.attrs["method"] == method:
                    by_device.setdefault(device(log), []).append(log)
            for name, logs in sorted(by_device.items()):
                hours = np.array([log["seconds"].values.sum() / 3600 for log in logs])
                images = sum(log.attrs["training_images"] * log.sizes["epoch"] for log in logs)
                rows.append(
                    (
                        paper["label"],
                        runs.scale,
                        name,
                        f"{paper['hours']:.2f}",
                        tables.in_percent(hours),
                        str(len(logs)),
                        f"{images / (3600 * hours.sum()):,.0f}",
                    )
                )
    header = ("training", "scale", "device", "paper", "ours", "runs", "images/s")
    return tables.Table("table3", header, rows, notes)


def device(log: xr.Dataset) -> str:
    """Return where and how precisely a network was trained, in words."""
    how = json.loads(log.attrs["training"])
    threads = int(how["threads"])
    return f"{how['device']}, {how['precision']}, {threads} thread{'s' * (threads > 1)}"


if __name__ == "__main__":
    sys.exit(tables.main("table3", make, sys.argv[1:]))
