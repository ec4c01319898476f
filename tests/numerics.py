"""The numbers of ``kernels/NUMERICS.md``.

``python -m tests.numerics`` writes them into the table there: an error as the power of ten above
what was measured, anything else with two digits and the tolerance that is stated here.
``tests/test_kernels_numerics.py`` measures them again and compares.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

import manifold_capacity as mc
from manifold_capacity.conic import Cones
from tests import naive_glue, naive_kernels

FILE = Path(__file__).parents[1] / "kernels" / "NUMERICS.md"
BEGIN, END = "<!-- measured: python -m tests.numerics -->", "<!-- end -->"


def clouds(count, features, points, seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, features, 1))
    return middles + spread * rng.standard_normal((count, features, points))


def balls(count, dimension, radius, points, seed=0):
    """Spheres around centres of length one, in random subspaces of many dimensions."""
    rng = np.random.default_rng(seed)
    features = 2 * count * (dimension + 1)
    result = np.empty((count, features, points))
    for manifold in result:
        frame = np.linalg.qr(rng.standard_normal((features, dimension + 1)))[0]
        sphere = rng.standard_normal((dimension, points))
        sphere *= radius / np.linalg.norm(sphere, axis=0)
        manifold[:] = frame[:, :1] + frame[:, 1:] @ sphere
    return result


def anchors():
    rng = np.random.default_rng(0)
    points = np.vstack([rng.standard_normal((20, 50)), np.ones(50)])
    t = rng.standard_normal((21, 200))
    certificate = mc.certify(points, t, subset=range(6))
    yield "anchors: optimality conditions", mc.anchor_points(points, t).kkt_residual.max(), None
    yield "anchors: distance to cvxpy, relative", np.nanmax(certificate.difference), None


def closed_forms():
    kappas = (0.0, 0.5, 1.0, 2.0)
    errors = [abs(mc.point_capacity(k) / naive_kernels.point_capacity(k) - 1) for k in kappas]
    yield "point capacity: distance to quadrature, relative", max(errors), None


def balls_by_all():
    manifolds = balls(30, 3, 0.5, 60)
    theory = mc.mean_field_capacity(manifolds, low_rank=False, n_t=500)
    yield "balls, D = 3, R = 0.5: exact capacity", mc.ball_capacity(0.5, 3), 0.01
    yield "the same by mean-field theory", theory.combined_capacity, 0.05
    yield "the same by cones", mc.conic_capacity(manifolds, draws=100).capacity, 0.06
    simulated = mc.simulated_capacity(manifolds, draws=100, bias=False)
    yield "the same by simulation without bias", simulated.capacity, 0.08
    yield "separability tests without a proof, in that simulation", simulated.undecided, 0.0
    far = manifolds - manifolds.mean(axis=(0, 2), keepdims=True)
    for rule in ("nearest", "zero"):
        geometry = mc.glue(far, draws=60, inactive=rule)
        yield f"their radius by GLUE, inactive anchors {rule}", geometry.radius, 0.05


def cones():
    manifolds = clouds(20, 60, 10)
    all_cones = Cones(manifolds, "balanced", 5, 0.0, 0)
    errors, residuals = [], []
    for draw, one in enumerate(all_cones.project_all(5, 1, None)):
        rows = all_cones.points * all_cones.label_of(draw)[all_cones.owner][:, None]
        alpha, _ = nnls(rows.T, all_cones.gaussian(draw))
        errors.append(abs(one.sq_norm / ((alpha @ rows) ** 2).sum() - 1))
        residuals.append(one.kkt_residual)
    yield "cones: optimality conditions", max(residuals), None
    yield "cones: distance to scipy's NNLS, relative", max(errors), None
    for offset in (1e2, 1e4):
        far = mc.conic_capacity(clouds(12, 5, 8, spread=1.0) + offset, draws=20)
        yield f"cones: optimality conditions at {offset:.0f} spreads off", far.kkt_residual, None


def glue():
    worst, ratios = 0.0, []
    for seed in range(6):
        manifolds = clouds(4, 20, 5, seed)
        draws = 6 if seed else 60
        ours = mc.glue(manifolds, draws=draws, seed=seed)
        framed = Cones(manifolds, "balanced", draws, 0.0, seed)
        parts = [framed.points[framed.owner == p].T for p in range(4)]
        vectors = np.array([framed.gaussian(k) for k in range(draws)])
        pairs = [
            naive_glue.anchors(parts, framed.label_of(k), vectors[k], "nearest")
            for k in range(draws)
        ]
        drawn = np.array([s for s, _ in pairs]), vectors, np.array([f for _, f in pairs])
        theirs = naive_glue.measures(*drawn)
        worst = max(worst, *(abs(ours[name] / theirs[name] - 1) for name in theirs))
        if seed == 0:
            errors = naive_glue.standard_errors(*drawn)
            ratios = [ours[f"{name}_se"] / errors[name] for name in errors]
    yield "GLUE: distance to cvxpy and pseudoinverses, relative", worst, None
    yield "GLUE: smallest error over that of leaving out draws", min(ratios), 0.05
    yield "GLUE: largest error over that of leaving out draws", max(ratios), 0.05


def separability():
    rng = np.random.default_rng(0)
    wrong, residual = 0, 0.0
    for _ in range(100):
        points = rng.standard_normal((10, int(rng.integers(10, 40))))
        labels = rng.choice([-1, 1], points.shape[1])
        verdict = mc.separable(points, labels)
        wrong += verdict.separable != naive_kernels.is_separable(points, labels, True)
        residual = max(residual, 0.0 if verdict.separable else verdict.residual)
    yield "separability: verdicts unlike a linear program's, of 100", wrong, 0.0
    yield "separability: largest residual of a proof that nothing separates", residual, None


def resampling():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((15, 60, 1)) / np.sqrt(60)
    axes = np.linalg.qr(rng.standard_normal((15, 60, 4)))[0]

    def fresh(seed):
        return centers + axes @ np.random.default_rng(seed).standard_normal((15, 4, 24)) / 2

    values = [mc.conic_capacity(fresh(seed), draws=100).capacity for seed in range(30)]
    for method in ("jackknife", "bootstrap"):
        errors = [
            mc.resampled(
                mc.conic_capacity, fresh(100 + k), method=method, draws=100, repeats=12
            ).capacity_se
            for k in range(3)
        ]
        ratio = np.sqrt(np.mean(np.square(errors))) / np.std(values, ddof=1)
        yield f"resampled points, {method}: error over that of fresh points", ratio, 0.4


def measured():
    """Yield (what, value, tolerance); no tolerance for an error."""
    for part in (anchors, closed_forms, balls_by_all, cones, glue, separability, resampling):
        yield from part()


def row(what, value, tolerance):
    """Return a line of the table."""
    if tolerance is None:
        return f"| {what} | below 1e{math.ceil(math.log10(max(value, 1e-17)))} |"
    return f"| {what} | {value:.2f} ± {tolerance:.2f} |"


def write():
    """Put what is measured into the file."""
    table = ["| what | value |", "|---|---|", *(row(*one) for one in measured())]
    text = FILE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    FILE.write_text(before + "\n".join([BEGIN, *table, END]) + after)


if __name__ == "__main__":
    write()
