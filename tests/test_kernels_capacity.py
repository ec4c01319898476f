"""Capacity, radius, dimension; centre correlation and low rank; the drop-in."""

import dataclasses
import os

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.linalg import qr
from threadpoolctl import threadpool_limits

import manifold_capacity as mc
from manifold_capacity import capacity, centers
from manifold_capacity.replica import manifold_analysis_corr
from tests import naive_kernels as naive

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


def clouds(count=5, features=12, points=6, seed=0, radius=0.7):
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, features, 1))
    return middles + radius * rng.standard_normal((count, features, points))


def vectors_for(manifolds, n_t, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((min(m.shape) + 1, n_t)) for m in manifolds]


@pytest.mark.parametrize("definition", ["paper", "package"])
@pytest.mark.parametrize("shape", [(12, 6), (4, 9)])
@pytest.mark.parametrize("kappa", [0.0, 0.4])
def test_all_measures_agree_with_the_naive_twin(definition, shape, kappa):
    manifolds = clouds(features=shape[0], points=shape[1])
    t_vecs = vectors_for(manifolds, 25)
    theory = mc.mean_field_capacity(
        manifolds, kappa, n_t=25, t_vecs=t_vecs, low_rank=False, definition=definition
    )
    for i, points in enumerate(naive.normalised(list(manifolds))):
        capacity, radius, dimension = naive.moments(points, kappa, t_vecs[i], definition)
        assert theory["capacity"][i] == pytest.approx(capacity, rel=1e-8)
        assert theory["radius"][i] == pytest.approx(radius, rel=1e-8)
        assert theory["dimension"][i] == pytest.approx(dimension, rel=1e-8)
    assert theory["combined_capacity"] == pytest.approx(1 / np.mean(1 / theory["capacity"]))
    assert theory["low_rank_dimension"] == 0
    assert theory["kkt_residual"] < 1e-12
    assert theory["unsolved"] == 0


def test_ragged_manifolds_float32_and_memory_maps_give_the_same(tmp_path):
    manifolds = [m[:, : 3 + i] for i, m in enumerate(clouds().astype(np.float32))]
    reference = mc.mean_field_capacity([m.astype(np.float64) for m in manifolds], n_t=20)
    mapped = []
    for i, manifold in enumerate(manifolds):
        np.save(tmp_path / f"{i}.npy", manifold)
        mapped.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    for other in (manifolds, mapped):
        theory = mc.mean_field_capacity(other, n_t=20)
        for name in reference:
            np.testing.assert_array_equal(theory[name], reference[name])


