"""Separability with certificates, simulated and conic capacity, closed forms."""

import os
from itertools import pairwise

import cvxpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from scipy.special import bdtr

import manifold_capacity as mc
from manifold_capacity import conic, separability, simulated
from manifold_capacity._input import generator
from manifold_capacity.conic import frame
from paper.audit import ellipsoids
from tests import naive_kernels as naive

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"

# Separability


def check(verdict, points, labels, bias):
    """Check the certificate by arithmetic of our own."""
    assert verdict.separable is not None
    if verdict.separable:
        margins = labels * (verdict.weights @ points + verdict.offset)
        assert np.linalg.norm(verdict.weights) == pytest.approx(1)
        assert margins.min() > 0
        assert verdict.margin == pytest.approx(margins.min())
        assert bias or verdict.offset == 0
    else:
        lifted = np.vstack([points, np.ones(points.shape[1])]) if bias else points
        assert verdict.multipliers.min() >= 0
        assert verdict.multipliers.sum() == pytest.approx(1)
        combined = (lifted * labels) @ verdict.multipliers
        assert np.abs(combined).max() < 1e-7 * np.abs(lifted).max()
        assert verdict.residual <= separability.FARKAS * 1.01


@pytest.mark.parametrize("bias", [True, False])
def test_verdicts_agree_with_a_linear_program(bias):
    rng = np.random.default_rng(0)
    verdicts = []
    for _ in range(150):
        features, count = int(rng.integers(1, 20)), int(rng.integers(2, 60))
        points = rng.standard_normal((features, count)) + 3 * rng.standard_normal((features, 1))
        labels = rng.choice([-1, 1], count)
        verdict = mc.separable(points, labels, bias)
        check(verdict, points, labels, bias)
        assert verdict.separable == naive.is_separable(points, labels, bias)
        verdicts.append(verdict.separable)
    assert 20 < sum(verdicts) < 130


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(1, 6), st.integers(2, 14), st.integers(0, 2**32 - 1))
def test_separability_survives_rotation_order_and_scale(features, count, seed):
    rng = np.random.default_rng(seed)
    points, labels = rng.standard_normal((features, count)), rng.choice([-1, 1], count)
    reference = mc.separable(points, labels).separable
    order = rng.permutation(count)
    turn = np.linalg.qr(rng.standard_normal((features, features)))[0]
    for other in (turn @ points, 1e-3 * points, 1e4 * points + 5):
        assert mc.separable(other[:, order], labels[order]).separable == reference
    assert mc.separable(points, -labels).separable == reference
    if reference:  # fewer points, more features: still separable
        assert mc.separable(points[:, 1:], labels[1:]).separable
        more = np.vstack([points, rng.standard_normal(count)])
        assert mc.separable(more, labels).separable


def test_degenerate_sets():
    points = np.array([[0.0, 1.0, 2.0]])
    assert mc.separable(points, [1, 1, -1]).separable
    assert not mc.separable(points, [1, -1, 1]).separable
    touching = np.array([[0.0, 1.0, 1.0, 2.0]])  # a point with both labels
    verdict = mc.separable(touching, [-1, -1, 1, 1])
    assert verdict.separable is False
    check(verdict, touching, np.array([-1, -1, 1, 1]), True)
    for labels in ([1, 1, 1], [-1, -1, -1]):
        verdict = mc.separable(points, labels)
        assert verdict.separable
        check(verdict, points, np.array(labels), True)
    same = np.ones((2, 3))
    assert mc.separable(same, [1, 1, 1]).separable
    assert mc.separable(same, [1, -1, 1]).separable is False
    origin = np.array([[0.0, 1.0]])
    verdict = mc.separable(origin, [1, 1], bias=False)
    assert verdict.separable is False  # the origin is on every hyperplane through it
    assert verdict.multipliers[0] == 1


