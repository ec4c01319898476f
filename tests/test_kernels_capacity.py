"""Capacity, radius, dimension; centre correlation and low rank; the drop-in."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import manifold_capacity as mc
from manifold_capacity import centers
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
    found = mc.mean_field_capacity(
        manifolds, kappa, n_t=25, t_vecs=t_vecs, low_rank=False, definition=definition
    )
    for i, points in enumerate(naive.normalised(list(manifolds))):
        capacity, radius, dimension = naive.moments(points, kappa, t_vecs[i], definition)
        assert found["capacity"][i] == pytest.approx(capacity, rel=1e-8)
        assert found["radius"][i] == pytest.approx(radius, rel=1e-8)
        assert found["dimension"][i] == pytest.approx(dimension, rel=1e-8)
    assert found["combined_capacity"] == pytest.approx(1 / np.mean(1 / found["capacity"]))
    assert found["low_rank_dimension"] == 0
    assert found["kkt_residual"] < 1e-12
    assert found["unsolved"] == 0


def test_ragged_manifolds_float32_and_memory_maps_give_the_same(tmp_path):
    manifolds = [m[:, : 3 + i] for i, m in enumerate(clouds().astype(np.float32))]
    reference = mc.mean_field_capacity([m.astype(np.float64) for m in manifolds], n_t=20)
    mapped = []
    for i, manifold in enumerate(manifolds):
        np.save(tmp_path / f"{i}.npy", manifold)
        mapped.append(np.load(tmp_path / f"{i}.npy", mmap_mode="r"))
    for other in (manifolds, mapped):
        found = mc.mean_field_capacity(other, n_t=20)
        for name in reference:
            np.testing.assert_array_equal(found[name], reference[name])


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
    found = []
    for limit in (1, 2):
        with threadpool_limits(limit, user_api="blas"):
            found.append(function(manifolds, **options))
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name])


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
    found = mc.mean_field_capacity(manifolds, n_t=t_vecs[0].shape[1], t_vecs=t_vecs, low_rank=False)
    error = 5 * found["combined_capacity_se"] + (0.0 if JIT else 0.1)
    assert found["combined_capacity"] == pytest.approx(limit, abs=error)
    assert found["kkt_residual"] < 1e-10


def test_a_manifold_of_single_points_is_a_point():
    rng = np.random.default_rng(0)
    found = mc.mean_field_capacity(rng.standard_normal((4, 30, 1)), n_t=3000, low_rank=False)
    assert found["combined_capacity"] == pytest.approx(2, abs=5 * found["combined_capacity_se"])
    np.testing.assert_allclose(found["radius"], 0, atol=1e-12)
    np.testing.assert_array_equal(found["dimension"], 0)


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
    found = mc.center_correlation(correlated_centers())
    assert found == pytest.approx(naive.center_correlation(correlated_centers()))


def test_the_low_rank_cost_and_its_gradient_agree_with_the_naive_twin():
    x, _ = centers.coordinates(correlated_centers())
    rng = np.random.default_rng(0)
    v = np.linalg.qr(rng.standard_normal((x.shape[1], 3)))[0]
    cost, gradient, precondition = centers.cost_and_gradient(x, x @ x.T, v)
    assert cost == pytest.approx(naive.low_rank_cost(x, v))
    np.testing.assert_allclose(v.T @ gradient, 0, atol=1e-10)
    direction = rng.standard_normal(v.shape)
    direction -= v @ (v.T @ direction)
    step = 1e-6
    ahead, behind = (np.linalg.qr(v + s * direction)[0] for s in (step, -step))
    slope = (naive.low_rank_cost(x, ahead) - naive.low_rank_cost(x, behind)) / (2 * step)
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5)
    assert (np.linalg.eigvalsh(precondition) > 0).all()


def test_the_search_finds_planted_structure_and_random_starts_do_no_better():
    middles = correlated_centers(features=200, count=14, rank=2)
    found = mc.low_rank(middles, n_reps=4)
    assert found.residuals.argmin() + 1 == found.rank
    assert found.correlation == pytest.approx(mc.center_correlation(middles))
    left = middles - middles.mean(axis=1, keepdims=True)
    left -= found.basis @ (found.basis.T @ left)
    assert naive.center_correlation(left) == pytest.approx(found.residuals.min(), rel=1e-6)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(found.rank), atol=1e-9)
    x, _ = centers.coordinates(middles)
    rng = np.random.default_rng(0)
    for rank in (1, 2, 3):
        for _ in range(5):
            start = np.linalg.qr(rng.standard_normal((x.shape[1], rank)))[0]
            _, cost = centers.minimise(x, x @ x.T, start, 1e-6)
            assert found.costs[rank - 1] <= cost * 1.01


def test_more_starts_never_cost_more():
    middles = correlated_centers(rank=4)
    one, many = (mc.low_rank(middles, n_reps=n, seed=3) for n in (1, 4))
    assert many.costs[0] <= one.costs[0] + 1e-9
    again = mc.low_rank(middles, n_reps=4, seed=3)
    np.testing.assert_array_equal(again.basis, many.basis)


def test_the_search_needs_a_start():
    with pytest.raises(ValueError, match="n_reps: expected at least 1 start, got 0"):
        mc.low_rank(correlated_centers(), n_reps=0)


def test_the_search_stops_after_three_increases():
    rng = np.random.default_rng(0)
    found = mc.low_rank(rng.standard_normal((300, 25)))
    assert len(found.residuals) < 24
    assert (np.diff(found.residuals[-4:]) > 0).all()


def test_a_descent_from_a_minimum_stays_there():
    x, _ = centers.coordinates(correlated_centers())
    start = np.linalg.qr(np.random.default_rng(0).standard_normal((x.shape[1], 2)))[0]
    v, cost = centers.minimise(x, x @ x.T, start, 1e-7)
    _, same = centers.minimise(x, x @ x.T, v, 1e-7)
    assert same == pytest.approx(cost, rel=1e-10)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_few_manifolds_leave_at_least_one_direction(count):
    found = mc.low_rank(correlated_centers(count=count))
    assert found.rank <= max(count - 2, 0)
    result = mc.mean_field_capacity(clouds(count), n_t=20)
    assert np.isfinite(result["capacity"]).all()


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
    with pytest.raises(ValueError, match="coincide"):
        mc.mean_field_capacity([manifold, manifold], n_t=10)
    with pytest.raises(ValueError, match="manifold 0: its centre coincides"):
        mc.mean_field_capacity([manifold, manifold], n_t=10, low_rank=False)


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
    basis = mc.low_rank(middles, n_reps=2).basis
    assert rank == basis.shape[1]
    # The steps of the package, in its order, with the same subspace.
    t_vecs = vectors_for(manifolds, n_t)
    origin = np.concatenate(list(manifolds), axis=1).mean(axis=1, keepdims=True)
    for i, manifold in enumerate(manifolds):
        left = manifold - origin
        left = left - basis @ (basis.T @ left)
        middle = left.mean(axis=1, keepdims=True)
        left = (left - middle) / np.linalg.norm(middle)
        from scipy.linalg import qr

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
    found = mc.mean_field_capacity(clouds(), n_t=10)
    assert found["capacity"] is found.capacity
    assert len(found) == len(list(found))
    with pytest.raises(AttributeError, match="no 'capactiy': expected one of capacity"):
        _ = found.capactiy
    dataset = found.to_xarray()
    assert dataset.sizes == {"manifold": 5}
    assert dataset.attrs["definition"] == "paper"
    assert float(dataset["combined_capacity"]) == found.combined_capacity
    assert "combined_capacity" in repr(found)
    assert "(manifold 5)" in repr(found)


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
        (GOOD, {"definition": "matlab"}, "definition: expected 'paper' or 'package'"),
        (GOOD, {"t_vecs": [np.ones((7, 300))]}, "t_vecs: expected 3 arrays"),
        (GOOD, {"t_vecs": [np.ones((6, 300))] * 3}, r"t_vecs\[0\]: expected shape .* \(7, 300\)"),
        (GOOD, {"t_vecs": [np.full((7, 300), np.nan)] * 3}, r"t_vecs\[0\]: expected finite"),
        (GOOD[:, :1], {}, "at least 2 features"),
    ],
)
def test_bad_input_is_named(manifolds, options, message):
    with pytest.raises(ValueError, match=message):
        mc.mean_field_capacity(manifolds, **options)
