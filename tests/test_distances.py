"""Radii by bisection and by the gap's slope, where both are known exactly: linear networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from logit_distributions import recipes, store
from logit_distributions.images import ImageSet
from logit_distributions.make import attack, distances
from logit_distributions.make.options import Machine, Options
from logit_distributions.recipes import Evaluation
from tests import toy_results

SIDE, RESOLUTION, FARTHEST = 4, 1 / 255, 64 / 255
QUICK = Evaluation(iterations=20)


class Linear(nn.Module):
    """Of two classes of opposite weights, so that the nearest boundary is the only one."""

    def __init__(self, count=3):
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.weights = nn.Parameter(torch.randn(3 * SIDE**2, count, generator=draws))

    def forward(self, pixels):
        return (pixels.flatten(1) - 0.5) @ self.weights


def pixels(count=20):
    draws = torch.Generator().manual_seed(2)
    return 0.35 + 0.3 * torch.rand(count, 3, SIDE, SIDE, generator=draws)


def exact(model, images):
    """Return each image's distance to the nearest boundary in the Linf norm, one by one."""
    weights, radii = model.weights.detach().double(), []
    for image in images.double():
        logits = (image.flatten() - 0.5) @ weights
        top = int(logits.argmax())
        others = [c for c in range(weights.shape[1]) if c != top]
        radii.append(
            min(
                float((logits[top] - logits[c]) / (weights[:, top] - weights[:, c]).abs().sum())
                for c in others
            )
        )
    return np.array(radii)


def test_bisection_finds_the_distance_to_the_boundary():
    model, images = Linear().eval(), pixels()
    labels = model(images).argmax(1)
    labels[:2] = (labels[:2] + 1) % 3  # misclassified as they are
    index = torch.arange(len(images))
    radius = distances.smallest_radius(
        model, images, labels, index, QUICK, RESOLUTION, FARTHEST
    ).numpy()
    expected = exact(model, images)
    assert (radius[:2] == 0).all()
    assert (radius[2:] > expected[2:] - 1e-6).all()
    assert (radius[2:] <= expected[2:] + RESOLUTION + 1e-6).all()
    assert len(np.unique(radius)) > 5
    np.testing.assert_allclose(radius / RESOLUTION, np.round(radius / RESOLUTION), atol=1e-4)


def test_what_the_largest_ball_does_not_hold_is_not_a_number():
    model, images = Linear().eval(), pixels()
    labels = model(images).argmax(1)
    near = exact(model, images) < 4 / 255
    radius = distances.smallest_radius(
        model, images, labels, torch.arange(len(images)), QUICK, RESOLUTION, 4 / 255
    )
    assert 0 < near.sum() < len(near)
    np.testing.assert_array_equal(np.isfinite(radius.numpy()), near)


def test_the_slope_predicts_the_distance_of_a_linear_network():
    model, images = Linear(2).eval(), pixels()
    labels = model(images).argmax(1)
    gap, slope, right = distances.gaps(model, images, labels)
    assert right.all()
    np.testing.assert_allclose((gap / slope).numpy(), exact(model, images), rtol=1e-4, atol=1e-7)


def test_each_sample_is_attacked_in_its_own_ball():
    model, images = Linear().eval(), pixels()
    labels, index = model(images).argmax(1), torch.arange(len(images))
    eps = torch.linspace(1 / 255, 30 / 255, len(images))
    holds = attack.withstands(model, images, labels, index, QUICK, eps)
    one_by_one = [
        bool(
            attack.verdicts(
                model, images[i : i + 1], labels[i : i + 1], index[i : i + 1],
                Evaluation(eps=float(eps[i]), iterations=20),
            ).robust[-1]
        )
        for i in range(len(images))
    ]  # fmt: skip
    assert holds.tolist() == one_by_one
    assert 0 < holds.sum() < len(holds)


def test_what_is_measured_is_a_dataset(tmp_path, monkeypatch):
    """The stage in two chunks, the second after a kill, is the stage in one."""
    model, images = Linear().eval(), pixels(6)
    labels = model(images).argmax(1).numpy()
    data = ImageSet(images.numpy(), labels, np.arange(6), tuple("abc"), "0" * 64)
    recipe = recipes.recipe("st")

    class Checkpoint:
        weights_sha256 = "0"

        def model(self, classes):
            return model

        def attributes(self, kind, data):
            return toy_results.attributes(kind, recipe, 0)

    class Job:
        needs, run, partial = (None,), "toy", tmp_path / "partial.npz"

    Job.recipe = recipe
    monkeypatch.setattr(distances.Checkpoint, "of", lambda job: Checkpoint())
    monkeypatch.setattr(distances.images, "load", lambda *_: data)
    options = Options(Machine("cpu"), progress=False)
    monkeypatch.setattr(distances, "CHUNK", 4)
    real, calls = distances.measure, []

    def dying(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(distances, "measure", dying)
    with pytest.raises(KeyboardInterrupt):
        distances.distances(Job, options)
    made = distances.distances(Job, options)
    assert [len(each[1]) for each in calls] == [4, 2, 2]
    whole = real(model, data, options)
    np.testing.assert_array_equal(made["radius"].values, whole["radius"])
    store.write(made, tmp_path / "made.nc")
    opened = store.open_dataset(tmp_path / "made.nc", "distances")
    assert opened.attrs["resolution"] == recipes.RESOLUTION
    predicted = opened["gap"] / opened["gradient_l1"]
    assert (predicted.values > 0).all()
