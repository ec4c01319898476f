"""GLUE against cvxpy, known limits and mean-field theory."""

import os

import numpy as np
import pytest

import manifold_capacity as mc
from manifold_capacity.conic import Cones
from tests import naive_glue as naive

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
MEASURES = (
    "capacity", "dimension", "radius", "utility", "center_alignment", "axis_alignment",
    "center_axis_alignment", "approximate_capacity",
)  # fmt: skip


def clouds(count, features, points, seed, spread=0.7):
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, features, 1))
    return middles + spread * rng.standard_normal((count, features, points))


def balls(count, dimension, radius, points, seed=0):
    """Points on spheres around centres of length one, all in orthogonal subspaces."""
    rng = np.random.default_rng(seed)
    result = np.zeros((count, count * (dimension + 1), points))
    for p, manifold in enumerate(result):
        first = p * (dimension + 1)
        sphere = rng.standard_normal((dimension, points))
        manifold[first] = 1
        manifold[first + 1 : first + 1 + dimension] = (
            radius * sphere / np.linalg.norm(sphere, axis=0)
        )
    return result


def by_naive(manifolds, draws, seed, labels="balanced", inactive="nearest"):
    """Return anchors, Gaussian vectors and |Π(t)|² of the same draws."""
    cones = Cones(manifolds, labels, draws, 0.0, seed)
    framed = [cones.points[cones.owner == p].T for p in range(cones.count)]
    vectors = np.array([cones.gaussian(draw) for draw in range(draws)])
    pairs = [
        naive.anchors(framed, cones.label_of(draw), vectors[draw], inactive)
        for draw in range(draws)
    ]
    return np.array([s for s, _ in pairs]), vectors, np.array([f for _, f in pairs])


@pytest.mark.filterwarnings("ignore:.*not unique")
@pytest.mark.parametrize("part", range(4))
def test_two_hundred_random_cases_agree_with_cvxpy(part):
    compared = 0
    for seed in range(part * 1000, part * 1000 + (60 if JIT else 4)):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 7))
        features, points = int(rng.integers(2 * count, 5 * count + 5)), int(rng.integers(2, 8))
        inactive = ("nearest", "zero")[seed % 2]
        manifolds = clouds(count, features, points, seed)
        ours = mc.glue(manifolds, draws=4, seed=seed, inactive=inactive, threads=1)
        if ours.ambiguous_share:  # anchors are not unique
            continue
        theirs = naive.measures(*by_naive(manifolds, 4, seed, inactive=inactive))
        for name in MEASURES:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-8, nan_ok=True), (seed, name)
        compared += 1
        if compared == 50:
            break
    assert compared == 50 or not JIT


@pytest.mark.parametrize("inactive", ["nearest", "zero"])
def test_standard_errors_are_those_of_leaving_out_each_draw(inactive):
    draws = 60
    manifolds = clouds(4, 16, 5, 3)
    ours = mc.glue(manifolds, draws=draws, seed=3, inactive=inactive)
    theirs = naive.standard_errors(*by_naive(manifolds, draws, 3, inactive=inactive))
    for name in MEASURES:
        assert ours[f"{name}_se"] == pytest.approx(theirs[name], rel=0.03), name


def test_more_manifolds_than_features():
    """Centres depend on each other: pseudoinverses, in values and derivatives."""
    labels = np.resize([1.0, -1.0], 8)
    manifolds = clouds(8, 5, 3, 1, spread=0.3)
    manifolds[:, 0] += 4 * labels[:, None]
    draws = 40
    ours = mc.glue(manifolds, draws=draws, labels=labels, seed=2)
    assert ours.ambiguous_share == 0
    drawn = by_naive(manifolds, draws, 2, labels=labels)
    theirs, errors = naive.measures(*drawn), naive.standard_errors(*drawn)
    for name in MEASURES:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name
        assert ours[f"{name}_se"] == pytest.approx(errors[name], rel=0.1), name


