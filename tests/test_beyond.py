"""What goes with robustness, from made-up results."""

from __future__ import annotations

import numpy as np
import pytest

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from paper.beyond import robustness
from paper.beyond.robustness import Network
from tests import naive, toy_results


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    return tmp_path


def test_statistics_are_those_of_each_network(results):
    toy_results.write(results / "data")
    everyone = robustness.networks()
    assert len(everyone) == len(store.find("logits"))
    st = store.find("logits", "st", scale="small")[0]
    network = next(n for n in everyone if n.kind == "standard")
    at = store.find("logits", "at", scale="small")[0]
    overlaps = [
        naive.average_overlap(first, second, robustness.DEPTH)
        for first, second in zip(st["logits"].values, at["logits"].values, strict=True)
    ]
    assert network.kind == "standard"
    assert network.robust == pytest.approx(100 * st["robust"].values[-1].mean())
    assert network.statistics["overlap"] == pytest.approx(np.mean(overlaps))
    assert network.statistics["gap"] == pytest.approx(
        distribution.logit_gap(st["logits"].values).mean()
    )
    assert {n.kind for n in everyone} == {"standard", "adversarial", "student of AT"}
    assert robustness._print() == 0
    text = (results / "build" / "figures" / "beyond.robustness.txt").read_text()
    assert "no interval is given" in text
    assert "nan" not in text


def test_the_closest_statistic_is_named():
    draws = np.random.default_rng(3).normal(size=(20, 2))
    some = [Network("student of AT", "small", a, {"gap": -(a**3), "largest": b}) for a, b in draws]
    value, count = robustness.correlation(some, "gap")
    assert (value, count) == (pytest.approx(-1), 20)
    assert robustness.correlation(some, "largest")[0] == pytest.approx(
        naive.rank_correlation(draws[:, 0], draws[:, 1])
    )
    assert "small, students of AT: mean logit gap (-1.00)" in robustness.best(some)
    assert np.isnan(robustness.correlation(some[:4], "gap")[0])
    rows = {row[0]: row[1:] for row in robustness.table(some).rows}
    assert rows["mean logit gap"] == ("-1.00 (20)", "-1.00 (20)")
    assert rows[robustness.STATISTICS["radius"]] == ("– (0)", "– (0)")


def test_without_results_one_line_says_what_makes_them(results):
    with pytest.raises(store.Missing, match="make it with 'logitdist make logits/st --scale small"):
        robustness.networks()
    assert recipes.TEACHERS[0] == "st"