def test_results_do_not_depend_on_threads():
    one, two = (mc.mean_field_capacity(clouds(8), n_t=20, threads=n) for n in (1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    other = mc.mean_field_capacity(clouds(8), n_t=20, seed=1)
    assert (other["capacity"] != one["capacity"]).all()


@pytest.mark.parametrize(
    "function",
    [
        mc.mean_field_capacity,
        mc.conic_capacity,
        mc.simulated_capacity,
    ],
)
def test_results_do_not_depend_on_the_threads_of_blas(function):
    manifolds = clouds(20, features=200)
    options = {"n_t": 10} if function is mc.mean_field_capacity else {"draws": 4}
    results = []
    for limit in (1, 2):
        with threadpool_limits(limit, user_api="blas"):
            results.append(function(manifolds, **options))
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_given_vectors_refer_to_scipys_frame_and_drawn_ones_have_the_same_law():
    manifolds = clouds(3, features=40, points=5)
    n_t = 4000 if JIT else 400
    given = mc.mean_field_capacity(
        manifolds, n_t=n_t, t_vecs=vectors_for(manifolds, n_t), low_rank=False
    )
    drawn = mc.mean_field_capacity(manifolds, n_t=n_t, low_rank=False)
    for name in ("capacity", "radius", "dimension"):
        gap = np.abs(given[name] - drawn[name])
        assert (gap < 5 * np.hypot(given[f"{name}_se"], drawn[f"{name}_se"])).all()


@pytest.mark.parametrize("kind", ["generic", "duplicates", "nearly collinear", "one point"])
def test_the_frame_of_given_vectors_is_scipys(kind):
    rng = np.random.default_rng(0)
    for count in (2, 3, 7, 20):
        points = rng.standard_normal((45, count))
        if kind == "duplicates":
            points[:, -1] = points[:, 0]
        elif kind == "nearly collinear":
            points = points[:, :1] * rng.standard_normal(count) + 1e-5 * points
        elif kind == "one point":
            points = points[:, :1]
        points -= points.mean(axis=1, keepdims=True)
        expected = qr(points, mode="economic")[1]
        frame = capacity._qr_frame(points, points.T @ points)
        if kind in ("generic", "one point") or count == 2:
            np.testing.assert_allclose(frame, expected, atol=1e-12)
        else:  # where directions are left to rounding, LAPACK has to be asked
            np.testing.assert_array_equal(frame, expected)


def test_standard_errors_match_the_spread_over_seeds():
    manifolds = clouds(2, points=4)
    runs = [
        mc.mean_field_capacity(manifolds, n_t=40, low_rank=False, seed=s, definition=d)
        for s in range(40)
        for d in ("paper", "package")
    ]
    for half in (runs[::2], runs[1::2]):
        for name in ("capacity", "radius", "dimension"):
            spread = np.std([run[name] for run in half], axis=0, ddof=1)
            stated = np.mean([run[f"{name}_se"] for run in half], axis=0)
            assert (np.abs(np.log(stated / spread)) < np.log(1.7)).all(), name
        spread = np.std([run["combined_capacity"] for run in half], ddof=1)
        stated = np.mean([run["combined_capacity_se"] for run in half])
        assert abs(np.log(stated / spread)) < np.log(1.7)


def sphere_manifolds(radius, dimension, count=6, features=60, points=60):
    rng = np.random.default_rng(0)
    result = []
    for _ in range(count):
        center = rng.standard_normal(features)
        basis = np.linalg.qr(np.column_stack([center, rng.standard_normal((features, dimension))]))[
            0
        ][:, 1:]
        on_sphere = rng.standard_normal((dimension, points))
        on_sphere /= np.linalg.norm(on_sphere, axis=0)
        on_sphere = np.column_stack([on_sphere, -on_sphere])  # mean zero
        result.append((center / np.linalg.norm(center))[:, None] + radius * basis @ on_sphere)
    return result


@pytest.mark.parametrize(("radius", "limit"), [(1e-6, 2.0), (1e3, 1 / 2.5)])
def test_limits_of_small_and_large_balls(radius, limit):
    """Points at R → 0; 1/(D + 1/2) at R → ∞, here for D = 2."""
    manifolds = sphere_manifolds(radius, 2, points=60 if JIT else 12)
    t_vecs = vectors_for(manifolds, 3000 if JIT else 300)
    theory = mc.mean_field_capacity(
        manifolds, n_t=t_vecs[0].shape[1], t_vecs=t_vecs, low_rank=False
    )
    error = 5 * theory["combined_capacity_se"] + (0.0 if JIT else 0.1)
    assert theory["combined_capacity"] == pytest.approx(limit, abs=error)
    assert theory["kkt_residual"] < 1e-10


@pytest.mark.parametrize("count", [2, 5, 9])
def test_the_frame_does_not_depend_on_rounding(count):
    """The last two pivots of points that sum to zero tie."""
    rng = np.random.default_rng(count)
    for _ in range(20):
        points = rng.standard_normal((40, count))
        points -= points.mean(axis=1, keepdims=True)
        first = capacity._factor(points.T @ points)
        np.testing.assert_allclose(first.T @ first, points.T @ points, atol=1e-12)
        shaken = points * (1 + 1e-15 * rng.standard_normal(points.shape))
        np.testing.assert_allclose(capacity._factor(shaken.T @ shaken), first, atol=1e-6)


def test_a_manifold_of_single_points_is_a_point():
    rng = np.random.default_rng(0)
    theory = mc.mean_field_capacity(rng.standard_normal((4, 30, 1)), n_t=3000, low_rank=False)
    assert theory["combined_capacity"] == pytest.approx(2, abs=5 * theory["combined_capacity_se"])
    np.testing.assert_allclose(theory["radius"], 0, atol=1e-12)
    np.testing.assert_array_equal(theory["dimension"], 0)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_scale_shift_rotation_and_order_change_nothing(seed, scale):
    """With N <= M no frame is chosen, so t vectors turn with the features."""
    rng = np.random.default_rng(seed)
    manifolds = clouds(4, features=3, points=5, seed=seed % 1000)
    t_vecs = vectors_for(manifolds, 8)
    reference = mc.mean_field_capacity(manifolds, n_t=8, t_vecs=t_vecs, low_rank=False)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turned = [np.vstack([turn @ t[:-1], t[-1:]]) for t in t_vecs]
    moved = scale * turn @ manifolds + rng.standard_normal((3, 1))
    order, inner = rng.permutation(4), rng.permutation(5)
    other = mc.mean_field_capacity(
        moved[order][:, :, inner], n_t=8, t_vecs=[turned[i] for i in order], low_rank=False
    )
    for name in ("capacity", "radius", "dimension"):
        np.testing.assert_allclose(other[name], reference[name][order], rtol=1e-6)


def test_padding_with_zero_features_changes_the_packages_dimension_only():
    """A segment: D_M of the package depends on the features it is embedded in."""
    manifolds = clouds(4, features=2, points=3)
    padded = np.concatenate([manifolds, np.zeros((4, 6, 3))], axis=1)
    results = {
        d: [
            mc.mean_field_capacity(m, n_t=2000 if JIT else 100, low_rank=False, definition=d)
            for m in (manifolds, padded)
        ]
        for d in ("paper", "package")
    }
    for name in ("capacity", "radius"):
        for few, many in results.values():
            error = 5 * np.hypot(few[f"{name}_se"], many[f"{name}_se"])
            assert (np.abs(few[name] - many[name]) < error).all()
    few, many = results["paper"]
    error = 5 * np.hypot(few["dimension_se"], many["dimension_se"])
    assert (np.abs(few["dimension"] - many["dimension"]) < error).all()


# Centres


def correlated_centers(features=40, count=9, rank=2, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((features, rank)) @ rng.standard_normal((rank, count))
    return common + 0.3 * rng.standard_normal((features, count))


def test_centre_correlation_agrees_with_the_naive_twin():
    correlation = mc.center_correlation(correlated_centers())
    assert correlation == pytest.approx(naive.center_correlation(correlated_centers()))


@pytest.mark.parametrize("evenness", [0.0, 1.0])
def test_the_low_rank_cost_and_its_gradient_agree_with_the_naive_twin(evenness):
    x, _ = centers.coordinates(correlated_centers())
    rng = np.random.default_rng(0)
    v = np.linalg.qr(rng.standard_normal((x.shape[1], 3)))[0]
    cost, gradient, precondition = centers.cost_and_gradient(x, x @ x.T, v, evenness)
    assert cost == pytest.approx(naive.low_rank_cost(x, v, evenness))
    np.testing.assert_allclose(v.T @ gradient, 0, atol=1e-10)
    direction = rng.standard_normal(v.shape)
    direction -= v @ (v.T @ direction)
    step = 1e-6
    ahead, behind = (np.linalg.qr(v + s * direction)[0] for s in (step, -step))
    costs = [naive.low_rank_cost(x, side, evenness) for side in (ahead, behind)]
    slope = (costs[0] - costs[1]) / (2 * step)
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5)
    assert (np.linalg.eigvalsh(precondition) > 0).all()


@pytest.mark.parametrize("rule", ["guarded", "package"])
def test_the_search_finds_planted_structure(rule):
    middles = correlated_centers(features=200, count=14, rank=2)
    reduced = mc.low_rank(middles, rule, n_reps=4)
    assert reduced.correlation == pytest.approx(mc.center_correlation(middles))
    left = middles - middles.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(left, axis=0)
    left -= reduced.basis @ (reduced.basis.T @ left)
    assert naive.center_correlation(left) == pytest.approx(reduced.residuals[reduced.rank - 1])
    np.testing.assert_allclose(reduced.kept, np.linalg.norm(left, axis=0) / lengths)
    np.testing.assert_allclose(reduced.basis.T @ reduced.basis, np.eye(reduced.rank), atol=1e-9)
    if rule == "guarded":
        assert reduced.rank == 2
    else:
        assert reduced.residuals.argmin() + 1 == reduced.rank


@pytest.mark.parametrize(
    ("rule", "evenness", "seed"),
    [("guarded", centers.EVENNESS, 0), ("guarded", centers.EVENNESS, 2), ("package", 0.0, 0)],
)
def test_a_slow_general_solver_finds_no_lower_cost(rule, evenness, seed):
    middles = correlated_centers(count=7, rank=2, seed=seed)
    x, _ = centers.coordinates(middles)
    reduced = mc.low_rank(middles, rule, n_reps=6)
    assert reduced.rank > 0
    rank = reduced.rank if rule == "guarded" else 1
    slow = naive.lowest_cost(x, rank, evenness, starts=2 if JIT else 1, seed=0)
    assert reduced.costs[rank - 1] <= slow * (1 + 1e-4)


def test_the_guarded_rule_needs_no_seed_and_no_starts():
    middles = correlated_centers(rank=4)
    first = mc.low_rank(middles)
    for seed, n_reps, threads in ((1, 1, 1), (2, 5, 2)):
        other = mc.low_rank(middles, seed=seed, n_reps=n_reps, threads=threads)
        np.testing.assert_array_equal(other.basis, first.basis)


@pytest.mark.parametrize(("features", "count"), [(250, 100), (1000, 400), (50, 200)])
def test_random_centres_are_left_alone(features, count):
    """At P/N = 0.4 the package's rule removes noise, 12 dimensions of P = 100."""
    rng = np.random.default_rng(0)
    assert mc.low_rank(rng.standard_normal((features, count))).rank == 0


def relu_clouds(seed):
    """Noise of three inputs' dimensions and more through one random layer of ReLUs."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((30, 3)) @ rng.standard_normal((3, 10)) / np.sqrt(3)
    inputs = inputs + 0.3 * rng.standard_normal((30, 10))
    points = inputs[:, :, None] + 0.4 * rng.standard_normal((30, 10, 12))
    weights = rng.standard_normal((200, 30)) / np.sqrt(15)
    return np.maximum(np.einsum("ni,ipm->pnm", weights, points), 0)


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
def test_the_guarded_rule_is_nearer_to_conic_geometry_than_the_packages_or_none():
    """Where the theory holds but for its centres: these inputs, once more through ReLUs."""
    gaps = {"guarded": [], "package": [], False: []}
    for seed in range(6):
        manifolds = relu_clouds(seed)
        centred = manifolds - manifolds.mean(axis=(0, 2), keepdims=True)
        conic = mc.conic_capacity(centred, draws=200).capacity
        for rule, each in gaps.items():
            theory = mc.mean_field_capacity(manifolds, n_t=200, low_rank=rule)
            each.append(np.log(theory.combined_capacity / conic))
            if rule == "guarded":
                assert theory.center_kept.min() > 0.3
    far = {rule: np.sqrt(np.mean(np.square(each))) for rule, each in gaps.items()}
    assert far["guarded"] < 0.75 * min(far["package"], far[False])
    assert np.abs(gaps["guarded"]).max() < np.log(1.25)


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
@pytest.mark.parametrize("count", [3, 5, 10])
def test_few_random_manifolds_keep_their_centres(count):
    """Removing one dimension of P = 3 takes 40 % of the capacity; nothing is to be removed."""
    manifolds = clouds(count, features=200, points=10)
    theory = mc.mean_field_capacity(manifolds, n_t=2000)
    raw = mc.mean_field_capacity(manifolds, n_t=2000, low_rank=False)
    assert theory.low_rank_dimension == 0
    assert theory.combined_capacity == raw.combined_capacity
    package = mc.mean_field_capacity(manifolds, n_t=2000, low_rank="package")
    conic = mc.conic_capacity(manifolds - manifolds.mean(axis=(0, 2), keepdims=True), draws=500)
    gaps = [abs(np.log(one.combined_capacity / conic.capacity)) for one in (theory, package)]
    assert gaps[0] < gaps[1]


def test_more_starts_never_cost_more():
    middles = correlated_centers(rank=4)
    one, many = (mc.low_rank(middles, "package", n_reps=n, seed=3) for n in (1, 4))
    assert many.costs[0] <= one.costs[0] + 1e-9
    again = mc.low_rank(middles, "package", n_reps=4, seed=3)
    np.testing.assert_array_equal(again.basis, many.basis)


def test_stability_chooses_the_start_in_which_the_least_kept_centre_keeps_most():
    middles = correlated_centers(rank=3, count=8)
    x, _ = centers.coordinates(middles)
    reduced = mc.low_rank(middles, "package", n_reps=5, choose="stability")
    cheap = mc.low_rank(middles, "package", n_reps=5)
    assert reduced.costs[0] >= cheap.costs[0] * (1 - 1e-9)

    def least_kept(v):
        return (np.linalg.norm(x - x @ v @ v.T, axis=1) / np.linalg.norm(x, axis=1)).min()

    rng = np.random.default_rng([0, 0])
    starts = [centers._leading_direction(x)] + [x.T @ rng.standard_normal(8) for _ in range(4)]
    ends = [centers.minimise(x, x @ x.T, (s / np.linalg.norm(s))[:, None], 0.0) for s in starts]
    best = max(ends, key=lambda end: least_kept(end[0]))
    assert reduced.costs[0] == pytest.approx(best[1], rel=1e-6)
    assert best[1] > 1.0001 * min(cost for _, cost in ends)  # so there was something to choose


def test_the_search_stops_after_three_increases():
    rng = np.random.default_rng(0)
    reduced = mc.low_rank(rng.standard_normal((300, 25)), "package")
    assert len(reduced.residuals) < 24
    assert (np.diff(reduced.residuals[-4:]) > 0).all()


def test_a_descent_from_a_minimum_stays_there():
    x, _ = centers.coordinates(correlated_centers())
    start = np.linalg.qr(np.random.default_rng(0).standard_normal((x.shape[1], 2)))[0]
    v, cost = centers.minimise(x, x @ x.T, np.ascontiguousarray(start), 1.0, 1e-7)
    _, same = centers.minimise(x, x @ x.T, v, 1.0, 1e-7)
    assert same == pytest.approx(cost, rel=1e-10)


def test_a_subspace_that_takes_a_centre_whole_has_infinite_cost():
    x, _ = centers.coordinates(correlated_centers())
    whole = (x[0] / np.linalg.norm(x[0]))[:, None].copy()
    v, cost = centers.minimise(x, x @ x.T, whole, 1.0)
    assert cost == np.inf
    np.testing.assert_array_equal(v, whole)


def test_a_centre_on_the_mean_is_no_matter_of_the_scale_of_data():
    """Centres c, c + v, c - v: the first is on the mean but for rounding."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        c, v = rng.standard_normal((2, 20))
        middles = np.stack([c, c + v, c - v], axis=1)
        assert mc.center_correlation(middles) == pytest.approx(1 / 3)
        assert np.isnan(mc.low_rank(middles).kept).tolist() == [True, False, False]
    assert mc.center_correlation([[0.1, 0.2, 0.3]]) == pytest.approx(1 / 3)
    assert mc.center_correlation([[1, 2, 3]]) == pytest.approx(1 / 3)


def annihilate(monkeypatch, points, which):
    """Make the low-rank step remove almost the whole centre of one manifold."""
    middles = points.mean(axis=2).T
    deviations = middles - middles.mean(axis=1, keepdims=True)
    direction = deviations[:, which] + 1e-5 * np.arange(len(deviations)) / len(deviations)

    def step(centers, *_):
        reduced = mc.low_rank(centers)
        return dataclasses.replace(reduced, basis=(direction / np.linalg.norm(direction))[:, None])

    monkeypatch.setattr(capacity, "find_low_rank", step)


def test_an_annihilated_centre_is_flagged_and_left_out(monkeypatch):
    points = clouds(6, features=30)
    annihilate(monkeypatch, points, 2)
    with pytest.warns(RuntimeWarning, match=r"manifolds \[2\]: keep less than 0.001 of their"):
        theory = mc.mean_field_capacity(points, n_t=50)
    assert theory.flagged.tolist() == [False, False, True, False, False, False]
    assert 0 < theory.center_kept[2] < 1e-3 < theory.center_kept[0]
    assert theory.radius[2] > 1000
    kept = theory.capacity[~theory.flagged]
    assert theory.combined_capacity == pytest.approx(1 / np.mean(1 / kept))
    monkeypatch.setattr(capacity, "KEPT", 2.0)
    with pytest.warns(RuntimeWarning, match=r"manifolds \[0, 1, 2, 3, 4, 5\]: keep less"):
        assert np.isnan(mc.mean_field_capacity(points, n_t=5).combined_capacity)
    monkeypatch.undo()
    annihilate(monkeypatch, points, 2)
    with pytest.warns(RuntimeWarning, match=r"manifolds \[2\]: keep less than 0.001 of their"):
        _, radius, *_ = manifold_analysis_corr(points, 0, 50)
    assert radius[2] > 1000


@pytest.mark.parametrize("count", [2, 3, 6])
def test_few_manifolds_leave_at_least_one_direction(count):
    reduced = mc.low_rank(correlated_centers(count=count))
    assert reduced.rank <= max(count - 2, 0)
    result = mc.mean_field_capacity(clouds(count), n_t=20)
    assert np.isfinite(result["capacity"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_reps": 0}, "n_reps: expected at least 1, got 0"),
        ({"rule": "paper"}, "rule: expected one of guarded, package, got 'paper'"),
        ({"choose": 1}, "choose: expected one of cost, stability, got 1"),
        ({"seed": 0.5}, "seed: expected a whole number, got 0.5"),
    ],
)
def test_bad_options_of_the_search(options, message):
    with pytest.raises(ValueError, match=message):
        mc.low_rank(correlated_centers(), **options)


@pytest.mark.parametrize(
    ("middles", "message"),
    [
        (np.ones(4), r"expected an array \(N features, P >= 2 centres\), got shape \(4,\)"),
        (np.ones((4, 1)), r"got shape \(4, 1\)"),
        (np.full((3, 4), np.nan), "centers: expected finite values"),
    ],
)
@pytest.mark.parametrize("function", [mc.center_correlation, mc.low_rank])
def test_bad_centres(function, middles, message):
    with pytest.raises(ValueError, match=message):
        function(middles)


def test_coinciding_centres_have_no_correlation():
    with pytest.raises(ValueError, match="all centres coincide"):
        mc.center_correlation(np.ones((3, 4)))
    manifold = np.random.default_rng(0).standard_normal((6, 5))
    manifold -= manifold.mean(axis=1, keepdims=True)
    for same in ([manifold, manifold], [manifold + 0.1] * 3):
        for rule in ("guarded", "package", False):
            with pytest.raises(ValueError, match="manifold 0: its centre coincides"):
                mc.mean_field_capacity(same, n_t=10, low_rank=rule)


# Closed forms at their limits


@pytest.mark.parametrize("kappa", [-37.0, -20.0, -8.0, -5.1, -5.0, -4.9, 0.5, 1e5])
def test_point_capacity_agrees_with_forty_digits(kappa):
    with mpmath.workdps(40):
        k = mpmath.mpf(kappa)
        exact = 1 / ((1 + k**2) * mpmath.ncdf(k) + k * mpmath.npdf(k))
        assert abs(mc.point_capacity(kappa) / exact - 1) < 1e-11


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        ((-39.0,), np.inf),
        ((-1e300,), np.inf),
        ((1e300,), 0.0),
        ((1e-10, 1000, -200), np.inf),
        ((1e-300, 3, 0.0), 2.0),
        ((1e300, 3, 0.0), 1 / 3.5),
        ((1e300, 3, -1e10), 1 / 3),
        ((1e300, 3, -1e300), None),
        ((1.0, 1e300, 0.0), 2e-300),
        ((1.0, 1e-300, 0.0), 2.0),
        ((1.0, 3, 1e300), 0.0),
        ((1e300, 3, 0.0, "paper"), 1 / 3),
        ((1e300, 1e300, 1e300, "paper"), 1e-300),
        ((1e-300, 5, 0.0, "paper"), 2.0),
    ],
)
def test_closed_forms_at_their_limits(arguments, limit):
    function = mc.point_capacity if len(arguments) == 1 else mc.ball_capacity
    if limit is None:  # R and κ to infinity in proportion: E [r - 1]₊², r ~ χ_3
        limit = (
            1
            / quad(
                lambda r: (r - 1) ** 2 * np.sqrt(2 / np.pi) * r**2 * np.exp(-r * r / 2), 1, np.inf
            )[0]
        )
    assert function(*arguments) == pytest.approx(limit, rel=1e-9)


