"""Errors from resampled stimuli against formulas and fresh samples; sizes; differences."""

import os
from functools import partial

import numpy as np
import pytest

import manifold_capacity as mc

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


def clouds(count=8, features=30, points=6, seed=0):
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, features, 1))
    return middles + 0.5 * rng.standard_normal((count, features, points))


def first_coordinate(manifolds, power=1):
    """The mean over manifolds of the mean over points: its error is known."""
    means = np.array([(m[0] ** power).mean() for m in manifolds])
    return {"mean": means.mean(), "of_each": means, "mean_se": 7.0, "unsolved": 0}


@pytest.mark.parametrize(
    "options",
    [{"method": "bootstrap"}, {}, {"left_out": 0.25}, {"left_out": 0.75}],
    ids=str,
)
def test_the_error_of_a_mean_is_the_known_one(options):
    manifolds = clouds(10, 3, 40)
    estimate = mc.resampled(first_coordinate, manifolds, repeats=600, **options)
    known = np.sqrt((manifolds[:, 0].var(axis=1, ddof=1) / 40).sum()) / 10
    assert estimate["mean"] == pytest.approx(manifolds[:, 0].mean())
    assert estimate["mean_se"] == pytest.approx(known, rel=0.12)
    assert estimate["of_each"] == estimate["mean"]  # one number per manifold: their mean
    assert estimate["mean_low"] < estimate["mean"] < estimate["mean_high"]
    assert estimate["mean_resampled"].shape == (600,)
    assert "unsolved" not in estimate
    assert estimate.to_xarray().attrs["function"] == "first_coordinate"


def test_the_error_over_manifolds_is_the_known_one():
    manifolds = clouds(40, 3, 5)
    estimate = mc.resampled(first_coordinate, manifolds, "manifolds", repeats=600)
    known = manifolds[:, 0].mean(axis=1).std(ddof=1) / np.sqrt(40)
    assert estimate["mean_se"] == pytest.approx(known, rel=0.12)


def test_options_reach_the_function_and_missing_values_are_left_out():
    manifolds = clouds()
    squares = mc.resampled(first_coordinate, manifolds, repeats=2, power=2)
    assert squares["mean"] == pytest.approx((manifolds[:, 0] ** 2).mean())

    def partly(given):
        known = np.full(len(given), 4.0)
        known[:2] = np.nan, 2.0
        return {"known": known, "none": np.full(len(given), np.nan)}

    estimate = mc.resampled(partial(partly), manifolds, repeats=2)
    assert estimate.attributes["function"] == "partly"
    assert estimate["known"] == pytest.approx(26 / 7)
    assert np.isnan(estimate["none"])


@pytest.mark.parametrize(
    ("function", "options", "name"),
    [
        (mc.mean_field_capacity, {"n_t": 10}, "combined_capacity"),
        (mc.conic_capacity, {"draws": 4}, "capacity"),
        (mc.simulated_capacity, {"draws": 7}, "capacity"),
        (mc.glue, {"draws": 4}, "radius"),
    ],
)
@pytest.mark.parametrize("over", ["points", "manifolds"])
def test_every_estimator_can_be_resampled(function, options, name, over):
    estimate = mc.resampled(function, clouds(), over, repeats=3, **options)
    assert estimate[name] == pytest.approx(
        np.mean(function(clouds(), **options)[name]), nan_ok=True
    )
    assert estimate[f"{name}_se"] > 0
    again = mc.resampled(function, clouds(), over, repeats=3, **options)
    np.testing.assert_array_equal(estimate[f"{name}_resampled"], again[f"{name}_resampled"])
    other = mc.resampled(function, clouds(), over, repeats=3, **options, seed=1)
    assert (estimate[f"{name}_resampled"] != other[f"{name}_resampled"]).any()


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
def test_the_error_of_capacity_is_that_of_fresh_points():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((15, 60, 1)) / np.sqrt(60)
    axes = np.linalg.qr(rng.standard_normal((15, 60, 4)))[0]

    def fresh(seed):
        return centers + axes @ np.random.default_rng(seed).standard_normal((15, 4, 24)) / 2

    values = [mc.conic_capacity(fresh(seed), draws=150).capacity for seed in range(25)]
    estimate = mc.resampled(mc.conic_capacity, fresh(100), draws=150, repeats=25)
    assert 0.8 < estimate.capacity_se / np.std(values, ddof=1) < 2.5


def test_differences_are_paired():
    before = clouds()
    after = np.concatenate([before + 1.0, before[:, :2]], axis=1)  # other features
    difference = mc.resampled_difference(first_coordinate, before, after, repeats=20)
    assert difference["mean"] == pytest.approx(1)
    assert difference["mean_se"] < 1e-12  # what both share cancels
    same = mc.resampled_difference(mc.glue, before, before, repeats=3, draws=4)
    assert same["radius"] == 0
    assert same["radius_se"] == 0
    over = mc.resampled_difference(
        first_coordinate, before, after, "manifolds", repeats=5, left_out=0.2
    )
    assert over["mean"] == pytest.approx(1)


def test_by_size_tells_whether_more_points_would_change_the_measure():
    def largest(manifolds):
        return {
            "largest": np.mean([m[0].max() for m in manifolds]),
            "constant": 3.0,
            "zero": 0.0,
            "count": float(len(manifolds)),
        }

    sizes = mc.by_size(largest, clouds(16, 3, 64))
    np.testing.assert_array_equal(sizes["n_points"], [8, 16, 32, 64])
    np.testing.assert_array_equal(sizes["n_manifolds"], [2, 4, 8, 16])
    assert (np.diff(sizes["largest_by_points"]) > 0).all()
    assert sizes["largest_by_points_sd"][0] > sizes["largest_by_points_sd"][-1] == 0
    assert sizes["largest_gain_points"] > 0.02
    assert sizes["constant_gain_points"] == 0
    assert np.isnan(sizes["zero_gain_points"])
    assert sizes["count_gain_manifolds"] == 1
    chosen = mc.by_size(mc.conic_capacity, clouds(), points=[6, 3, 3], counts=[4], draws=4)
    np.testing.assert_array_equal(chosen["n_points"], [3, 6])
    assert chosen["capacity_by_manifolds"].shape == (1,)
    assert chosen.to_xarray().sizes == {"n_points": 2, "n_manifolds": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over": "features"}, "over: expected one of points, manifolds"),
        ({"method": "leave"}, "method: expected one of jackknife, bootstrap"),
        ({"method": "bootstrap", "over": "manifolds"}, "expected 'jackknife' over manifolds"),
        ({"left_out": 1.0}, "left_out: expected a share between 0 and 1, got 1.0"),
        ({"repeats": 1}, "repeats: expected at least 2, for a standard error"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        mc.resampled(first_coordinate, clouds(), **options)


def test_bad_data():
    with pytest.raises(ValueError, match="expected more than 1 points to leave some out, got 1"):
        mc.resampled(first_coordinate, clouds(points=1))
    with pytest.raises(ValueError, match="expected more than 2 manifolds to leave some out, got 2"):
        mc.resampled(first_coordinate, clouds(2), "manifolds")
    with pytest.raises(ValueError, match="expected the same stimuli twice"):
        mc.resampled_difference(first_coordinate, clouds(), clouds(points=5))
    with pytest.raises(ValueError, match="points: expected sizes of at most 6, got 7"):
        mc.by_size(first_coordinate, clouds(), points=[7])
