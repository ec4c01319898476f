"""Kill the pipeline with SIGKILL at random moments and inside writes; compare every bit.

``python -m tests.kill`` runs everything behind Table 2 on the toy set twice: once left
alone, and once killed 20 times at random moments and 10 times between writing a file and
moving it into place, each time resumed. Logits, verdicts, logs and weights must be the
same bit for bit, no file may be damaged, and no temporary file may count as a result.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from repro import checkpoints, cli, paths, store
from tests import toy

COMMAND = ["run", "table2", "--seed", "0", "--threads", "1", "--save-every", "0"]


def child(kill_in_write: int) -> int:
    """Run the pipeline, killing ourselves inside the write of this number, if positive."""
    toy.install()
    atomic, count = paths.atomic, 0

    @contextmanager
    def deadly(path: Path):
        nonlocal count
        with atomic(path) as temporary:
            yield temporary
            count += 1
            if count == kill_in_write:
                os.kill(os.getpid(), signal.SIGKILL)

    paths.atomic = deadly
    return cli.main([*COMMAND, "--images", os.environ["TOY_SHEETS"]])


def start(world: Path, kill_in_write: int = 0) -> subprocess.Popen[str]:
    """Start a child in a world of its own."""
    folders = {f"REPRO_{name.upper()}": str(world / name) for name in ("data", "cache", "build")}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.kill", "--child", str(kill_in_write)],
        cwd=paths.ROOT, env=os.environ | folders,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def stage(world: Path) -> str:
    """Say what the run was doing, from the file it touched last."""
    files = [p for p in world.rglob("*") if p.is_file()]
    if not files:
        return "nothing yet"
    newest = max(files, key=lambda p: p.stat().st_mtime_ns)
    kind = newest.relative_to(world).parts[1]
    return {"runs": "training", "targets": "targets", "attacks": "attacking"}.get(kind, "storing")


def results(world: Path) -> dict[str, np.ndarray]:
    """Return every stored number that does not measure time."""
    found = {}
    for file in sorted((world / "data").rglob("*.nc")):
        for name, variable in store.open_dataset(file).variables.items():
            if name != "seconds":
                found[f"{file.name} {name}"] = variable.values
    for file in sorted((world / "data").rglob("*.safetensors")):
        for name, tensor in checkpoints.Checkpoint.load(file).tensors.items():
            found[f"{file.name} {name}"] = tensor.numpy()
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison and print what was found; exit code 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20, help="at random moments")
    parser.add_argument("--writes", type=int, default=10, help="inside a write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parsed = parser.parse_args(arguments)
    if parsed.child is not None:
        return child(parsed.child)
    draws = random.Random(parsed.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TOY_SHEETS"] = str(Path(folder) / "sheets")
        toy.write_sheets(Path(folder) / "sheets")
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        began = time.monotonic()
        process = start(whole)
        if process.wait() != 0:
            print(process.stderr.read())
            return 1
        duration = time.monotonic() - began
        plan = ["moment"] * parsed.kills + ["write"] * parsed.writes
        draws.shuffle(plan)
        stages: collections.Counter[str] = collections.Counter()
        for how in plan:
            inside = draws.randint(1, 12) if how == "write" else 0
            process = start(killed, inside)
            try:
                limit = draws.uniform(0.1, 0.22) * duration if how == "moment" else None
                process.wait(limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode == -signal.SIGKILL:
                stages[f"writing ({stage(killed)})" if inside else stage(killed)] += 1
            elif process.returncode:
                print(process.stderr.read())
                return 1
        process = start(killed)
        if process.wait() != 0:
            print(process.stderr.read())
            return 1
        reference, computed = results(whole), results(killed)
        different = [
            name
            for name in reference.keys() | computed.keys()
            if name not in reference
            or name not in computed
            or reference[name].tobytes() != computed[name].tobytes()
        ]
        faults = [f for p in (killed / "data").rglob("*.nc") for f in store.validate(p)]
    print(f"{sum(stages.values())} kills: {dict(stages.most_common())}")
    print(
        f"{len(reference)} stored arrays compared, {len(different)} differ; {len(faults)} faults; "
        f"a run left alone took {duration:.0f} s"
    )
    for line in [*different, *faults]:
        print(f"  {line}")
    return 1 if different or faults else 0


if __name__ == "__main__":
    sys.exit(main())
