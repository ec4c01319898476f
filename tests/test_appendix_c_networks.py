"""Appendix C against networks: the statistics on made-up logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from logit_distributions import store
from logit_distributions.read import distribution
from paper.appendix_c import networks


def test_expansion_ratio_by_hand():
    z = [[3.0, -1.0, 2.0], [-4.0, -1.0, -5.0]]
    np.testing.assert_allclose(networks.expansion_ratio(z), [(5 / 9) ** 2, 41.0**2])


@pytest.mark.parametrize(
    ("power", "noise", "shape"), [(1, 0.1, "linear"), (2, 0.1, "quadratic"), (1, 400, "neither")]
)
def test_fit_tells_the_dependence(power, noise, shape):
    draws = np.random.default_rng(2)
    gap = draws.uniform(0.1, 8, 4000)
    fit = networks.fit_change(gap, -(gap**power) + noise * draws.normal(size=4000))
    assert fit.shape == shape
    assert fit.count == 4000
    if shape != "neither":
        assert fit.exponent == pytest.approx(power, abs=0.15)


def test_fit_of_nothing():
    assert networks.fit_change([], []).shape == "neither"
    assert np.isnan(networks.fit_change([], []).growing)
    assert networks.fit_change(np.arange(20.0), np.ones(20)).growing == 1


def attributes(kind, run="cifar10-small-at-seed0"):
    recipe = json.dumps({"name": "at", "scale": "small", "dataset": "cifar10"})
    return {
        "kind": kind, "run": run, "method": "adversarial", "dataset": "cifar10",
        "data_sha256": "0", "recipe": recipe, "recipe_hash": "0", "seed": 0, "scale": "small",
        **store.provenance(),
    }  # fmt: skip


def write_logits(n=400):
    draws = np.random.default_rng(3)
    label = draws.integers(0, 10, n)
    z = draws.normal(size=(n, 10)).astype(np.float32)
    z[np.arange(n), label] += 3
    adversarial = z.copy()
    adversarial[np.arange(n), label] -= 0.5 * np.maximum(distribution.margins(z, label).hard, 0)
    right = z.argmax(1) == label
    robust = right & (adversarial.argmax(1) == label)
    data = xr.Dataset(
        {
            "logits": (("sample", "class"), z),
            "adversarial_logits": (("sample", "class"), adversarial),
            "robust": (("attack", "sample"), np.stack([robust, robust])),
            "label": ("sample", label.astype(np.int16)),
            "index": ("sample", np.arange(n, dtype=np.int32)),
        },
        {"class": [str(i) for i in range(10)], "attack": ["apgd-ce", "apgd-dlr"]},
        attributes("logits"),
    )
    store.write(data, store.path_of("logits", data.attrs["run"]))
    return z, label


def test_study_of_stored_logits(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    z, label = write_logits()
    (study,) = networks.stored().logits
    wrong = z.max(1)[z.argmax(1) != label].astype(float)
    assert study.recipe == "at"
    assert study.count == 400
    assert study.largest == pytest.approx(z.max(1).mean(dtype=float))
    assert study.largest_wrong == pytest.approx(wrong.mean())
    assert study.wrong_above == pytest.approx((wrong > 3.4961698525).mean())
    assert study.ratio[1] == pytest.approx(np.median(networks.expansion_ratio(z)))
    assert study.survivors.shape == "linear"
    assert study.survivors.exponent == pytest.approx(1, abs=1e-3)
    assert study.survivors.growing == 0
    assert any("cifar10-small-at-seed0" in line for line in networks.report(networks.stored()))


def test_without_data_one_line_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    lines = [line for line in networks.report(networks.stored()) if line]
    assert len(lines) == 2
    assert "logitdist make table2" in lines[0]
    assert "logitdist make figureC3" in lines[1]
