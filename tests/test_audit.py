"""Verdicts of the audit, its numbers against slow twins, and what it prints."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import manifold_capacity as mc
from logit_distributions import recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.read import capacity
from logit_distributions.read.capacity import Interval, compared, row
from logit_distributions.recipes import Manifolds, recipe
from paper import audit
from paper.claims import terms
from paper.claims import verdicts as claims
from paper.claims.__main__ import verdicts
from tests import naive, toy_results
from tests.conftest import STORED


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (Interval(1.1, 0.99, 1.2), "agree"),
        (Interval(1.1, 1.01, 1.2), "differ"),
        (Interval(0.9, 0.85, 0.95), "differ"),
        (Interval(0.5, 0.4, 1.6), "agree"),
        (Interval(np.nan, np.nan, np.nan), "few features"),
        (Interval(0.9, 0.8, np.inf), "few features"),
    ],
)
def test_comparisons_follow_the_rule(ratio, expected):
    assert compared(ratio) == expected


def test_ratios_have_the_intervals_of_independent_errors():
    draws = np.random.default_rng(0)
    logs = [np.log(2) + 0.1 * draws.normal(size=200_000), 0.05 * draws.normal(size=200_000)]
    low, high = np.quantile(np.exp(logs[0] - logs[1]), (0.025, 0.975))
    first, second = (
        Interval(m, m * np.exp(-1.96 * s), m * np.exp(1.96 * s)) for m, s in ((2, 0.1), (1, 0.05))
    )
    ratio = first.over(second)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, low, high), rel=0.01)
    assert not Interval(np.nan, np.nan, np.nan).over(second).known


def test_approximations_are_those_of_the_paper():
    radius, dimension = np.array([[0.1, 0.5], [1, 2]]), np.array([[1, 2], [3, 40.0]])
    ball, point = capacity.ball(radius, dimension), capacity.point(radius, dimension)
    for i, r in np.ndenumerate(radius):
        d = dimension[i]
        assert ball[i] == pytest.approx(mc.ball_capacity(r, d, approximation="paper"))
        assert point[i] == pytest.approx(mc.point_capacity(r * np.sqrt(d)))


def test_the_share_of_the_radius():
    def share(*values):
        return float(capacity.radius_share((values[0], values[1]), (values[2], values[3])))

    assert share(0.1, 0.5, 3, 3) == pytest.approx(1)
    assert share(0.5, 0.5, 3, 6) == pytest.approx(0)
    assert np.isnan(share(0.5, 0.1, 3, 3))
    assert share(0.1, 0.5, 3, 6) == pytest.approx(naive.radius_share(0.1, 0.5, 3, 6))


def test_known_answers_are_found():
    rows = {row.name: row for row in audit.synthetic()}
    for name in ("points", "balls R 0.5, D 2", "balls R 1, D 2"):
        row = rows[name]
        for estimator in ("raw", "unbiased", "conic"):
            assert row.capacities[estimator].value == pytest.approx(row.exact, rel=0.12), name
        assert compared(row.conic_to_simulation) == "agree"
    assert rows["points"].ball == pytest.approx(1, abs=0.05)
    correlated = rows["balls R 0.5, rank 4"]
    assert correlated.correlation > rows["balls R 0.5, D 2"].correlation + 0.1
    assert correlated.rank > 0
    for row in rows.values():
        steps = np.prod(list(row.steps.values()))
        assert steps == pytest.approx(row.theory_to_simulation.value)


@pytest.fixture(scope="module")
def layer():
    points = audit.ellipsoids(8, 6, [0.5, 0.5])
    return capacity.measure(points, Manifolds(n_t=50, draws=20))


def test_what_is_measured_again_must_agree(layer):
    said = []
    assert audit.agreement(layer, layer, said.append)
    assert all(line.endswith(" agree") for line in said)
    for name, factor in (("conic_capacity", 2), ("radius", 1.5), ("center_correlation", 1.02)):
        other = layer.copy()
        other[name] = factor * layer[name]
        assert not audit.agreement(layer, other, said.append)
        assert sum(line.endswith("DIFFER") for line in said[-8:]) == 1
    lost = layer.assign(simulated_capacity=float("nan"))
    assert not audit.agreement(layer, lost, said.append)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    terms.forget()
    yield tmp_path
    terms.forget()


def test_measures_of_manifolds(results):
    for name in recipes.FIGURE5:
        toy_results.write_capacity(results, name, (0, 1))
    data = store.open_dataset(results / "capacity" / "cifar10-small-at-seed1.nc")
    at = data.sel(layer="stem")

    def value(formula):
        return terms.evaluate(formula, "cifar10", "small").values[(1,)]

    expected = {
        'manifold("capacity", "stem", "at")': float(at["combined_capacity"]),
        'manifold("radius", "stem", "at")': float(at["radius"].mean()),
        'manifold("simulated_capacity", "stem", "at")': float(at["simulated_capacity"]),
        'manifold("conic_capacity", "stem", "at")': float(at["conic_capacity"]),
        'manifold("center_correlation", "stem", "at")': float(at["center_correlation"]),
        'manifold("ball_capacity", "stem", "at")': naive.harmonic_mean(
            [
                mc.ball_capacity(float(r), float(d), approximation="paper")
                for r, d in zip(at["radius"], at["dimension"], strict=True)
            ]
        ),
        'separable_share(1.25, "stem", "at")': naive.separable_share(at, 1.25),
    }
    for formula, number in expected.items():
        assert value(formula) == pytest.approx(number, rel=1e-5), formula
    estimate = terms.evaluate('manifold("capacity", "stem", "at")', "cifar10", "small")
    low, high = estimate.interval
    assert low < estimate.mean < high
    assert estimate.images == at.sizes["manifold"]
    lists = [[1.0, 2.0, 4.0], [1.1, 1.9, 5.0]]
    pair = [[terms.Estimate({(0,): np.full(3, v)}) for v in each] for each in lists]
    correlation = terms._log_correlation(*pair).values[(0,)]
    assert correlation == pytest.approx(np.corrcoef(np.log(lists))[0, 1])


def test_every_claim_about_manifolds_is_judged():
    wanted = [claim.id for claim in claims.register() if claim.id.startswith("manifold-")]
    assert len(wanted) >= 15
    for judged in verdicts(wanted):
        assert judged.value is not None or "not a number" in judged.reason
        assert judged.scale == "medium"


def test_the_audit_prints_every_row(capsys):
    assert audit.main([]) == 0
    printed = capsys.readouterr().out
    for file in sorted((STORED / "capacity").rglob("*.nc")):
        stored = store.open_dataset(file)
        title = f"{stored.attrs['run']}: {stored.attrs['manifold_kind']} manifolds"
        block = printed.split(title)[1]
        for layer in stored["layer"].values:
            assert f"\n  {layer} " in block.split("\n\n")[0]


def test_without_capacities_the_command_that_makes_them_is_named(results, capsys):
    assert audit.main([]) == 1
    assert "make it with 'logitdist make capacity/at --scale small'" in capsys.readouterr().err


def test_what_is_measured_again_is_stored():
    checkpoint, layer = audit.RECOMPUTED
    capacities = store.open_dataset(Job("capacity", checkpoint.recipe, checkpoint.seed).path)
    seen = capacities.sel(layer=layer)
    assert Checkpoint.of(checkpoint).weights_sha256 == capacities.attrs["checkpoint_sha256"]
    assert seen["features"] > capacities.attrs["manifold_largest"]  # so it is projected


def test_capacities_of_other_weights_are_not_recomputed(results, monkeypatch):
    monkeypatch.setattr(audit, "RECOMPUTED", (Job("checkpoint", recipe("at"), 0), "layer2.1"))
    toy_results.write_capacity(results, "at", (0,))
    (results / "checkpoints").mkdir()
    weights = "cifar10-small-at-seed0.safetensors"
    (results / "checkpoints" / weights).write_bytes((STORED / "checkpoints" / weights).read_bytes())
    with pytest.raises(ReproError, match="are of other weights than those stored"):
        audit.recompute()


def test_rows_need_no_more_than_a_dataset(layer):
    one = row("x", layer)
    assert isinstance(layer, xr.Dataset)
    assert one.layer == ""
    assert one.theory_to_simulation.value == pytest.approx(
        float(layer["combined_capacity"] / layer["simulated_capacity"])
    )
