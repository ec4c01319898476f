"""Appendix C against networks: the statistics on made-up logits, and the step of eq. (6)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

from logit_distributions import paths, recipes, statistics, store
from logit_distributions.theory import networks


def test_expansion_ratio_by_hand():
    z = [[3.0, -1.0, 2.0], [-4.0, -1.0, -5.0]]
    np.testing.assert_allclose(networks.expansion_ratio(z), [(5 / 9) ** 2, 41.0**2])


@pytest.mark.parametrize(
    ("power", "noise", "verdict"), [(1, 0.1, "linear"), (2, 0.1, "quadratic"), (1, 400, "neither")]
)
def test_fit_tells_the_dependence(power, noise, verdict):
    draws = np.random.default_rng(2)
    gap = draws.uniform(0.1, 8, 4000)
    fit = networks.fit_change(gap, -(gap**power) + noise * draws.normal(size=4000))
    assert fit.verdict == verdict
    assert fit.count == 4000
    if verdict != "neither":
        assert fit.exponent == pytest.approx(power, abs=0.15)


def test_fit_of_nothing():
    assert networks.fit_change([], []).verdict == "neither"
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
    adversarial[np.arange(n), label] -= 0.5 * np.maximum(statistics.margins(z, label).hard, 0)
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
    assert study.survivors.verdict == "linear"
    assert study.survivors.exponent == pytest.approx(1, abs=1e-3)
    assert study.survivors.growing == 0
    assert any("cifar10-small-at-seed0" in line for line in networks.report(networks.stored()))


def test_without_data_one_line_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    lines = [line for line in networks.report(networks.stored()) if line]
    assert len(lines) == 2
    assert "logitdist run table2" in lines[0]
    assert "logitdist theory step" in lines[1]


# The step of eq. (6); torch from here on


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_direction_is_that_of_the_cross_entropy(torch):
    from logit_distributions.gradient_step import loss_direction

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10))
    pixels, labels = torch.rand(12, 3, 4, 4), torch.arange(12) % 10
    leaf = pixels.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    gradient /= gradient.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(loss_direction(model, pixels, labels), gradient)


def test_direction_of_a_saturated_network(torch):
    from logit_distributions.gradient_step import loss_direction

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    with torch.no_grad():
        model[1].bias[:] = torch.tensor([400.0, 0, 0])
    unit = loss_direction(model, torch.rand(5, 3, 4, 4), torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(5))


def test_steps_have_the_stated_length_and_lower_the_soft_margin(torch):
    from logit_distributions.gradient_step import gradient_steps

    torch.manual_seed(1)
    weights = torch.randn(10, 48)

    def model(x):
        return x.flatten(1) @ weights.T

    pixels, labels = torch.rand(20, 3, 4, 4), torch.arange(20) % 10
    logits = gradient_steps(model, pixels, labels, (0.01, 0.1))
    torch.testing.assert_close(logits[0], model(pixels))
    soft = np.stack([statistics.margins(each, labels).soft for each in logits.numpy()])
    assert (np.diff(soft, axis=0) < 0).all()
    moved = torch.linalg.lstsq(weights, (logits[2] - logits[0]).T).solution.norm(dim=0)
    reach = 0.1 * pixels.flatten(1).norm(dim=1)
    # The step lies in the span of the weights' rows, which the least squares recovers.
    torch.testing.assert_close(moved, reach, rtol=1e-3, atol=1e-4)


def test_record_writes_a_valid_dataset(torch, monkeypatch, tmp_path):
    pytest.importorskip("safetensors")
    from logit_distributions import gradient_step, images
    from logit_distributions.checkpoints import Checkpoint
    from logit_distributions.network import ResNet18

    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    torch.manual_seed(2)
    draws = np.random.default_rng(4)
    test = images.ImageSet(
        draws.integers(0, 256, (30, 3, 32, 32)).astype(np.uint8),
        np.arange(30) % 10,
        np.arange(30),
        images.CIFAR10.classes,
        "0",
    )
    monkeypatch.setattr(gradient_step.images, "load", lambda *_: test)
    recipe = json.loads(recipes.recipe("st").to_json())
    state = {f"model.{k}": v for k, v in ResNet18(10, 8).state_dict().items()}
    file = paths.data() / "checkpoints" / "cifar10-small-st-seed7.safetensors"
    file.parent.mkdir()
    Checkpoint(state, recipe, "0", 7, 1).save(file)
    (path,) = gradient_step.record_all([], samples=20)
    assert path == tmp_path / "theory" / "cifar10-small-st-seed7.nc"
    assert store.validate(path) == []
    assert store.open_dataset(path)["hard_margin"].shape == (1 + len(gradient_step.EPS), 20)
    (study,) = networks.stored().steps
    assert study.recipe == "st"
    assert study.eps == gradient_step.EPS
    assert all(fit.growing == 0 for fit in study.soft[:1])


def test_no_samples_are_refused(torch, tmp_path):
    from logit_distributions.errors import ReproError
    from logit_distributions.gradient_step import record

    for samples in (0, -3):
        with pytest.raises(ReproError, match=f"expected at least 1, got {samples}"):
            record(tmp_path / "none.safetensors", samples)


def test_nothing_to_record(torch, monkeypatch, tmp_path):
    from logit_distributions.errors import ReproError
    from logit_distributions.gradient_step import record_all

    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    with pytest.raises(ReproError, match="logitdist run table2"):
        record_all([])