def test_small_margins_are_found_and_checked():
    rng = np.random.default_rng(1)
    answers = {}
    for margin in (1e-3, 1e-6, 1e-9, 1e-15):
        labels = np.repeat([1, -1], 20)
        points = rng.standard_normal((4, 40))
        points[0] = margin * labels * (1 + rng.random(40))
        verdict = mc.separable(points, labels)
        answers[margin] = verdict.separable
        if verdict.separable:
            check(verdict, points, labels, True)
    assert answers[1e-3]
    assert answers[1e-6]


@pytest.mark.parametrize("what", ["points", "labels"])
def test_complex_numbers_are_refused(what):
    given = {"points": np.array([[0.0, 1.0]]), "labels": np.array([-1, 1])}
    given[what] = given[what] + 0j
    with pytest.raises(ValueError, match=f"{what}: expected real numbers, got dtype complex"):
        mc.separable(**given)


def test_an_exhausted_search_is_undecided(monkeypatch):
    monkeypatch.setattr(separability, "LIMIT", 1)
    rng = np.random.default_rng(0)
    verdict = mc.separable(rng.standard_normal((10, 25)), rng.choice([-1, 1], 25))
    assert verdict.separable is None
    assert verdict.weights is None
    assert verdict.multipliers is None


def test_newtons_system_is_solved_with_as_little_ridge_as_it_takes():
    right = np.array([1.0, 2.0])
    solved, x = separability._solve(np.diag([2.0, 4.0]), right, 0.0)
    assert solved
    np.testing.assert_allclose(x, [0.5, 0.5])
    assert separability._solve(np.diag([1.0, -1e-12]), right, 1e-13)[0]
    assert not separability._solve(np.diag([1.0, -1.0]), right, 1e-13)[0]


@pytest.mark.skipif(JIT, reason="compiled code calls what it was compiled with")
@pytest.mark.parametrize(
    ("name", "instead"),
    [("_solve", lambda gram, right, ridge: (False, right)), ("_combined", lambda *_: np.inf)],
)
def test_a_proof_that_rounding_spoils_is_not_given(monkeypatch, name, instead):
    monkeypatch.setattr(separability, name, instead)
    rng = np.random.default_rng(0)
    verdict = mc.separable(rng.standard_normal((3, 25)), rng.choice([-1, 1], 25))
    assert verdict.separable is None


def test_a_hyperplane_that_fails_on_the_points_is_not_returned(monkeypatch):
    def wrong(features, scale):
        w = -features @ scale
        return True, separability.Start(w, scale > 0, np.eye(len(w))), scale, 1

    monkeypatch.setattr(separability, "decide", wrong)
    assert mc.separable(np.array([[0.0, 1.0]]), [-1, 1]).separable is None


def largest_margin(points, labels, bias):
    """Return the largest margin of a hyperplane by cvxpy; 0 if nothing separates."""
    w, b = cvxpy.Variable(len(points)), cvxpy.Variable()
    reached = cvxpy.multiply(labels, points.T @ w + (b if bias else 0))
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(reached)), [cvxpy.norm(w) <= 1])
    return problem.solve(solver="CLARABEL")


@pytest.mark.parametrize("bias", [True, False])
def test_margins_agree_with_cvxpy(bias):
    rng = np.random.default_rng(1)
    answers = []
    for _ in range(40 if JIT else 15):
        features, count = int(rng.integers(2, 12)), int(rng.integers(3, 20))
        points = rng.standard_normal((features, count)) + 2 * rng.standard_normal((features, 1))
        labels = rng.permutation(np.resize([-1, 1], count))
        largest = largest_margin(points, labels, bias)
        if largest < 1e-3:
            assert mc.separable(points, labels, bias, kappa=0.1).separable is False
            continue
        for share in (0.9, 0.9999, 1.0001, 1.1):
            verdict = mc.separable(points, labels, bias, kappa=share * largest)
            assert verdict.separable == (share < 1)
            answers.append(verdict.separable)
            if verdict.separable:
                reached = labels * (verdict.weights @ points + verdict.offset)
                assert np.linalg.norm(verdict.weights) == pytest.approx(1)
                assert verdict.margin == pytest.approx(reached.min())
                assert verdict.margin >= share * largest * (1 - 1e-8)
            else:
                combined = (points * labels) @ verdict.multipliers
                assert verdict.multipliers.min() >= 0
                assert verdict.multipliers.sum() == pytest.approx(1)
                assert not bias or abs(verdict.multipliers @ labels) < 1e-9
                assert verdict.residual == pytest.approx(np.linalg.norm(combined), rel=1e-6)
                assert verdict.residual < share * largest
    assert len(answers) > 20