def test_many_dimensions_join_few():
    few, many = (mc.ball_capacity(0.01, d, -0.3) for d in (9999.9, 10000.1))
    slope = np.log(mc.ball_capacity(0.01, 11000, -0.3) / few) / 1000
    assert np.log(many / few) == pytest.approx(0.2 * slope, rel=0.1)


# The drop-in


def test_the_drop_in_returns_the_packages_five():
    manifolds = clouds(8, features=60)
    n_t = 30
    capacity, radius, dimension, correlation, rank = manifold_analysis_corr(
        list(manifolds), 0, n_t, t_vecs=vectors_for(manifolds, n_t), n_reps=2
    )
    assert capacity.shape == radius.shape == dimension.shape == (8,)
    middles = manifolds.mean(axis=2).T
    assert correlation == pytest.approx(naive.center_correlation(middles))
    basis = mc.low_rank(middles, "package", n_reps=2, choose="stability").basis
    assert rank == basis.shape[1]
    # The steps of the package, in its order, with the same subspace.
    t_vecs = vectors_for(manifolds, n_t)
    origin = np.concatenate(list(manifolds), axis=1).mean(axis=1, keepdims=True)
    for i, manifold in enumerate(manifolds):
        left = manifold - origin
        left = left - basis @ (basis.T @ left)
        middle = left.mean(axis=1, keepdims=True)
        left = (left - middle) / np.linalg.norm(middle)
        q, _ = qr(left, mode="economic")
        expected = naive.moments((q.T @ left), 0, t_vecs[i], "package")
        np.testing.assert_allclose((capacity[i], radius[i], dimension[i]), expected, rtol=1e-7)