def test_capacity_is_the_conic_capacity():
    manifolds = clouds(6, 30, 5, 0)
    conic = mc.conic_capacity(manifolds, draws=20, seed=1)
    ours = mc.glue(manifolds, draws=20, seed=1)
    np.testing.assert_array_equal(ours.sq_projection, conic.sq_projection)
    assert ours.capacity == pytest.approx(conic.capacity, rel=1e-14)
    assert ours.capacity_se == pytest.approx(
        6 / conic.statistical_dimension**2 * conic.statistical_dimension_se, rel=0.1
    )


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
@pytest.mark.parametrize(("dimension", "radius"), [(2, 0.5), (5, 0.3), (4, 1.0), (3, 3.0)])
def test_orthogonal_balls_have_dimension_and_radius_of_mean_field_theory(dimension, radius):
    manifolds = balls(10, dimension, radius, 40 * dimension)
    ours = mc.glue(manifolds, draws=400)
    theory = mc.mean_field_capacity(
        [np.vstack([m, np.zeros((1, m.shape[1]))]) for m in manifolds], low_rank=False, n_t=2000
    )
    assert ours.capacity == pytest.approx(theory.combined_capacity, rel=0.06)
    assert ours.dimension == pytest.approx(theory.dimension.mean(), rel=0.06)
    # Mean-field theory takes the mean of all points off, a tenth of each squared norm.
    assert ours.radius == pytest.approx(theory.radius.mean() * np.sqrt(0.9), rel=0.08)
    assert ours.center_alignment < 0.1


def test_an_anchor_at_the_origin_doubles_the_radius_of_small_balls():
    """Why the point that is nearest to becoming active is the default."""
    manifolds = balls(10, 5, 0.3, 60)
    radii = {
        rule: mc.glue(manifolds, draws=100, inactive=rule).radius for rule in ("nearest", "zero")
    }
    assert radii["nearest"] == pytest.approx(0.3, rel=0.05)
    assert radii["zero"] > 0.5


def test_points_have_neither_dimension_nor_radius():
    geometry = mc.glue(np.eye(12)[:, :, None] * 3.0, draws=400)
    assert geometry.capacity == pytest.approx(2, abs=4 * geometry.capacity_se)
    assert (geometry.dimension, geometry.radius, geometry.utility) == (0, 0, 0)
    assert geometry.approximate_capacity == np.inf
    assert geometry.center_alignment == 0
    assert np.isnan(geometry.axis_alignment)
    assert np.isnan(geometry.center_axis_alignment)


def test_two_manifolds_that_differ_in_size():
    """In orthogonal planes: a point, and a segment of half length 1 at distance 1."""
    point = np.array([[2.0], [0.0], [0.0]])
    segment = np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0]])
    geometry = mc.glue([point, segment], draws=4000 if JIT else 400, inactive="nearest")
    np.testing.assert_allclose(geometry.manifold_dimension[0], 0, atol=1e-12)
    assert geometry.dimension == pytest.approx(geometry.manifold_dimension.mean())
    assert geometry.dimension_se > 0
    inverse = 0.5 * (0.5 + mc.ball_capacity(1, 1) ** -1)
    assert 1 / geometry.capacity == pytest.approx(inverse, rel=0.1)
    assert 0.9 < geometry.manifold_radius[1] <= 1.001
    assert geometry.center_alignment == pytest.approx(0, abs=1e-12)


def test_results_depend_on_neither_threads_nor_scale_nor_padding():
    manifolds = clouds(6, 30, 5, 0)
    reference = mc.glue(manifolds, draws=20, threads=1)
    for other in (mc.glue(manifolds, draws=20, threads=2), mc.glue(manifolds * 2.0**600, draws=20)):
        for name in reference:
            np.testing.assert_array_equal(reference[name], other[name])
    dataset = reference.to_xarray()
    assert dataset.sizes == {"manifold": 6, "draw": 20}
    assert dataset.attrs == {"draws": 20, "labels": "balanced", "inactive": "nearest", "seed": 0}


def test_draws_without_unique_anchors_are_counted_and_warned_of():
    with pytest.warns(UserWarning, match="in 10 of 10 draws the anchors are not unique"):
        geometry = mc.glue(clouds(10, 3, 5, 0), draws=10)
    assert geometry.ambiguous_share == 1
    assert geometry.capacity == pytest.approx(10 / np.mean(geometry.sq_projection))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 1}, "draws: expected at least 2, for a standard error, got 1"),
        ({"inactive": "mean"}, "inactive: expected one of nearest, zero, got 'mean'"),
        ({"labels": [1, 2]}, r"labels: expected \+1 or -1"),
        ({"seed": 0.5}, "seed: expected a whole number, got 0.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        mc.glue(clouds(4, 6, 2, 0), **options)