def test_margins_of_degenerate_sets():
    points = np.array([[0.0, 1.0, 2.0]])
    assert mc.separable(points, [1, 1, 1], kappa=5).separable  # one class: the bias does it
    assert mc.separable(points, [-1, -1, -1], kappa=5).margin >= 5
    assert mc.separable(points, [1, 1, 1], bias=False, kappa=0.1).separable is False  # the origin
    assert mc.separable(points, [1, -1, 1], kappa=1e-3).separable is False
    assert mc.separable(1e200 * points, [1, 1, -1], kappa=0.49e200).separable
    assert mc.separable(1e-200 * points, [1, 1, -1], kappa=0.51e-200).separable is False


def test_a_margin_within_rounding_of_the_largest_may_be_undecided(monkeypatch):
    points = np.array([[0.0, 1.0, 2.0]])
    monkeypatch.setattr(separability, "NEARLY", -1.0)
    assert mc.separable(points, [1, 1, -1], kappa=0.4).separable is None
    assert mc.separable(points, [1, 1, -1], kappa=0.6).separable is None
    monkeypatch.undo()
    monkeypatch.setattr(separability, "_checked_plane", lambda *_: None)
    assert mc.separable(points, [1, 1, -1], kappa=0.4).separable is None


@pytest.mark.parametrize("exponent", [-1000, 1000])
def test_separability_at_any_scale(exponent):
    points, labels = np.array([[0.0, 1.0, 3.0]]) * 2.0**exponent, [-1, -1, 1]
    verdict = mc.separable(points, labels)
    assert verdict.separable
    assert np.ldexp(verdict.margin, -exponent) > 0.5
    assert (labels * (verdict.weights @ points + verdict.offset) > 0).all()


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        (np.ones(3), [1, 1, 1], "expected points"),
        (np.ones((2, 3)), [1, 1], "expected points"),
        (np.full((2, 2), np.nan), [1, -1], "finite"),
        (np.ones((2, 2)), [1, 0], r"labels: expected \+1 or -1"),
    ],
)
def test_bad_input_to_separable(points, labels, message):
    with pytest.raises(ValueError, match=message):
        mc.separable(points, labels)


def test_the_line_search_minimises():
    rng = np.random.default_rng(0)
    problems = [rng.standard_normal((2, 12)) for _ in range(30)]
    # From s = 1 Newton's step goes below zero here, so the bracket is needed.
    slack = [-0.4106746, 0.16444202, -0.02453798, 0.16661211, 0.01206998]
    along = [-0.06683127, -0.00014269, 0.04081136, 57.84030623, 0.62695585]
    problems.append(np.array([slack, along]))
    for slack, along in problems:
        along = along * np.sign(np.maximum(slack, 0) @ along)  # downhill
        step = separability._line_search(slack, along)
        grid = np.concatenate([np.linspace(0, 5, 501), [step]])
        costs = (np.maximum(slack - grid[:, None] * along, 0) ** 2).sum(axis=1)
        assert costs[-1] <= costs.min() * (1 + 1e-9) + 1e-12
    assert separability._line_search(-np.ones(2), np.ones(2)) == 1.0  # nothing to do


def test_a_step_separates_where_there_is_one():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        slack, along = 1 + rng.standard_normal((2, 3))
        along[rng.random(3) < 0.2] = 0.0
        step = separability._separating_step(slack, along)
        steps = np.concatenate([np.linspace(0, 20, 2001)[1:], [step]])
        separates = (1 - slack[:, None] + steps * along[:, None] > 0).all(axis=0)
        assert separates[-1] == (step > 0)
        assert step > 0 or not separates.any()
        seen.add(step > 0)
    assert seen == {True, False}