def test_the_drop_in_warns_of_a_centre_on_the_global_mean():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, 10, 5))
    noise -= noise.mean(axis=2, keepdims=True)
    middles = np.zeros((3, 10, 1))
    middles[0, 0], middles[1, 0] = 1, -1
    with pytest.warns(RuntimeWarning, match=r"manifolds \[2\]: centre on the global mean"):
        capacity, *_ = manifold_analysis_corr(list(middles + noise), 0, 10)
    assert np.isfinite(capacity[:2]).all()
    assert np.isnan(capacity[2])
    with pytest.raises(ValueError, match=r"manifold 2: .*its centre coincides"):
        mc.mean_field_capacity(list(middles + noise), n_t=10)


# Results and input


def test_results_are_mappings_with_labels():
    theory = mc.mean_field_capacity(clouds(), n_t=10)
    assert theory["capacity"] is theory.capacity
    assert len(theory) == len(list(theory))
    with pytest.raises(AttributeError, match="no 'capactiy': expected one of capacity"):
        _ = theory.capactiy
    dataset = theory.to_xarray()
    assert dataset.sizes == {"manifold": 5}
    assert dataset.attrs["definition"] == "paper"
    assert float(dataset["combined_capacity"]) == theory.combined_capacity
    assert "combined_capacity" in repr(theory)
    assert "(manifold 5)" in repr(theory)


