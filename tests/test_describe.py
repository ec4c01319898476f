"""The table of logit distributions."""

import json
import re

import numpy as np
import pytest
import xarray as xr

from logit_distributions import cli, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import describe, distribution
from tests.conftest import STORED


def stored(count=None):
    path = STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc"
    return store.open_dataset(path).isel(sample=slice(count))


def test_a_profile_holds_the_plain_statistics():
    at = stored()
    profile, logits = describe.profile(at), at["logits"].values
    robust = at["robust"].values[-1]
    order = np.argsort(distribution.logit_gap(logits))
    quarter = len(order) // 4
    assert profile["low"] == pytest.approx(100 * robust[order[:quarter]].mean(), abs=0.1)
    assert profile["high"] == pytest.approx(100 * robust[order[-quarter:]].mean(), abs=0.1)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert profile["sure"] == pytest.approx(softmax.max(1).mean())
    assert profile["max"] == pytest.approx(logits.max(1).mean())


def test_each_row_says_how_many_images_and_which_attack():
    weaker = stored(200).assign_attrs(
        run="weaker", evaluation=json.dumps({"engine": "autoattack", "eps": 2 / 255,
                                             "iterations": 20, "restarts": 5, "seed": 0}),
    )  # fmt: skip
    full = stored(50).assign_attrs(
        run="full", evaluation=json.dumps({"engine": "autoattack-full", "eps": 8 / 255,
                                           "iterations": 100, "restarts": 1, "seed": 0}),
    )  # fmt: skip
    table = describe.describe(weaker, full).splitlines()
    assert table[0].split() == ["images", "attack", *describe.COLUMNS]
    assert table[1].split()[:6] == ["weaker", "200", "autoattack", "2/255", "20it", "x5"]
    assert table[2].split()[:4] == ["full", "50", "autoattack-full", "8/255"]
    assert "AT, scale small" in table[-4]
    natural = 100 * distribution.is_correct(weaker["logits"].values, weaker["label"].values).mean()
    low, high = distribution.wilson_interval(natural / 100, 200)
    assert re.search(rf"{natural:.2f} +\[{100 * low:.2f}, {100 * high:.2f}\]", table[1])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_not_known_is_a_dash(count):
    few = stored(count).assign_attrs(run="few")
    row = describe.describe(few).splitlines()[1]
    assert "nan" not in row
    assert row.count(" - ") + row.endswith(" -") >= (3 if count == 1 else 0)


def test_a_network_that_is_always_wrong_has_a_row():
    wrong = stored(40)
    wrong["label"] = (wrong["logits"].argmax("class") + 1) % 10
    wrong["robust"] = xr.zeros_like(wrong["robust"])
    profile = describe.profile(wrong)
    assert (profile["natural"], profile["robust"], profile["low"]) == (0, 0, 0)
    assert "nan" not in describe.describe(wrong)


def test_remarks_stand_below():
    some = stored(20).assign_attrs(run="mine", remarks=json.dumps(["verdicts mean little"]))
    assert describe.describe(some).splitlines()[-1] == "mine: verdicts mean little."


def test_networks_of_one_name_are_told_apart():
    table = describe.describe(stored(20), stored(30), stored(40)).splitlines()
    name = recipes.recipe("at").run(0)
    assert [line.split("  ")[0] for line in table[1:4]] == [name, f"{name} (2)", f"{name} (3)"]


def test_what_is_no_dataset_of_logits_is_one_line():
    with pytest.raises(ReproError) as refused:
        describe.describe()
    assert str(refused.value) == "expected datasets of kind logits to describe, got none"
    with pytest.raises(ReproError) as refused:
        describe.describe(xr.Dataset())
    assert str(refused.value) == (
        "expected datasets of kind logits, got None; likely not made by evaluate or 'logitdist "
        "attack'"
    )


def test_show_prints_accuracies_and_capacities(capsys):
    run = recipes.recipe("at", "medium").run(0)
    at, capacity = (STORED / kind / f"{run}.nc" for kind in ("logits", "capacity"))
    assert cli.main(["show", str(at), str(capacity)]) == 0
    printed = capsys.readouterr().out
    assert f"{at}:\n<xarray.Dataset>" in printed
    assert f"\n{describe.describe(store.open_dataset(at))}\n" in printed
    assert "adversarial manifolds, P = 50, M = 50" in printed
