"""Draw the three estimators on manifolds with known or no closed form, and the cost of anchors.

``python -m tests.bench.three_estimators`` writes ``build/bench/estimators.png`` and
``build/bench/growth.png``. The first compares mean-field theory, conic geometry and bias-free
simulation with the exact capacity of balls; the second shows how the time of an anchor solve
grows with the number of points M, the dimension D, the number of vectors and of manifolds.
"""

from __future__ import annotations

import time

import matplotlib.pyplot as plt
import numpy as np

import manifold_capacity as mc
from logit_distributions.store import files, places
from manifold_capacity import anchors
from manifold_capacity._parallel import for_each
from paper.audit import ellipsoids

COLOURS = {"mean-field theory": "#0072b2", "conic geometry": "#d55e00", "simulation": "#222222"}


def gaussian_clouds(count, points, size, radius, seed=0):
    """Gaussian clouds of mean radius `radius` in random subspaces."""
    clouds = ellipsoids(count, points, np.ones(size), seed=seed)
    rng = np.random.default_rng(seed + 1)
    return [
        cloud.mean(axis=1, keepdims=True)
        + (cloud - cloud.mean(axis=1, keepdims=True))
        * radius * np.linalg.norm(rng.standard_normal((size, points)), axis=0) / np.sqrt(size)
        for cloud in clouds
    ]  # fmt: skip


CASES = {
    "ball\nD=2 R=0.5": (ellipsoids(40, 30, [0.5] * 2), mc.ball_capacity(0.5, 2)),
    "ball\nD=3 R=0.5": (ellipsoids(40, 60, [0.5] * 3), mc.ball_capacity(0.5, 3)),
    "ball\nD=2 R=1": (ellipsoids(40, 30, [1.0] * 2), mc.ball_capacity(1, 2)),
    "ball\nD=3 R=2": (ellipsoids(40, 80, [2.0] * 3), mc.ball_capacity(2, 3)),
    "ellipsoid\n1 .5 .2": (ellipsoids(40, 40, [1, 0.5, 0.2]), None),
    "ellipsoid\n.8 … .1": (ellipsoids(40, 20, [0.8, 0.5, 0.3, 0.2, 0.1]), None),
    "cloud\nD=5 R=0.5": (gaussian_clouds(40, 20, 5, 0.5), None),
    "cloud\nD=10 R=1": (gaussian_clouds(40, 20, 10, 1.0), None),
}


def estimates(manifolds):
    """Return (value, low, high) of each estimator; 95 % intervals."""
    theory = mc.mean_field_capacity(manifolds, low_rank=False, n_t=500)
    half = 1.96 * theory.combined_capacity_se
    value = theory.combined_capacity
    capacities = {"mean-field theory": (value, value - half, value + half)}
    for name, one in (
        ("conic geometry", mc.conic_capacity(manifolds, draws=200)),
        ("simulation", mc.simulated_capacity(manifolds, draws=100, bias=False)),
    ):
        capacities[name] = (one.capacity, one.capacity_low, one.capacity_high)
    return capacities


def draw_estimators():
    """Draw and print the comparison."""
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for place, (label, (manifolds, exact)) in enumerate(CASES.items()):
        for shift, (name, (value, low, high)) in zip(
            (-0.2, 0, 0.2), estimates(manifolds).items(), strict=True
        ):
            axes.errorbar(
                place + shift, value, [[value - low], [high - value]], fmt="o", ms=4, capsize=3,
                color=COLOURS[name], label=name if place == 0 else None,
            )  # fmt: skip
            print(f"{label!r:22} {name:18} {value:.3f} [{low:.3f}, {high:.3f}]")
        if exact is not None:
            axes.hlines(
                exact, place - 0.35, place + 0.35, color="#999999", ls="--",
                label="full balls, exact" if place == 0 else None,
            )  # fmt: skip
            print(f"{label!r:22} {'exact':18} {exact:.3f}")
    axes.set_xticks(range(len(CASES)), CASES, fontsize=8)
    axes.set(ylabel="capacity (manifolds per feature)", yscale="log")
    axes.legend(frameon=False, ncols=4, fontsize=8)
    save(figure, "estimators")


def seconds_per_solve(points, size, n_t, count, rng):
    """Return the best of three times of the anchors of `count` manifolds, per anchor."""
    sets = [
        (
            np.vstack([2 * rng.standard_normal((size, points)) / np.sqrt(size), np.ones(points)]),
            rng.standard_normal((size + 1, n_t)),
        )
        for _ in range(count)
    ]
    best = np.inf
    for _ in range(3):
        began = time.perf_counter()
        for_each(lambda one: anchors.solve(*one), sets)
        best = min(best, time.perf_counter() - began)
    return best / count / n_t


def draw_growth():
    """Draw and print how the cost grows."""
    rng = np.random.default_rng(0)
    standard = {"points": 50, "size": 50, "n_t": 200, "count": 4}
    ranges = {
        "points": (10, 20, 50, 100, 200, 400, 1000),
        "size": (5, 20, 50, 100, 300, 1000),
        "n_t": (10, 50, 200, 1000, 4000),
        "count": (1, 2, 4, 10, 40, 100),
    }
    titles = {"points": "points M", "size": "dimension D", "n_t": "vectors n_t", "count": "P"}
    figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
    seconds_per_solve(**standard, rng=rng)
    for axes, (name, values) in zip(panels, ranges.items(), strict=True):
        times = [1e6 * seconds_per_solve(**standard | {name: v}, rng=rng) for v in values]
        axes.loglog(values, times, "o-", ms=4, color=COLOURS["mean-field theory"])
        axes.set_xlabel(titles[name])
        print(titles[name], dict(zip(values, np.round(times, 2).tolist(), strict=True)))
    panels[0].set_ylabel("µs per anchor")
    figure.suptitle("M = 50, D = 50, n_t = 200, P = 4, R = 2, unless varied", fontsize=9)
    save(figure, "growth")


def save(figure, name):
    """Write the figure to the build folder."""
    path = places.build() / "bench" / f"{name}.png"
    with files.atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    print(path)


if __name__ == "__main__":
    draw_estimators()
    draw_growth()
