"""The kernels beside public alternatives: same problems, same run.

``--replica PATH`` adds a clone of the public package (schung039/neural_manifolds_replicaMFT), run
by ``--replica-python`` in an environment of its own with pymanopt 0.2.5, autograd, cvxopt.
``--correlated PATH`` adds the simulated capacity of a clone of awakhloo/correlated_capacity.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog, minimize, nnls

import manifold_capacity as mc
import manifold_capacity.replica
from manifold_capacity import anchors, centers, conic, separability, simulated
from manifold_capacity._parallel import for_each
from paper.audit import ellipsoids

cvxopt = pytest.importorskip("cvxopt", reason="pip install cvxopt, to compare with its solver")
SVC = pytest.importorskip("sklearn.svm", reason="pip install scikit-learn, to compare").SVC


def features(count, features, points, seed=0):
    """ReLU features of noisy exemplars, float64, shape (P, N, M)."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, features, 1))
    return np.maximum(middles + 0.5 * rng.standard_normal((count, features, points)), 0)


# Anchor solves


def problems(count, points, size, n_t, radius, seed=0):
    """P manifolds as (points with their last row of ones, t)."""
    rng = np.random.default_rng(seed)
    lifted = [
        np.vstack([radius * rng.standard_normal((size, points)) / np.sqrt(size), np.ones(points)])
        for _ in range(count)
    ]
    return lifted, [rng.standard_normal((size + 1, n_t)) for _ in lifted]


def by_kernel(lifted, vectors, threads):
    solutions = for_each(
        lambda i: anchors.solve(lifted[i], vectors[i]), range(len(lifted)), threads
    )
    return np.array(
        [((s @ f.multipliers.T) ** 2).sum(axis=0) for s, f in zip(lifted, solutions, strict=True)]
    )


def by_scipy(lifted, vectors):
    return np.array(
        [
            [np.sum((s @ nnls(s, t)[0]) ** 2) for t in ts.T]
            for s, ts in zip(lifted, vectors, strict=True)
        ]
    )


def by_cvxopt(lifted, vectors):
    """The public package's problem statement and its tolerances."""
    from cvxopt import matrix, solvers

    options = {
        "show_progress": False, "maxiters": 1000000,
        "abstol": 1e-12, "reltol": 1e-12, "feastol": 1e-12,
    }  # fmt: skip
    values = []
    for s, ts in zip(lifted, vectors, strict=True):
        for t in ts.T:
            if (s[:-1].T @ t[:-1]).max() + t[-1] < 0:
                values.append(0.0)
                continue
            done = solvers.qp(
                matrix(np.identity(len(t))), matrix(-t[:, None]), matrix(s.T.copy()),
                matrix(np.zeros(s.shape[1])), options=options,
            )  # fmt: skip
            values.append(float(((np.array(done["x"])[:, 0] - t) ** 2).sum()))
    return np.array(values).reshape(len(lifted), -1)


ANCHORS = {
    "kernel, 1 thread": (lambda *a: by_kernel(*a, 1), 100, 200),
    "kernel, 2 threads": (lambda *a: by_kernel(*a, 2), 100, 200),
    "scipy nnls": (by_scipy, 10, 50),
    "cvxopt": (by_cvxopt, 4, 50),
}


