"""Table 3: wall time of one training run, from the provenance of the datasets."""

import json
import sys

import numpy as np

from paper import selection, tables


def make() -> tables.Table:
    """Return the table from the stored training logs."""
    rows: list[tuple[str, ...]] = []
    notes = ["Hours of wall time, mean ± sd over runs; the paper's on a Titan Xp."]
    for scale in selection.scales("log") or ["small"]:
        settings: dict[str, None] = {}
        for method, paper in tables.reported("table3").items():
            logs = [
                log
                for log in selection.select("log", "table2", scale, dataset="cifar10")
                if log.attrs["method"] == method
            ]
            if not logs:
                rows.append((paper["label"], scale, f"{paper['hours']:.2f}", "-", "0", "-"))
                continue
            hours = np.array([log["seconds"].values.sum() / 3600 for log in logs])
            images = sum(log.attrs["training_images"] * log.sizes["epoch"] for log in logs)
            rows.append(
                (
                    paper["label"],
                    scale,
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
        notes.append(f"Scale {scale}: {'; '.join(settings)}.")
    header = ("training", "scale", "paper", "ours", "runs", "images/s")
    return tables.Table("table3", "Table 3: training time on CIFAR-10", header, rows, notes)


if __name__ == "__main__":
    sys.exit(tables.main("table3", make))