GOOD = clouds(3)


@pytest.mark.parametrize(
    ("manifolds", "options", "message"),
    [
        (GOOD[:1], {}, "at least 2 manifolds, got 1"),
        ([GOOD[0], GOOD[1][0]], {}, "manifold 1: expected an array"),
        ([GOOD[0], GOOD[1][:, :0]], {}, "manifold 1: expected an array"),
        ([GOOD[0], GOOD[1][:-1]], {}, "manifold 1: expected 12 features .* got 11; .*transpose"),
        ([GOOD[0], GOOD[1].astype(str)], {}, "manifold 1: expected real numbers"),
        ([GOOD[0], GOOD[1] * np.nan], {}, "manifold 1: .* got nan at feature 0, point 0"),
        (GOOD, {"kappa": np.inf}, "kappa"),
        (GOOD, {"n_t": 1}, "n_t: expected at least 2"),
        (GOOD, {"seed": -1}, "seed: expected at least 0, got -1"),
        (
            GOOD,
            {"definition": "matlab"},
            "definition: expected one of paper, package, got 'matlab'",
        ),
        (GOOD, {"t_vecs": [np.ones((7, 300))]}, "t_vecs: expected 3 arrays"),
        (GOOD, {"t_vecs": [np.ones((6, 300))] * 3}, r"t_vecs\[0\]: expected shape .* \(7, 300\)"),
        (GOOD, {"t_vecs": [np.full((7, 300), np.nan)] * 3}, r"t_vecs\[0\]: expected finite"),
        (GOOD, {"t_vecs": [np.full((7, 300), 1e101)] * 3}, r"t_vecs\[0\]: expected Gaussian"),
        (GOOD, {"low_rank": True}, r"low_rank \(or False\): expected one of guarded, package"),
    ],
)
def test_bad_input_is_named(manifolds, options, message):
    with pytest.raises(ValueError, match=message):
        mc.mean_field_capacity(manifolds, **options)