# Simulated capacity


def clouds(count=8, features=30, points=4, radius=0.5, seed=0):
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((count, features, 1))
    return middles + radius * rng.standard_normal((count, features, points))


@pytest.mark.parametrize("projection", ["gaussian", "subset", "pca"])
@pytest.mark.parametrize(("bias", "features"), [(True, 30), (False, 30), (True, 50)])
def test_the_smallest_separable_dimension_agrees_with_a_linear_search(projection, bias, features):
    manifolds = clouds(features=features)
    capacity = mc.simulated_capacity(manifolds, draws=6, bias=bias, projection=projection, seed=3)
    label_of = simulated.labeller("balanced", 8, 6, 3)
    data = simulated.reduced(np.concatenate(list(manifolds), axis=1), projection, bias)
    for draw in range(6):
        nested = simulated._Features(data, projection, bias, 3, draw)
        labels = np.repeat(label_of(draw), 4)
        expected = next(
            n for n in range(1, 33) if naive.is_separable(nested.first(n), labels, bias)
        )
        assert capacity["smallest_separable"][draw] == expected
    assert capacity["capacity"] == pytest.approx(8 / np.median(capacity["smallest_separable"]))
    assert capacity["undecided"] == 0


def test_the_curve_is_the_distribution_of_the_smallest_dimension():
    capacity = mc.simulated_capacity(clouds(), draws=20)
    for n, share in zip(capacity["n_features"], capacity["separable_share"], strict=True):
        assert share == np.mean(capacity["smallest_separable"] <= n)
    assert capacity["separable_share"][0] == 0
    assert capacity["separable_share"][-1] == 1
    assert (capacity["separable_share_low"] <= capacity["separable_share"]).all()
    assert (capacity["separable_share_high"] >= capacity["separable_share"]).all()
    assert capacity["features_low"] <= capacity["features"] <= capacity["features_high"]
    assert capacity["capacity_low"] <= capacity["capacity"] <= capacity["capacity_high"]
    assert capacity.to_xarray().sizes["draw"] == 20


def test_the_interval_of_the_median_has_binomial_coverage():
    for count in (6, 7, 20, 100):
        ordered = np.arange(1.0, count + 1)
        middle, low, high = simulated.median_interval(ordered)
        assert middle == np.median(ordered)
        below, above = int(low), count - int(high) + 1
        assert below == above
        assert 1 - 2 * bdtr(below - 1, count, 0.5) >= 0.95
        assert 1 - 2 * bdtr(below, count, 0.5) < 0.95
    assert simulated.median_interval(np.arange(5.0))[1:] == (-np.inf, np.inf)


