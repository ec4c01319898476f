"""A network that masks its gradients is named by the checks; an honest one is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from logit_distributions import recipes, store
from logit_distributions.images import ImageSet
from logit_distributions.make import masking as stage
from logit_distributions.make.options import Machine, Options
from logit_distributions.read.masking import masking
from logit_distributions.recipes import Evaluation
from tests import toy_results

IMAGES, SIDE, EPS = 24, 8, 8 / 255
EVALUATIONS = [
    *(Evaluation(eps=radius / 255) for radius in (2, 8, 64)),
    *(Evaluation(eps=EPS, iterations=each) for each in (10, 150)),
    Evaluation(eps=EPS, restarts=2),
]


class Linear(nn.Module):
    """Tells four patterns apart, each by a gap that most balls of 8/255 close."""

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.patterns = nn.Parameter(torch.randn(4, 3 * SIDE**2, generator=draws).sign())

    def forward(self, pixels):
        return (pixels.flatten(1) - 0.5) @ self.patterns.T / 10


class Hot(Linear):
    """So steep that its softmax has no gradient in float32."""

    def forward(self, pixels):
        return 1e6 * super().forward(pixels)


class Rounding(Linear):
    """Rounds its input to 32 grey values, which has no gradient anywhere."""

    def forward(self, pixels):
        return super().forward(torch.round(31 * pixels) / 31)


def data(model):
    """Return grey images with a weak pattern of their class."""
    draws = np.random.default_rng(0)
    labels = np.arange(IMAGES) % 4
    patterns = model.patterns.detach().numpy().reshape(4, 3, SIDE, SIDE)
    pixels = 128 + 5 * patterns[labels] + draws.normal(0, 8, (IMAGES, 3, SIDE, SIDE))
    classes = tuple("abcd")
    return ImageSet(pixels.astype(np.uint8), labels, np.arange(IMAGES), classes, "0" * 64)


def measured(model, others=()):
    model = model.eval()
    options = Options(Machine("cpu"), progress=False)
    made = stage.measure(model, dict(others), data(model), EVALUATIONS, EPS, options)
    recipe = recipes.recipe("st")
    return made.assign_attrs(toy_results.attributes("masking", recipe, 0))


@pytest.fixture(scope="module")
def honest():
    return measured(Linear(), {"at": Hot().eval()})


def test_an_honest_network_shows_no_sign(honest, tmp_path):
    store.write(honest, tmp_path / "honest.nc")
    read = masking(store.open_dataset(tmp_path / "honest.nc", "masking"))
    assert read.natural == 100
    assert read.by_eps[64.0] == 0
    assert sorted(read.by_iterations) == [10, 100, 150]
    assert read.signs == {}
    assert "no sign of masked gradients: 0.0 % survive in a ball of 64/255" in read.sentence("ST")


def test_a_huge_temperature_is_named():
    read = masking(measured(Hot()))
    assert read.no_gradient == 100
    assert read.one_loss > 90
    assert set(read.signs) >= {"gradient", "loss"}
    assert "the cross-entropy alone leaves" in read.sentence("hot")


def test_a_rounding_layer_is_named():
    read = masking(measured(Rounding()))
    assert set(read.signs) >= {"gradient", "square"}
    assert read.square < read.accuracy
    assert "Square, which needs no gradient, fools" in read.sentence("rounding")


def test_images_of_others_that_fool_it_are_named(honest):
    """The honest network's images, which the rounding one's own attack does not find."""
    source = measured(Linear(), {"st": Rounding().eval()})
    source.attrs["recipe"] = recipes.recipe("at").to_json()
    rounding = measured(Rounding())
    read = masking(rounding, {"at": source, "nobody": honest})
    assert "transfer" in read.signs
    assert read.only_others.keys() == {"at"}
    assert "adversarial images of at fool" in read.sentence("rounding")


def test_each_attack_is_made_once_and_kept(tmp_path, monkeypatch):
    """A killed stage goes on with the next attack, to the same dataset."""

    class Job:
        partial, run = tmp_path / "partial.npz", "toy"

    model = Linear().eval()
    options, images = Options(Machine("cpu"), progress=False), data(model)
    few = EVALUATIONS[:2]
    called = []
    real = stage.verdicts

    def counted(*arguments):
        if len(called) == 1:
            called.append("dies")
            raise KeyboardInterrupt
        called.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(stage, "verdicts", counted)
    with pytest.raises(KeyboardInterrupt):
        stage.measure(model, {}, images, few, EPS, options, stage.Done(Job, "key"))
    made = stage.measure(model, {}, images, few, EPS, options, stage.Done(Job, "key"))
    assert called == [few[0], "dies", few[1], Evaluation("autoattack-square", eps=EPS)]
    whole = stage.measure(model, {}, images, few, EPS, options)
    assert made.identical(whole)
    assert stage.settings_of(made) == few


def test_the_evaluations_of_a_network():
    evaluations = recipes.masking(recipes.recipe("at"))
    assert len(evaluations) == len(set(evaluations)) == 7 + 4 + 1
    assert evaluations[3] == Evaluation()
    assert json.loads(recipes.recipe("at").to_json())["name"] == "at"
