"""Anchor points: against brute force, scipy and cvxpy; known answers by quadrature."""

import importlib.util
import os
import pkgutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher
from scipy.special import chdtri, ndtri

import manifold_capacity as mc
from manifold_capacity import _jit, _parallel, anchors, nnls
from tests import naive_kernels as naive

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
KINDS = (
    "cloud", "segment", "duplicates", "more points than features", "off centre", "scales",
    "nearly collinear", "float32",
)  # fmt: skip


def problem(kind, rng):
    features, count = int(rng.integers(1, 12)), int(rng.integers(2, 25))
    radius = 10.0 ** rng.uniform(-1, 1)
    points = rng.standard_normal((features, count)) / np.sqrt(features)
    if kind == "segment":
        points = rng.standard_normal((features, 2))
    elif kind == "duplicates":
        points = points[:, rng.integers(0, count // 2, count)]
    elif kind == "more points than features":
        points = rng.standard_normal((int(rng.integers(1, 4)), 60))
    elif kind == "off centre":
        points += 3 * rng.standard_normal((features, 1))
    elif kind == "scales":
        radius = 10.0 ** rng.uniform(-6, 3)
    elif kind == "nearly collinear":
        noise = 10.0 ** rng.uniform(-9, -3)
        points = rng.standard_normal((features, 1)) * rng.standard_normal(count) + noise * points
    elif kind == "float32":
        points = points.astype(np.float32)
    lifted = np.vstack([radius * points, np.ones((1, points.shape[1]))]).astype(np.float64)
    return lifted, rng.standard_normal((len(lifted), 1)), float(rng.choice([0, 0, 0.5, -0.3]))


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_problems_agree_with_cvxpy(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for _ in range(125):
        points, t, kappa = problem(kind, rng)
        certificate = mc.certify(points, t, kappa)
        assert certificate.difference.max() < 1e-8
        assert mc.anchor_points(points, t, kappa).kkt_residual.max() < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_anchors_and_distances_agree_with_the_naive_twin(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    for _ in range(10):
        points, t, kappa = problem(kind, rng)
        solutions = mc.anchor_points(points, t, kappa, multipliers=True)
        s, f = naive.anchor(points, t[:, 0], kappa)
        assert solutions.solved.all()
        assert solutions.sq_distance[0] == pytest.approx(f, rel=1e-9, abs=1e-12)
        assert (solutions.multipliers >= 0).all()
        # v = t - Σ α s satisfies every constraint.
        v = t - points @ solutions.multipliers
        assert (points.T @ v).max() + kappa < 1e-9 * max(1, np.abs(points).max())
        if kind in ("cloud", "segment", "off centre"):
            np.testing.assert_allclose(solutions.anchors[:, 0], s, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("signed", [False, True])
def test_least_squares_agree_with_brute_force(signed):
    rng = np.random.default_rng(1)
    for _ in range(30):
        size, rank = int(rng.integers(1, 7)), int(rng.integers(1, 7))
        points = rng.standard_normal((rank, size))
        sign = rng.choice([-1.0, 1.0], size) if signed else np.ones(size)
        t = rng.standard_normal((rank, 3))
        solutions = anchors.solve(points, t, sign)
        for column in range(3):
            q = points.T @ t[:, column]
            expected = naive.nonnegative_least_squares(points.T @ points, q, sign)
            np.testing.assert_allclose(
                points @ solutions.multipliers[column], points @ expected, atol=1e-9
            )
            assert (sign * solutions.multipliers[column] >= 0).all()


def test_variables_leave_when_others_enter():
    """Long thin manifolds make early choices wrong, so the factor is down-dated."""
    rng = np.random.default_rng(2)
    dropped = 0
    for _ in range(20):
        points = rng.standard_normal((6, 30)) * np.array([[30, 10, 3, 1, 0.3, 0.1]]).T
        points[-1] = 1
        t = rng.standard_normal((6, 5))
        solutions = mc.anchor_points(points, t, multipliers=True)
        for column in range(5):
            _, f = naive.anchor(points, t[:, column], 0.0)
            assert solutions.sq_distance[column] == pytest.approx(f, rel=1e-9, abs=1e-12)
        entered = solutions.iterations.sum()
        dropped += entered > 0
    assert dropped


def test_a_cap_on_iterations_is_reported(monkeypatch):
    rng = np.random.default_rng(3)
    points = np.vstack([rng.standard_normal((5, 20)), np.ones(20)])
    gram, q = points.T @ points, np.ascontiguousarray(rng.standard_normal((4, 6)) @ points)
    alpha, residual = np.zeros((4, 20)), np.empty(4)
    iterations, solved = np.empty(4, np.int64), np.empty(4, bool)
    nnls.solve_rows(gram, q, np.ones(20), 6, 1, alpha, residual, iterations, solved)
    assert not solved.all()
    assert residual[~solved].min() > 1e-10


def test_the_fallback_solves_what_the_gram_matrix_cannot():
    rng = np.random.default_rng(5)
    by_gram, in_the_end = [], []
    for features in [*range(1, 12)] * 2:
        line = rng.standard_normal((features, 1)) * rng.standard_normal(30)
        radius = 10.0 ** rng.uniform(-1, 2)
        points = radius * (line + 1e-8 * rng.standard_normal((features, 30)))
        points = np.vstack([points, np.ones(30)])
        t = rng.standard_normal((features + 1, 20))
        q, residual = np.ascontiguousarray(t.T @ points), np.empty(20)
        nnls.solve_rows(
            points.T @ points, q, np.ones(30), len(points), 500, np.zeros(q.shape), residual,
            np.empty(20, np.int64), np.empty(20, bool),
        )  # fmt: skip
        by_gram.append(residual.max())
        in_the_end.append(mc.anchor_points(points, t).kkt_residual.max())
    assert max(by_gram) > 1e-10  # so the fallback has something to do
    assert max(in_the_end) < 1e-10


def test_a_fallback_that_gives_up_leaves_the_flag(monkeypatch):
    def give_up(*_):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("scipy.optimize.nnls", give_up)
    monkeypatch.setattr(anchors, "ACCEPTED", -1.0)
    rng = np.random.default_rng(5)
    points = np.vstack([rng.standard_normal((3, 8)), np.ones(8)])
    solutions = anchors.solve(points, rng.standard_normal((4, 5)))
    assert solutions.kkt_residual.max() < 1e-12  # the first answer stands


def test_results_do_not_depend_on_threads_or_chunks(monkeypatch):
    rng = np.random.default_rng(6)
    points = np.vstack([rng.standard_normal((6, 20)), np.ones(20)])
    t = rng.standard_normal((7, 40))
    monkeypatch.setattr(anchors, "CHUNK", 16)
    one = mc.anchor_points(points, t, threads=1)
    two = mc.anchor_points(points, t, threads=2)
    for name in ("anchors", "sq_distance", "kkt_residual", "iterations"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


# Known answers (closed forms in mc.analytic, tested against integrals of their own)


def quantiles(count):
    return ndtri((np.arange(count) + 0.5) / count)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 2.0])
def test_points(kappa):
    t0 = quantiles(200 if not JIT else 4000)[None]
    solutions = mc.anchor_points(np.ones((1, 1)), t0, kappa)
    assert 1 / solutions.sq_distance.mean() == pytest.approx(mc.point_capacity(kappa), rel=3e-2)
    np.testing.assert_allclose(solutions.sq_distance, np.maximum(t0[0] + kappa, 0) ** 2)


def ball_by_quadrature(radius, dimension, kappa, nodes, corners=100):
    """Capacity, radius, dimension of a segment or a polygon, t on a grid of quantiles."""
    r = np.sqrt(chdtri(dimension, 1 - (np.arange(nodes) + 0.5) / nodes))
    r, t0 = (a.ravel() for a in np.meshgrid(r, quantiles(nodes)))
    if dimension == 1:
        points, t = np.array([[-radius, radius], [1, 1]]), np.stack([r, t0])
    else:
        angle = 2 * np.pi * np.arange(corners) / corners
        points = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.ones(corners)])
        t = np.stack([r, np.zeros_like(r), t0])
    solutions = mc.anchor_points(points, t, kappa)
    s = solutions.anchors[:-1]
    along = (t[:-1] * s).sum(0) ** 2 / (s**2).sum(0)
    return 1 / solutions.sq_distance.mean(), np.sqrt((s**2).sum(0).mean()), along.mean()


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize(("radius", "kappa"), [(0.3, 0.0), (1.0, 0.0), (4.0, 0.0), (0.7, 0.5)])
def test_balls_in_one_and_two_dimensions(dimension, radius, kappa):
    nodes = 150 if JIT else 12
    capacity, anchor_radius, anchor_dimension = ball_by_quadrature(
        radius, dimension, kappa, nodes, corners=100 if JIT else 24
    )
    tolerance = 0.01 if JIT else 0.1
    exact = mc.ball_capacity(radius, dimension, kappa)
    assert capacity == pytest.approx(exact, rel=tolerance)
    assert anchor_radius <= radius * (1 + 1e-12)  # inside the ball at the apex
    assert anchor_dimension == pytest.approx(dimension, rel=3 * tolerance)


def test_the_reflection_identity_of_anchors():
    """1/α(R) + 1/α(1/R) = D + 1, from solved anchors."""
    nodes = 150 if JIT else 12
    for radius in (0.2, 0.6):
        both = [ball_by_quadrature(x, 1, 0.0, nodes)[0] for x in (radius, 1 / radius)]
        assert 1 / both[0] + 1 / both[1] == pytest.approx(2, rel=0.01 if JIT else 0.1)


# Properties

sizes = st.tuples(st.integers(1, 5), st.integers(2, 8), st.integers(0, 2**32 - 1))


def drawn(size):
    features, count, seed = size
    rng = np.random.default_rng(seed)
    points = np.vstack([rng.standard_normal((features, count)), np.ones(count)])
    return points, rng.standard_normal((features + 1, 3)), rng


@settings(deadline=None, max_examples=25, derandomize=True)
@given(sizes)
def test_rotation_permutation_and_padding_change_nothing(size):
    points, t, rng = drawn(size)
    reference = mc.anchor_points(points, t).sq_distance
    order = rng.permutation(points.shape[1])
    turn = np.eye(len(points))
    turn[:-1, :-1] = np.linalg.qr(rng.standard_normal((len(points) - 1,) * 2))[0]
    zeros = np.zeros((2, points.shape[1]))
    padded = np.vstack([zeros, points]), np.vstack([rng.standard_normal((2, 3)), t])
    for other in ((points[:, order], t), (turn @ points, turn @ t), padded):
        np.testing.assert_allclose(
            mc.anchor_points(*other).sq_distance, reference, rtol=1e-9, atol=1e-12
        )


@settings(deadline=None, max_examples=25, derandomize=True)
@given(sizes)
def test_points_and_margin_only_make_it_harder(size):
    points, t, _ = drawn(size)
    fewer = mc.anchor_points(points[:, :-1], t).sq_distance
    more = mc.anchor_points(points, t).sq_distance
    assert (more >= fewer - 1e-12).all()
    margins = [mc.anchor_points(points, t, kappa).sq_distance for kappa in (-0.5, 0, 0.5, 1)]
    assert (np.diff(margins, axis=0) >= -1e-12).all()
    # √F is convex in κ: the distance of t from a polyhedron that moves linearly.
    roots = np.sqrt([mc.anchor_points(points, t, k).sq_distance for k in (0.0, 0.5, 1.0)])
    assert (roots[0] + roots[2] - 2 * roots[1] >= -1e-9).all()


@settings(deadline=None, max_examples=25, derandomize=True)
@given(sizes)
def test_a_point_inside_the_hull_changes_nothing(size):
    points, t, rng = drawn(size)
    inside = points @ rng.dirichlet(np.ones(points.shape[1]))
    inside[-1] = 1.0
    np.testing.assert_allclose(
        mc.anchor_points(np.column_stack([points, inside]), t).sq_distance,
        mc.anchor_points(points, t).sq_distance,
        rtol=1e-9,
        atol=1e-12,
    )


# Input


@pytest.mark.parametrize(
    ("points", "t", "kappa", "message"),
    [
        (np.ones(3), np.ones((3, 1)), 0, "expected sD1"),
        (np.ones((3, 0)), np.ones((3, 1)), 0, "expected sD1"),
        (np.ones((3, 2)), np.ones((2, 1)), 0, "of equal first length"),
        (np.full((2, 2), np.nan), np.ones((2, 1)), 0, "sD1: expected finite values"),
        (np.ones((2, 2)), np.full((2, 1), np.inf), 0, "t: expected finite values"),
        (np.ones((2, 2)), np.ones((2, 1)), np.nan, "kappa: expected a finite margin, got nan"),
        (np.zeros((2, 2)), np.ones((2, 1)), 0, "a last row of ones"),
    ],
)
def test_bad_input(points, t, kappa, message):
    with pytest.raises(ValueError, match=message):
        mc.anchor_points(points, t, kappa)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_points_of_any_size_have_the_anchors_of_the_limit(size):
    """Small ones are one point, large ones a cone from the origin."""
    rng = np.random.default_rng(8)
    shape, t = rng.standard_normal((4, 9)), rng.standard_normal((5, 30))
    solutions = mc.anchor_points(np.vstack([size * shape, np.ones(9)]), t, multipliers=True)
    if size < 1:
        limit = np.maximum(t[-1], 0) ** 2
    else:
        limit = [naive.sq_projection_on_cone(shape, vector[:-1]) for vector in t.T]
    np.testing.assert_allclose(solutions.sq_distance, limit, rtol=1e-9, atol=1e-12)
    assert solutions.kkt_residual.max() < 1e-12
    assert np.isfinite(solutions.anchors).all()
    assert (solutions.multipliers >= 0).all()


def test_vectors_beyond_any_gaussian_are_refused():
    with pytest.raises(ValueError, match=r"t: expected Gaussian vectors, got values over 1e\+100"):
        mc.anchor_points(np.ones((2, 2)), np.full((2, 1), 1e101))


def test_a_certificate_of_no_such_vector():
    with pytest.raises(ValueError, match=r"subset: expected a whole number, got 0\.5"):
        mc.certify(np.ones((2, 2)), np.ones((2, 1)), subset=[0.5])
    with pytest.raises(ValueError, match="subset: expected columns of t up to 0, got 1"):
        mc.certify(np.ones((2, 2)), np.ones((2, 1)), subset=[1])


def test_threads_must_be_positive():
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        mc.anchor_points(np.ones((2, 2)), np.ones((2, 1)), threads=0)


@pytest.mark.parametrize("kept", [True, False])
def test_code_is_kept_where_there_is_a_folder(monkeypatch, kept):
    def cache(function):
        if not kept:
            raise RuntimeError("cannot cache function: no locator available")
        return "cache"

    monkeypatch.setattr(_jit, "njit", lambda **_: lambda _: SimpleNamespace(_cache=None))
    monkeypatch.setattr(_jit, "Cache", cache)
    assert _jit.compiled(len)._cache == ("cache" if kept else None)


def test_a_cache_that_fails_is_empty(monkeypatch):
    def fail(*_):
        raise EOFError("Ran out of input")

    cache = object.__new__(_jit.Cache)
    flushed = []
    for name in ("load_overload", "save_overload"):
        monkeypatch.setattr(FunctionCache, name, fail)
    monkeypatch.setattr(FunctionCache, "flush", lambda self: flushed.append(self))
    assert cache.load_overload(None, None) is None
    assert flushed == [cache]
    cache.save_overload(None, None)


SOURCE = """
from manifold_capacity._jit import compiled

@compiled
def twice(x):
    return 2 * x
"""


def load(path):
    """Import a file anew."""
    spec = importlib.util.spec_from_file_location("kept", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.parametrize("damage", [0, 3, 40, -7])
@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("replaceable", [True, False])
def test_truncated_code_is_compiled_anew(tmp_path, monkeypatch, damage, suffix, replaceable):
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "kept.py").write_text(SOURCE)
    assert load(tmp_path / "kept.py")(3.0) == 6.0
    (file,) = (tmp_path / "cache").rglob(f"*.{suffix}")
    file.write_bytes(file.read_bytes()[:damage])
    if not replaceable:
        monkeypatch.setattr(_jit.Cache, "flush", lambda self: os.stat(tmp_path / "none"))
    assert load(tmp_path / "kept.py")(4.0) == 8.0
    again = load(tmp_path / "kept.py")
    assert again(5.0) == 10.0
    if replaceable:
        assert again.stats.cache_hits.total() == 1


CALL = """
import numpy as np, manifold_capacity as mc
points = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
print(mc.anchor_points(points, np.ones((3, 2))).sq_distance.tolist())
"""


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_a_kernel_called_directly_survives_a_truncated_cache(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def call():
        command = [sys.executable, "-c", CALL]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = call()
    files = [path for path in tmp_path.rglob("*.nb?") if path.is_file()]
    assert {path.suffix for path in files} == {".nbi", ".nbc"}
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert call() == first != ""


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_every_kernel_keeps_its_code_in_the_cache_that_survives():
    kernels = [
        each
        for module in pkgutil.iter_modules(mc.__path__, "manifold_capacity.")
        for each in vars(importlib.import_module(module.name)).values()
        if isinstance(each, Dispatcher)
    ]
    assert len(kernels) > 10
    assert all(isinstance(each._cache, _jit.Cache) for each in kernels)


def test_processors_are_counted_where_affinity_is_unknown(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert _parallel.available() == 1


def test_a_certificate_prints_its_largest_difference_and_survives_failing_solvers():
    rng = np.random.default_rng(7)
    points = np.vstack([rng.standard_normal((3, 6)), np.ones(6)])
    t = np.column_stack([rng.standard_normal((4, 3)), [0, 0, 0, -9], np.zeros(4)])
    certificate = mc.certify(points, t, subset=[0, 1, 3, 4])
    assert certificate.sq_distance["OSQP"].shape == (4,)
    assert certificate.sq_distance["OSQP"][2] == 0  # satisfied already
    assert "largest difference to cvxpy: " in str(certificate)
    assert certificate.difference.max() < 1e-8
    none = mc.certify(points, t[:, :1], solvers=["no such solver"])
    assert np.isnan(none.difference).all()


def test_without_cvxpy_a_certificate_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"certify: expected cvxpy, .*logit-distributions\[certify"
    ):
        mc.certify(np.ones((2, 2)), np.ones((2, 1)))