def test_simulation_does_not_depend_on_threads_and_does_on_the_seed():
    one, two = (mc.simulated_capacity(clouds(), draws=8, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one["smallest_separable"], two["smallest_separable"])
    other = mc.simulated_capacity(clouds(), draws=8, seed=1)
    assert (one["smallest_separable"] != other["smallest_separable"]).any()


def test_simulation_with_a_margin_finds_gardners_capacity():
    manifolds = np.eye(40)[:, :, None]
    capacity = mc.simulated_capacity(manifolds, draws=40 if JIT else 8, kappa=0.5, bias=False)
    assert capacity["undecided"] == 0
    # A feature of some forty is what a finite number of points shifts it by.
    assert (
        capacity["capacity_low"] * 0.97 < mc.point_capacity(0.5) < capacity["capacity_high"] * 1.03
    )
    biased = mc.simulated_capacity(clouds(12, 60, 2), draws=8, kappa=0.5)
    assert biased["capacity"] < mc.simulated_capacity(clouds(12, 60, 2), draws=8)["capacity"]


def test_a_margin_that_no_number_of_features_gives():
    capacity = mc.simulated_capacity(clouds(30, 5, 3), draws=7, kappa=0.1)
    assert np.isnan(capacity["capacity"])
    assert np.isinf(capacity["smallest_separable"]).all()


def test_points_far_from_the_origin_are_projected_in_double_precision():
    data = np.random.default_rng(0).standard_normal((5, 40))
    assert simulated.reduced(data, "gaussian", False).dtype == np.float32
    assert simulated.reduced(data + 1e6, "gaussian", False).dtype == np.float64
    assert simulated.reduced(data + 1e6, "gaussian", True).dtype == np.float32
    assert simulated.reduced(data, "subset", True).dtype == np.float64


@pytest.mark.parametrize("draws", [3, 9])
def test_too_few_features_give_no_capacity(draws):
    manifolds = clouds(count=12, features=2)
    capacity = mc.simulated_capacity(manifolds, draws=draws, projection="subset")
    assert np.isnan(capacity["capacity"])
    assert np.isinf(capacity["smallest_separable"]).all()
    assert capacity["separable_share"][-1] == 0
    assert capacity["n_features"][-1] == 2


def test_coinciding_points_are_never_separable():
    manifolds = np.zeros((4, 3, 2))
    manifolds[:2] = 1
    capacity = mc.simulated_capacity(manifolds, draws=6, labels=[1, -1, 1, -1], bias=False)
    assert np.isnan(capacity["capacity"])


def test_labellings():
    balanced = simulated.labeller("balanced", 7, 5, 0)
    assert [balanced(d).sum() for d in range(5)] == [-1] * 5
    assert len({tuple(balanced(d)) for d in range(5)}) > 1
    single = simulated.labeller("one-vs-rest", 7, 5, 0)
    assert [(single(d) > 0).sum() for d in range(5)] == [1] * 5
    coins = simulated.labeller("independent", 2, 30, 0)
    assert {tuple(coins(d)) for d in range(30)} == {(1, -1), (-1, 1)}
    given = np.array([[1, -1], [-1, 1]])
    np.testing.assert_array_equal(simulated.labeller(given, 2, 2, 0)(1), given[1])
    np.testing.assert_array_equal(simulated.labeller(given[0], 2, 5, 0)(4), given[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection": "sparse"}, "projection: expected one of gaussian, subset, pca"),
        ({"procedure": "matlab"}, "procedure: expected one of nested, chung, cohen"),
        ({"draws": 0}, "draws: expected at least 1"),
        ({"labels": "random"}, "labels: expected an array or one of balanced"),
        ({"labels": [1, -1]}, r"labels: expected \+1 or -1 in shape \(8,\)"),
        ({"labels": [0] * 8}, r"labels: expected \+1 or -1"),
        ({"kappa": -1.0}, "kappa: expected a margin of at least 0"),
        ({"kappa": 0.5, "projection": "pca"}, "kappa: expected 0 with this projection"),
        ({"bias": 1}, "bias: expected True or False"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        mc.simulated_capacity(clouds(), **options)


@pytest.mark.parametrize("procedure", ["chung", "cohen"])
def test_the_public_procedures_find_about_the_same_dimension(procedure):
    manifolds = clouds(count=10, points=3)
    ours = mc.simulated_capacity(manifolds, draws=60)
    theirs = mc.simulated_capacity(manifolds, draws=40, procedure=procedure)
    assert theirs["features"] == pytest.approx(ours["features"], abs=2.5)
    assert np.isnan(theirs["capacity_low"])
    assert all(a < b for a, b in pairwise(theirs["n_features"]))
    few = mc.simulated_capacity(
        clouds(count=12, features=3), draws=5, projection="subset", procedure=procedure
    )
    assert np.isnan(few["capacity"])


def test_chungs_procedure_interpolates_between_neighbours():
    """With one repeat p(n) is 0 or 1, so the search ends on two neighbours."""
    capacity = mc.simulated_capacity(clouds(), draws=1, procedure="chung")
    assert capacity["features"] % 1 == 0.5


def test_chungs_procedure_stops_at_one_half(monkeypatch):
    def outcomes(self, n, repeats):
        return [n > 20] * (repeats // 2) + [n > 10] * (repeats // 2)

    monkeypatch.setattr(simulated._Fresh, "outcomes", outcomes)
    capacity = mc.simulated_capacity(clouds(), draws=10, procedure="chung")
    assert 10 < capacity["features"] <= 20
    assert (
        capacity["separable_share"][list(capacity["n_features"]).index(capacity["features"])] == 0.5
    )


def test_cohens_procedure_repeats_until_the_error_is_small():
    few = mc.simulated_capacity(clouds(), draws=20, procedure="cohen")
    many = mc.simulated_capacity(clouds(), draws=100, procedure="cohen")
    assert many["features"] == pytest.approx(few["features"], abs=1.5)


# Conic capacity


def test_projections_on_the_cone_agree_with_the_naive_twin():
    for features in (30, 60):
        manifolds = clouds(features=features)
        capacity = mc.conic_capacity(manifolds, draws=5, seed=2)
        label_of = simulated.labeller("balanced", 8, 5, 2)
        data = frame(np.concatenate(list(manifolds), axis=1))
        for draw in range(5):
            t = generator(2, 4, draw).standard_normal(len(data))
            expected = naive.sq_projection_on_cone(data * np.repeat(label_of(draw), 4), t)
            assert capacity["sq_projection"][draw] == pytest.approx(expected, rel=1e-9)
        assert capacity["kkt_residual"] < 1e-12
        assert capacity["unsolved"] == 0


def test_conic_capacity_of_an_orthant_is_known():
    """Independent points: C_y is an orthant of a P-dimensional space, δ = P / 2, α = 2."""
    manifolds = np.eye(12)[:, :, None] * 3.0
    capacity = mc.conic_capacity(manifolds, draws=2000 if JIT else 200)
    assert capacity["capacity_low"] < 2 < capacity["capacity_high"]
    assert capacity["statistical_dimension"] == pytest.approx(
        6, abs=4 * capacity["statistical_dimension_se"]
    )
    one, two = (mc.conic_capacity(manifolds, draws=4, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one["sq_projection"], two["sq_projection"])


def test_a_projection_on_a_cone_of_many_points_needs_few_of_them():
    """Column generation: more points than may enter at once, and most never do."""
    manifolds = clouds(20, 40, 12, 0.3) * np.linspace(0.1, 10, 20)[:, None, None]
    cones = conic.Cones(manifolds, "balanced", 3, 0.0, 0)
    for draw, one in enumerate(cones.project_all(3, 1, None)):
        t = cones.gaussian(draw)
        rows = cones.points * cones.label_of(draw)[cones.owner][:, None]
        alpha, _ = nnls(rows.T, t)
        np.testing.assert_array_equal(np.flatnonzero(alpha), one.active)
        np.testing.assert_allclose(one.multipliers, alpha[one.active], rtol=1e-9)
        along = rows @ (t - alpha @ rows)
        assert along.max() < 1e-9
        for p, point in enumerate(one.nearest):
            own = np.flatnonzero(cones.owner == p)
            assert along[point] > along[own].max() - 1e-9


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_conic_capacity_of_independent_points_with_a_margin_is_gardners(kappa):
    manifolds = np.eye(12)[:, :, None] * 3.0
    capacity = mc.conic_capacity(manifolds, draws=1500 if JIT else 200, kappa=kappa)
    assert capacity["capacity_low"] < mc.point_capacity(kappa) < capacity["capacity_high"]


def test_distances_with_a_margin_agree_with_cvxpy():
    manifolds, kappa = clouds(5, 12, 4, 0.6), 0.7
    capacity = mc.conic_capacity(manifolds, draws=8, kappa=kappa, seed=4)
    cones = conic.Cones(manifolds, "balanced", 8, kappa, 4)
    for draw in range(8):
        signs = cones.label_of(draw)[cones.owner]
        framed = [cones.points[cones.owner == p] for p in range(5)]
        needed = np.array([kappa * np.linalg.norm(m.mean(axis=0)) for m in framed])[cones.owner]
        expected = naive.sq_distance_with_margin(
            cones.points * signs[:, None], needed, cones.gaussian(draw)
        )
        assert capacity["sq_projection"][draw] == pytest.approx(expected, rel=1e-6)
    assert capacity["kkt_residual"] < 1e-9


def test_a_margin_that_no_hyperplane_keeps_leaves_no_capacity():
    manifolds = clouds(30, 10, 5)
    capacity = mc.conic_capacity(manifolds, draws=4, kappa=0.1)
    assert np.isinf(capacity["sq_projection"]).all()
    assert (capacity["capacity"], capacity["capacity_low"]) == (0, 0)
    assert mc.conic_capacity(manifolds, draws=4)["capacity"] > 0
    manifolds[0, :, 0] = 0  # a point at the origin keeps no margin
    separate = clouds(3, 30, 2)
    separate[0, :, 0] = 0
    assert mc.conic_capacity(separate, draws=4, kappa=0.1)["capacity"] == 0


def test_conic_capacity_far_from_the_origin_is_right_or_refused():
    manifolds = clouds(12, 5, 8, 1.0)
    at = {offset: mc.conic_capacity(manifolds + offset, draws=20) for offset in (1e2, 1e4)}
    assert at[1e2]["capacity"] == pytest.approx(at[1e4]["capacity"], rel=1e-4)
    assert at[1e4]["kkt_residual"] < 1e-9
    with pytest.raises(ValueError, match="subtract the mean of all points, or drop duplicates"):
        mc.conic_capacity(manifolds + 1e8, draws=20)


def test_an_ill_conditioned_cone_whose_second_solver_gives_up_is_refused(monkeypatch):
    def gives_up(*_):
        raise RuntimeError("maximum number of iterations")

    monkeypatch.setattr("scipy.optimize.nnls", gives_up)
    with pytest.raises(ValueError, match="miss their optimality conditions"):
        mc.conic_capacity(clouds(12, 5, 8, 1.0) + 1e8, draws=2)


@pytest.mark.parametrize("exponent", [-900, 900])
def test_capacities_do_not_depend_on_scale(exponent):
    manifolds = clouds(6, 20, 3)
    for function in (mc.conic_capacity, mc.simulated_capacity):
        reference, other = (function(m, draws=4) for m in (manifolds, manifolds * 2.0**exponent))
        for name in reference:
            np.testing.assert_array_equal(reference[name], other[name])


@pytest.mark.parametrize(
    ("kappa", "message"),
    [(-0.1, "expected a margin of at least 0, got -0.1"), (np.nan, "expected a finite margin")],
)
def test_bad_margins(kappa, message):
    with pytest.raises(ValueError, match=message):
        mc.conic_capacity(clouds(), kappa=kappa)


def test_cones_of_nothing_have_no_capacity():
    with pytest.raises(ValueError, match="expected points off the origin, got zeros only"):
        mc.conic_capacity(np.zeros((3, 2, 2)))


def test_conic_capacity_needs_two_draws():
    with pytest.raises(ValueError, match="draws: expected at least 2"):
        mc.conic_capacity(clouds(), draws=1)


# The three estimators


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
@pytest.mark.parametrize(
    "manifolds",
    [
        ellipsoids(30, 12, [0.5] * 3),
        ellipsoids(30, 12, [1.0] * 4),
        ellipsoids(30, 12, [0.8, 0.5, 0.3, 0.2, 0.1]),
        clouds(30, 120, 10, 0.4),
    ],
    ids=["balls", "large balls", "ellipsoids", "gaussian clouds"],
)
def test_the_three_estimators_agree(manifolds):
    replica = mc.mean_field_capacity(manifolds, low_rank=False, n_t=400)
    conic = mc.conic_capacity(manifolds, draws=100)
    simulation = mc.simulated_capacity(manifolds, draws=60, bias=False)
    half = 3 * replica["combined_capacity_se"]
    intervals = [
        (replica["combined_capacity"] - half, replica["combined_capacity"] + half),
        (conic["capacity_low"], conic["capacity_high"]),
        (simulation["capacity_low"], simulation["capacity_high"]),
    ]
    # Finite P shifts the simulation by the order of a feature of some forty.
    assert max(low for low, _ in intervals) <= min(high for _, high in intervals) * 1.03


# Closed forms


@pytest.mark.parametrize(
    ("kappa", "expected"), [(0, 2), (0.5, 0.961205), (1, 0.519572), (2, 0.200231)]
)
def test_point_capacity(kappa, expected):
    assert mc.point_capacity(kappa) == pytest.approx(expected, abs=5e-7)
    assert mc.point_capacity(kappa) == pytest.approx(naive.point_capacity(kappa), rel=1e-7)


def test_point_capacity_far_below_zero():
    assert mc.point_capacity(-6) == pytest.approx(naive.point_capacity(-6), rel=1e-6)
    assert mc.point_capacity(-5.0001) == pytest.approx(mc.point_capacity(-5), rel=2e-3)


@pytest.mark.parametrize("dimension", [1, 2, 3, 10])
def test_ball_capacity_in_closed_form(dimension):
    def inverse(radius):
        return 1 / mc.ball_capacity(radius, dimension)

    assert mc.ball_capacity(1, dimension) == pytest.approx(2 / (dimension + 1), rel=1e-9)
    for radius in (0.1, 0.5, 3):
        assert inverse(radius) + inverse(1 / radius) == pytest.approx(dimension + 1, rel=1e-9)
        angle = np.arctan(radius)
        if dimension == 1:
            assert inverse(radius) == pytest.approx(0.5 + 2 / np.pi * angle, rel=1e-9)
        if dimension == 2:
            assert inverse(radius) == pytest.approx(1.5 - np.cos(angle) + np.sin(angle), rel=1e-9)
    assert mc.ball_capacity(0, dimension) == pytest.approx(2)
    assert inverse(1e-9) == pytest.approx(0.5, rel=1e-6)
    assert inverse(1e9) == pytest.approx(dimension + 0.5, rel=1e-6)
    assert 1 / mc.ball_capacity(1e9, dimension, approximation="paper") == pytest.approx(
        dimension, rel=1e-6
    )


@pytest.mark.parametrize(
    ("radius", "dimension", "kappa"), [(0.5, 3, 0.0), (2, 2, 0.7), (1, 8, -0.4)]
)
def test_ball_capacity_agrees_with_sampling(radius, dimension, kappa):
    mean, error = naive.ball_capacity(radius, dimension, kappa, 200_000, 0)
    assert 1 / mc.ball_capacity(radius, dimension, kappa) == pytest.approx(mean, abs=5 * error)


def test_a_margin_is_a_number():
    with pytest.raises(ValueError, match="kappa: expected a finite margin, got nan"):
        mc.point_capacity(np.nan)


def test_the_papers_approximations_of_ball_capacity():
    """α_Ball tends to the truth for many dimensions; without 1 + R² it does not."""
    errors = [
        abs(mc.ball_capacity(1 / np.sqrt(d), d, approximation="paper")
            / mc.ball_capacity(1 / np.sqrt(d), d) - 1)
        for d in (2, 20, 200)
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01
    assert mc.ball_capacity(1, 5, approximation="paper") == pytest.approx(
        2 * mc.point_capacity(np.sqrt(5))
    )


@pytest.mark.parametrize(
    "options",
    [
        {"radius": -1}, {"dimension": 0}, {"approximation": "fast"}, {"radius": np.nan},
        {"dimension": np.inf}, {"kappa": np.nan},
    ],
)  # fmt: skip
def test_bad_balls(options):
    with pytest.raises(ValueError, match="expected"):
        mc.ball_capacity(**{"radius": 1, "dimension": 2} | options)


def test_nonnegative_least_squares_of_scipy_is_what_the_twins_rest_on():
    rng = np.random.default_rng(0)
    points, t = rng.standard_normal((4, 6)), rng.standard_normal(4)
    alpha, _ = nnls(points, t)
    best = naive.nonnegative_least_squares(points.T @ points, points.T @ t, np.ones(6))
    np.testing.assert_allclose(points @ alpha, points @ best, atol=1e-10)
