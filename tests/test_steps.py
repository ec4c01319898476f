"""The gradient step of eq. (6): its direction, its length, and what is recorded."""

from __future__ import annotations

import json

import numpy as np
import pytest

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from paper.appendix_c import networks


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_direction_is_that_of_the_cross_entropy(torch):
    from logit_distributions.make.steps import loss_direction

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10))
    pixels, labels = torch.rand(12, 3, 4, 4), torch.arange(12) % 10
    leaf = pixels.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, leaf)
    gradient /= gradient.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(loss_direction(model, pixels, labels), gradient)


def test_direction_of_a_saturated_network(torch):
    from logit_distributions.make.steps import loss_direction

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    with torch.no_grad():
        model[1].bias[:] = torch.tensor([400.0, 0, 0])
    unit = loss_direction(model, torch.rand(5, 3, 4, 4), torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.ones(5))


def test_steps_have_the_stated_length_and_lower_the_soft_margin(torch):
    from logit_distributions.make.steps import gradient_steps

    torch.manual_seed(1)
    weights = torch.randn(10, 48)

    def model(x):
        return x.flatten(1) @ weights.T

    pixels, labels = torch.rand(20, 3, 4, 4), torch.arange(20) % 10
    logits = gradient_steps(model, pixels, labels, (0.01, 0.1))
    torch.testing.assert_close(logits[0], model(pixels))
    soft = np.stack([distribution.margins(each, labels).soft for each in logits.numpy()])
    assert (np.diff(soft, axis=0) < 0).all()
    moved = torch.linalg.lstsq(weights, (logits[2] - logits[0]).T).solution.norm(dim=0)
    reach = 0.1 * pixels.flatten(1).norm(dim=1)
    # The step lies in the span of the weights' rows, which the least squares recovers.
    torch.testing.assert_close(moved, reach, rtol=1e-3, atol=1e-4)


def test_the_stage_makes_a_dataset_that_appendix_c_reads(torch, monkeypatch, tmp_path):
    pytest.importorskip("safetensors")
    from logit_distributions import images
    from logit_distributions.jobs import Job
    from logit_distributions.make import steps
    from logit_distributions.make.checkpoint import Checkpoint
    from logit_distributions.make.network import ResNet18
    from logit_distributions.make.options import Machine, Options

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
    recipe = recipes.recipe("at")
    state = {f"model.{k}": v for k, v in ResNet18(10, 8).state_dict().items()}
    saved = Checkpoint(state, json.loads(recipe.to_json()), "0", 7, 1)
    monkeypatch.setattr(steps.images, "load", lambda *_: test)
    monkeypatch.setattr(steps.Checkpoint, "of", lambda job: saved)
    job = Job("theory", recipe, 7)
    made = steps.theory(job, Options(Machine("cpu")))
    store.write(made, job.path)
    assert job.path == tmp_path / "theory" / "cifar10-small-at-seed7.nc"
    assert made["hard_margin"].shape == (1 + len(recipes.STEPS), 30)
    (study,) = networks.stored().steps
    assert study.recipe == "at"
    assert study.eps == recipes.STEPS
    assert all(fit.growing == 0 for fit in study.soft[:1])