@pytest.mark.parametrize("radius", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("solver", ANCHORS)
def test_anchor_solves(benchmark, solver, radius):
    """P = 100, M = 50, D = 50; the slow solvers get fewer manifolds and vectors."""
    benchmark.group = f"anchor solves, M = 50, D = 50, R = {radius}"
    solve, count, n_t = ANCHORS[solver]
    lifted, vectors = problems(count, 50, 50, n_t, radius)
    benchmark.pedantic(solve, (lifted, vectors), rounds=5, warmup_rounds=1)
    report(benchmark, solver, per=count * n_t, unit="µs per solve", scale=1e6)


@pytest.mark.parametrize("points", [50, 200, 400, 1000])
@pytest.mark.parametrize("size", [50, 300, 1000])
@pytest.mark.parametrize("solver", ["kernel, 1 thread", "scipy nnls"])
def test_growth_of_anchor_solves(benchmark, solver, size, points):
    benchmark.group = f"anchor solves, M = {points}, D = {size}, R = 2"
    n_t = 100 if solver.startswith("kernel") else 3
    lifted, vectors = problems(1, points, size, n_t, 2.0)
    benchmark.pedantic(ANCHORS[solver][0], (lifted, vectors), rounds=3, warmup_rounds=1)
    report(benchmark, solver, per=n_t, unit="µs per solve", scale=1e6)


# The whole analysis


def generic_analysis(manifolds, n_t, share):
    """The steps without low-rank removal by generic solvers, on a share of the manifolds."""
    from scipy.linalg import qr

    origin = np.concatenate(list(manifolds), axis=1).mean(axis=1, keepdims=True)
    rng, inverse = np.random.default_rng(0), []
    for manifold in manifolds[: int(share * len(manifolds))]:
        middle = manifold.mean(axis=1, keepdims=True)
        scaled = (manifold - middle) / np.linalg.norm(middle - origin)
        q, _ = qr(scaled, mode="economic")
        lifted = np.vstack([q.T @ scaled, np.ones(manifold.shape[1])])
        t = rng.standard_normal((len(lifted), n_t))
        inverse.append(by_cvxopt([lifted], [t]).mean())
    return 1 / np.mean(inverse)


ANALYSES = {
    "kernel, guarded": {"low_rank": "guarded"},
    "kernel, guarded, 1 thread": {"low_rank": "guarded", "threads": 1},
    "kernel, package's rule": {"low_rank": "package", "n_reps": 1},
    "kernel, nothing removed": {"low_rank": False},
    "generic solvers": {},
}


@pytest.mark.parametrize("what", ANALYSES)
def test_whole_analysis(benchmark, what):
    benchmark.group = "whole analysis, P = 100, M = 50, N = 2048, n_t = 300"
    manifolds = features(100, 2048, 50)
    share = 1.0 if what.startswith("kernel") else 0.03
    if what == "generic solvers":
        benchmark.pedantic(generic_analysis, (manifolds, 300, share), rounds=2)
    else:
        benchmark.pedantic(
            mc.mean_field_capacity, (manifolds,), ANALYSES[what], rounds=7, warmup_rounds=1
        )
    report(benchmark, what, per=share, unit="s", scale=1)


REPLICA = """
import sys, time, numpy as np
sys.path.insert(0, sys.argv[1])
from mftma import manifold_analysis_correlation as package
given = np.load(sys.argv[2])
manifolds, vectors = list(given["manifolds"]), list(given["vectors"])
whole, search = [], []
def timed(function, seconds):
    def call(*arguments, **options):
        began = time.perf_counter()
        result = function(*arguments, **options)
        seconds.append(time.perf_counter() - began)
        return result
    return call
package.fun_FA = timed(package.fun_FA, search)
np.random.seed(0)
analysis = timed(package.manifold_analysis_corr, whole)
a, r, d, c, k = analysis(manifolds, 0, vectors[0].shape[1], vectors, n_reps=1)
np.savez(sys.argv[3], capacity=a, radius=r, dimension=d, correlation=c, rank=k,
         seconds=whole[0], search=search[0])
"""


@pytest.mark.parametrize("shape", [(50, 512, 50, 200), (100, 2048, 50, 300)], ids=str)
def test_public_package(benchmark, request, tmp_path, shape):
    """Same manifolds, same t vectors; the subspaces removed may differ, so both are reported."""
    clone = request.config.getoption("--replica")
    if clone is None:
        pytest.skip("pass --replica PATH, a clone of the public package")
    python = request.config.getoption("--replica-python") or sys.executable
    count, size, points, n_t = shape
    manifolds = features(count, size, points)
    vectors = np.random.default_rng(0).standard_normal((count, points + 1, n_t))
    np.savez(tmp_path / "in.npz", manifolds=manifolds, vectors=vectors)
    subprocess.run(
        [python, "-c", REPLICA, clone, tmp_path / "in.npz", tmp_path / "out.npz"], check=True
    )
    theirs = np.load(tmp_path / "out.npz")
    benchmark.group = "drop-in, n_reps = 1, (P, N, M, n_t) = " + str(shape)
    ours = benchmark.pedantic(
        mc.replica.manifold_analysis_corr, (manifolds, 0, n_t, vectors, 1),
        rounds=5, warmup_rounds=1,
    )  # fmt: skip
    report(benchmark, "kernel", per=1, unit="s", scale=1)
    middles = manifolds.mean(axis=2).T
    print(
        f"  public package: {theirs['seconds']:.2f} s, of which {theirs['search']:.2f} s low rank"
    )
    print(f"  whole analysis: {theirs['seconds'] / benchmark.stats['min']:.0f} x")
    for rule, reps in (("package", 1), ("guarded", 1)):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            centers.low_rank(middles, rule, reps)
            times.append(time.perf_counter() - began)
        print(f"  low-rank step, {rule}: {min(times):.4g} s, {theirs['search'] / min(times):.0f} x")
    for name, values in zip(("capacity", "radius", "dimension"), ours, strict=False):
        print(
            f"  median {name}: ours {np.median(values):.4f}, theirs {np.median(theirs[name]):.4f}"
        )
    print(
        f"  correlation: {ours[3]:.6f}, {theirs['correlation']:.6f}; K: {ours[4]}, {theirs['rank']}"
    )


# Low rank


def by_scipy_lbfgs(x, gram, start, numerical):
    """The same cost over unconstrained matrices, made orthonormal by QR, by scipy's L-BFGS-B."""
    shape = start.shape

    def cost(flat):
        v, r = np.linalg.qr(flat.reshape(shape))
        value, gradient, _ = centers.cost_and_gradient(x, gram, v, 0.0)
        return (value, np.linalg.solve(r, gradient.T).T.ravel()) if not numerical else value

    done = minimize(cost, start.ravel(), jac=not numerical, method="L-BFGS-B")
    return done.x, done.fun


@pytest.mark.parametrize("method", ["kernel", "scipy, gradient", "scipy, numerical gradient"])
def test_low_rank_step(benchmark, method):
    benchmark.group = "low-rank step, P = 50, K = 5"
    rng = np.random.default_rng(0)
    common = rng.standard_normal((512, 8)) @ rng.standard_normal((8, 50))
    x, _ = centers.coordinates(np.maximum(common + rng.standard_normal((512, 50)), 0))
    gram = x @ x.T
    start = np.ascontiguousarray(np.linalg.qr(rng.standard_normal((x.shape[1], 5)))[0])
    if method == "kernel":
        _, cost = benchmark.pedantic(
            centers.minimise, (x, gram, start, 0.0), rounds=7, warmup_rounds=1
        )
    else:
        _, cost = benchmark.pedantic(
            by_scipy_lbfgs, (x, gram, start, "numerical" in method), rounds=2
        )
    report(benchmark, f"{method}: cost {cost:.6f}", per=1, unit="ms", scale=1e3)


# Separability


def dichotomy(points, size, seed=0):
    rng = np.random.default_rng(seed)
    count = points // 20
    middles = rng.standard_normal((size, count, 1))
    x = (middles + 0.35 * rng.standard_normal((size, count, 20))).reshape(size, -1)
    return x, np.repeat(rng.permutation(np.repeat([1.0, -1.0], count // 2)), 20)


def separable_by_cvxopt(x, y):
    from cvxopt import matrix, solvers

    z = -(y * np.vstack([x, np.ones(x.shape[1])])).T
    cost = np.eye(z.shape[1])
    cost[-1, -1] = 0
    try:
        done = solvers.qp(
            matrix(cost), matrix(np.zeros(z.shape[1])), matrix(z.copy()), matrix(-np.ones(len(z))),
            options={"show_progress": False, "maxiters": 100},
        )  # fmt: skip
    except (ArithmeticError, ValueError):  # it diverges on some sets that are not separable
        return False
    return done["status"] == "optimal" and bool((z @ np.array(done["x"])[:, 0] < 0).all())


def separable_by_highs(x, y):
    z = (y * np.vstack([x, np.ones(x.shape[1])])).T
    done = linprog(np.zeros(z.shape[1]), A_ub=-z, b_ub=-np.ones(len(z)), bounds=(None, None))
    return done.status == 0


def separable_by_svc(x, y):
    machine = SVC(kernel="linear", C=1e10, max_iter=200_000).fit(x.T, y)
    return bool((machine.predict(x.T) == y).all())


SEPARATORS = {
    "kernel": lambda x, y: separability.separable(x, y).separable,
    "cvxopt QP": separable_by_cvxopt,
    "HiGHS LP": separable_by_highs,
    "sklearn SVC": separable_by_svc,
}


@pytest.mark.filterwarnings("ignore:Solver terminated early")
@pytest.mark.parametrize(
    ("points", "size"), [(800, 30), (800, 60), (1800, 60), (1800, 150), (5000, 150), (5000, 480)]
)
@pytest.mark.parametrize("method", SEPARATORS)
def test_separability(benchmark, method, points, size):
    benchmark.group = f"separability, {points} points, n = {size}"
    if points == 5000 and method != "kernel" and method != "cvxopt QP":
        pytest.skip("minutes")
    x, y = dichotomy(points, size)
    fast = method == "kernel"
    verdict = benchmark.pedantic(
        SEPARATORS[method], (x, y), rounds=7 if fast else 1, warmup_rounds=int(fast)
    )
    report(benchmark, f"{method}: {verdict}", per=1, unit="ms", scale=1e3)


# Simulated capacity


def fresh_bisection(manifolds, repeats):
    """The public procedure: fresh projections at each n, each tested by a quadratic program."""
    data = np.concatenate(manifolds, axis=1)
    owner = np.repeat(np.arange(len(manifolds)), manifolds[0].shape[1])
    rng = np.random.default_rng(0)

    def share(n):
        hits = 0
        for _ in range(repeats):
            x = rng.standard_normal((n, len(data))) @ data
            x /= np.linalg.norm(x, axis=0)
            signs = np.where(rng.permutation(len(manifolds)) < len(manifolds) // 2, 1.0, -1.0)
            hits += separable_by_cvxopt(x, signs[owner])
        return hits / repeats

    low, high = 2, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        p = share(middle)
        if abs(p - 0.5) <= 0.05:
            return middle
        low, high = (low, middle) if p > 0.5 else (middle, high)
    return high


SHAPES = {
    "balls P=20 M=10 D=3 R=0.5": lambda: ellipsoids(20, 10, [0.5] * 3),
    "balls P=40 M=20 D=5 R=1": lambda: ellipsoids(40, 20, [1.0] * 5),
    "ReLU P=30 M=20 N=200": lambda: features(30, 200, 20),
    "balls P=60 M=30 D=8 R=1": lambda: ellipsoids(60, 30, [1.0] * 8),
    "balls P=100 M=20 D=5 R=1": lambda: ellipsoids(100, 20, [1.0] * 5),
    "balls P=200 M=20 D=5 R=1": lambda: ellipsoids(200, 20, [1.0] * 5),
}


@pytest.mark.filterwarnings("ignore:Could not find solution")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["kernel", "our QP bisection", "correlated_capacity"])
def test_simulated_capacity(benchmark, request, method, shape):
    """Time 100 draws; the others are timed with 20 or 2 repeats per n and scaled to 100.

    With R repeats p(n) = 1/2 is found to within a standard error of 0.5 / √R over the slope of
    p, which is that of the median of as many draws: equal numbers give equal intervals.
    """
    benchmark.group = "simulated capacity, " + shape
    manifolds = SHAPES[shape]()
    repeats = 20 if len(manifolds) <= 40 else 2
    if method == "kernel":
        result = benchmark.pedantic(
            simulated.simulated_capacity, (manifolds,), rounds=2, warmup_rounds=1
        )
        text, per = (
            f"{result.capacity:.3f} [{result.capacity_low:.3f}, {result.capacity_high:.3f}]",
            1,
        )
    elif len(manifolds) > 60:
        pytest.skip("an hour")
    elif method == "our QP bisection":
        n = benchmark.pedantic(fresh_bisection, (manifolds, repeats), rounds=1)
        text, per = f"{len(manifolds) / n:.3f}", repeats / 100
    else:
        public = correlated_capacity(request.config.getoption("--correlated"))
        result = benchmark.pedantic(public, (list(manifolds), repeats), rounds=1)
        text, per = f"{result[0]:.3f}", repeats / 100
    report(benchmark, f"{method}: {text}", per=per, unit="s per 100 draws", scale=1)


def correlated_capacity(clone):
    """Return the function of the public code."""
    if clone is None:
        pytest.skip("--correlated was not given")
    path = Path(clone) / "capacity" / "manifold_simcap_analysis.py"
    spec = importlib.util.spec_from_file_location("manifold_simcap_analysis", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.manifold_simcap_analysis


# Cones


def projection_by_cvxopt(points, signs, t):
    """Return |Π(t)|² from the problem in v: min ½ |v - t|² with y_p x·v <= 0."""
    rows = (points * signs).T
    done = cvxopt.solvers.qp(
        cvxopt.matrix(np.eye(len(t))), cvxopt.matrix(-t), cvxopt.matrix(rows),
        cvxopt.matrix(np.zeros(len(rows))), options={"show_progress": False},
    )  # fmt: skip
    return float(((t - np.array(done["x"])[:, 0]) ** 2).sum())


@pytest.mark.parametrize(
    ("count", "points", "size"), [(10, 50, 500), (20, 50, 500), (50, 50, 1000)]
)
@pytest.mark.parametrize("method", ["kernel", "cvxopt QP"])
def test_conic_draw(benchmark, method, count, points, size):
    benchmark.group = f"one conic draw on one thread, P = {count}, M = {points}, N = {size}"
    manifolds = features(count, size, points)
    manifolds -= manifolds.mean(axis=(0, 2), keepdims=True)
    if method == "kernel":
        result = benchmark.pedantic(
            mc.conic_capacity, (manifolds,), {"draws": 64, "threads": 1}, rounds=3, warmup_rounds=1
        )
        text, per = f"{result.sq_projection[0]:.6f}", 64
    else:
        cones = conic.Cones(manifolds, "balanced", 1, 0.0, 0)
        data, signs, t = cones.points.T, cones.label_of(0)[cones.owner], cones.gaussian(0)
        value = benchmark.pedantic(projection_by_cvxopt, (data, signs, t), rounds=1)
        text, per = f"{value:.6f}", 1
    report(benchmark, f"{method}: {text}", per=per, unit="ms", scale=1e3)


def report(benchmark, what, per, unit, scale):
    """Print minimum, median and maximum of the rounds in the unit, and keep them."""
    times = np.sort(benchmark.stats.stats.data) / per * scale
    text = f"{times[0]:.4g} .. {np.median(times):.4g} .. {times[-1]:.4g} {unit}"
    benchmark.extra_info["result"] = text
    print(f"\n{benchmark.group}\n  {what}: {text}")
