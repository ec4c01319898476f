"""Draw how time and memory of every estimator grow with P, M and N, one at a time.

``python -m tests.bench.growth [SECONDS]`` measures each case in a process of its own, with
default settings (300 vectors, 100 draws, of GLUE 200), on Gaussian clouds of ten dimensions in
single precision, P = 50, M = 50, N = 1000 but for what grows. Seconds are those of the
processor, of all threads together, so that what else runs hardly counts. A series ends before the
first case that takes more than SECONDS (default 300) or is refused. Memory is the peak of the
process less what it held before, the clouds included. Prints a line for each case and writes
``build/bench/growth-sizes.png``.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import manifold_capacity as mc
from tests.bench.three_estimators import save

ESTIMATORS = {
    "mean field": mc.mean_field_capacity,
    "conic": mc.conic_capacity,
    "simulated": mc.simulated_capacity,
    "GLUE": mc.glue,
}
COLOURS = dict(zip(ESTIMATORS, ("#0072b2", "#d55e00", "#222222", "#009e73"), strict=True))
STANDARD = {"P": 50, "M": 50, "N": 1000}
SIZES = {
    "P": (10, 20, 50, 100, 200, 500, 1000),
    "M": (10, 20, 50, 100, 200, 500, 1000),
    "N": (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000),
}


def clouds(count, points, features, seed=0):
    """Return centres of length about one with clouds of radius one half in ten dimensions."""
    rng = np.random.default_rng(seed)
    size = min(10, features)
    result = np.empty((count, features, points), np.float32)
    for manifold in result:
        axes = rng.standard_normal((features, size)) / np.sqrt(features * size)
        manifold[:] = rng.standard_normal((features, 1)) / np.sqrt(features)
        manifold += 0.5 * axes @ rng.standard_normal((size, points))
    return result


def peak():
    """Return the largest memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name, limit, count, points, features):
    """Print seconds and bytes of one estimate; the code is compiled before."""
    function = ESTIMATORS[name]
    function(clouds(4, 3, 40))
    before = peak()
    manifolds = clouds(count, points, features)
    began = time.process_time()
    resource.setrlimit(resource.RLIMIT_CPU, (int(began + limit) + 1,) * 2)
    function(manifolds)
    print(json.dumps({"seconds": time.process_time() - began, "bytes": peak() - before}))


def series(name, axis, limit):
    """Yield (size, seconds, bytes) until a case would take longer than `limit` or is refused."""
    for size in SIZES[axis]:
        case = [limit, *(STANDARD | {axis: size}).values()]
        module = [sys.executable, "-m", "tests.bench.growth", "--one", name, *map(str, case)]
        done = subprocess.run(module, capture_output=True, text=True, check=False)
        if done.returncode:
            killed = done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
            reason = f"more than {limit} s" if killed else done.stderr.strip().splitlines()[-1]
            print(f"{name}, {axis} = {size}: {reason}", flush=True)
            return
        taken = json.loads(done.stdout)
        print(
            f"{name}, {axis} = {size}: {taken['seconds']:.3g} s, {taken['bytes'] / 1e6:.0f} MB",
            flush=True,
        )
        yield size, taken["seconds"], taken["bytes"]


def main(limit):
    """Measure and draw everything."""
    figure, panels = plt.subplots(2, 3, figsize=(10, 5.5), sharey="row", layout="constrained")
    for column, axis in enumerate(SIZES):
        for name in ESTIMATORS:
            rows = np.array(list(series(name, axis, limit))).reshape(-1, 3)
            for row, scale in ((0, 1.0), (1, 1e-6)):
                panels[row, column].loglog(
                    rows[:, 0],
                    rows[:, row + 1] * scale,
                    "o-",
                    ms=4,
                    color=COLOURS[name],
                    label=name,
                )
        fixed = ", ".join(f"{k} = {v}" for k, v in STANDARD.items() if k != axis)
        panels[1, column].set_xlabel(f"{axis}   ({fixed})")
    panels[0, 0].set_ylabel("seconds of one core")
    panels[1, 0].set_ylabel("MB, the data included")
    panels[0, 0].legend(frameon=False, fontsize=8)
    save(figure, "growth-sizes")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
