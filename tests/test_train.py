import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from logit_distributions import images, recipes
from logit_distributions.errors import ReproError
from logit_distributions.jobs import epoch_file, rolling_file
from logit_distributions.make import train
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.options import Budget, Machine
from logit_distributions.recipes import Distillation, Recipe
from tests import naive, toy

CPU = Machine("cpu", "float32")


def _trainer(recipe, seed, sheets, targets=None, machine=CPU, shown=None) -> train.Trainer:
    data, validation = (images.load("cifar10", part, sheets) for part in ("train", "validation"))
    return train.Trainer(recipe, seed, machine.resolve(), data, validation, targets, shown)


def _trained(recipe, seed, sheets, targets=None, save_every=60.0) -> Checkpoint:
    return _trainer(recipe, seed, sheets, targets).run(recipe.epochs, save_every, Budget())


class _Killed(Exception):
    pass


def _recipe(method: str) -> Recipe:
    name = {"standard": "st", "adversarial": "at", "distillation": "normal"}[method]
    return recipes.recipe(name)


def _targets(method: str) -> np.ndarray | None:
    if method != "distillation":
        return None
    return np.random.default_rng(0).normal(size=(toy.SHOWN, 10)).astype(np.float32)


@pytest.mark.parametrize("method", ["standard", "adversarial", "distillation"])
def test_a_run_cut_anywhere_ends_with_the_same_bits(method, toy_world, toy_sheets, monkeypatch):
    recipe = _recipe(method)
    whole = _trained(recipe, 0, toy_sheets, _targets(method))
    monkeypatch.setenv("REPRO_CACHE", str(toy_world / "second"))
    one_step = train.Trainer.one_step
    left = {"steps": 1}

    def killed_after_one(run, draws):
        if left["steps"] == 0:
            left["steps"] = 1
            raise _Killed
        left["steps"] -= 1
        return one_step(run, draws)

    monkeypatch.setattr(train.Trainer, "one_step", killed_after_one)
    kills = 0
    while True:
        try:
            cut = _trained(recipe, 0, toy_sheets, _targets(method), save_every=0.0)
            break
        except _Killed:
            kills += 1
    assert kills >= 3
    assert not rolling_file(recipe, 0).exists()
    assert whole.tensors.keys() == cut.tensors.keys()
    assert all(torch.equal(whole.tensors[name], cut.tensors[name]) for name in whole.tensors)
    assert [_timeless(e) for e in whole.log] == [_timeless(e) for e in cut.log]
    assert whole.weights_sha256 == cut.weights_sha256


def _timeless(entry: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if name != "seconds"}


def test_a_run_that_was_begun_with_another_recipe_is_not_gone_on_with(toy_world, toy_sheets):
    recipe = _recipe("standard")
    _trainer(recipe, 0, toy_sheets).save(rolling_file(recipe, 0))
    other = dataclasses.replace(recipe, learning_rate=0.05)
    with pytest.raises(ReproError, match="recipe was changed since"):
        _trained(other, 0, toy_sheets)


def test_seeds_differ(toy_world, toy_sheets):
    recipe = dataclasses.replace(_recipe("standard"), epochs=1)
    first, second = (_trained(recipe, seed, toy_sheets) for seed in (0, 1))
    assert first.weights_sha256 != second.weights_sha256


def test_the_time_that_a_device_is_waited_for_counts(toy_world, toy_sheets, monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(train, "time", clock)
    finish = train.Trainer.assert_finite

    def late(run):
        clock.now += 1.0
        finish(run)

    monkeypatch.setattr(train.Trainer, "assert_finite", late)
    recipe = dataclasses.replace(_recipe("standard"), epochs=1)
    done = _trained(recipe, 0, toy_sheets, save_every=0.0)
    steps = math.ceil(toy.SHOWN / recipe.batch_size)
    assert done.log[0]["seconds"] == steps


def test_divergence_stops_with_a_clear_message(toy_world, toy_sheets):
    wild = dataclasses.replace(_recipe("standard"), learning_rate=1e30)
    with pytest.raises(ReproError, match="diverged, likely because the learning rate"):
        _trained(wild, 0, toy_sheets)
    assert not epoch_file(wild, 0, 1).exists()


def test_distillation_needs_targets_of_the_right_shape(toy_world, toy_sheets):
    recipe = _recipe("distillation")
    with pytest.raises(ReproError, match="needs targets"):
        _trained(recipe, 0, toy_sheets)
    wrong = np.zeros((3, 10), np.float32)
    with pytest.raises(ReproError, match="another split"):
        _trained(recipe, 0, toy_sheets, wrong)


@pytest.mark.parametrize(("loss", "temperature"), [("l1", 1.0), ("kl", 1.0), ("kl", 4.0)])
def test_distillation_losses_equal_naive(loss, temperature):
    recipe = dataclasses.replace(
        _recipe("distillation"), distillation=Distillation(loss=loss, temperature=temperature)
    )
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 6, 5, generator=draws).double()
    model = torch.nn.Identity()
    computed, returned = train.batch_loss(recipe, CPU)(
        model, train.Batch(logits.float(), torch.zeros(6), targets.float(), logits)
    )
    pairs = list(zip(targets.tolist(), logits.tolist(), strict=True))
    if loss == "l1":
        reference = np.mean([abs(a - b) for t, z in pairs for a, b in zip(t, z, strict=True)])
    else:
        reference = np.mean([naive.kl_divergence(t, z, temperature) for t, z in pairs])
    assert computed.item() == pytest.approx(reference, rel=1e-5)
    assert torch.equal(returned, logits.float())


def test_standard_loss_is_the_mean_cross_entropy():
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 5, generator=draws), torch.arange(6) % 5
    computed, _ = train.batch_loss(_recipe("standard"), CPU)(
        torch.nn.Identity(), train.Batch(logits, labels, logits, logits)
    )
    reference = np.mean(
        [naive.cross_entropy(z, y) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    )
    assert computed.item() == pytest.approx(reference, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "strength"), [("label-smoothing", 0.3), ("logit-squeezing", 0.05)]
)
def test_regularized_losses_equal_naive(name, strength):
    recipe = dataclasses.replace(
        _recipe("standard"), regularizer=recipes.Regularizer(name, strength)
    )
    draws = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 5, generator=draws), torch.arange(6) % 5
    computed, _ = train.batch_loss(recipe, CPU)(
        torch.nn.Identity(), train.Batch(logits, labels, logits, logits)
    )
    rows = list(zip(logits.tolist(), labels.tolist(), strict=True))
    reference = np.mean([naive.cross_entropy(row, label) for row, label in rows])
    if name == "label-smoothing":
        everywhere = [naive.cross_entropy(row, c) for row, _ in rows for c in range(5)]
        reference = (1 - strength) * reference + strength * np.mean(everywhere)
    else:
        reference += strength * np.mean([sum(z * z for z in row) for row, _ in rows])
    assert computed.item() == pytest.approx(reference, rel=1e-5)


def test_images_that_are_not_shown_leave_as_many_steps(toy_world, toy_sheets):
    recipe = dataclasses.replace(_recipe("distillation"), batch_size=64)
    shown = np.arange(0, toy.SHOWN, 4)
    trainer = _trainer(recipe, 0, toy_sheets, _targets("distillation"), shown=shown)
    seen = []
    trainer.update = lambda index, *rest: seen.extend(index.tolist())
    for epoch in range(2):
        trainer.epoch, trainer.step = epoch, 0
        draws = train.Epoch(toy.SHOWN, "x", epoch)
        while trainer.step < trainer.steps:
            trainer.one_step(draws)
    assert len(seen) == 2 * toy.SHOWN
    places, counts = np.unique(seen, return_counts=True)
    assert places.tolist() == shown.tolist()
    assert set(counts) == {8}


def test_a_linear_schedule_falls_to_zero():
    medium = recipes.recipe("at", "medium")
    rates = [train.learning_rate(medium, progress) for progress in (0, 0.25, 0.5, 1)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0])


def test_learning_rate_is_the_papers_at_200_epochs():
    paper = recipes.recipe("st", "paper")
    rates = [train.learning_rate(paper, epoch / 200) for epoch in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize("device", ["cudda", "cuda:99"])
def test_unknown_devices_are_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ReproError, match="device"):
        Machine(device).resolve()


def test_bfloat16_training_is_close_to_float32(toy_world, toy_sheets):
    recipe = dataclasses.replace(_recipe("standard"), epochs=1)
    losses = {}
    for seed, precision in ((0, "float32"), (0, "bfloat16")):
        run = _trainer(recipe, seed, toy_sheets, machine=Machine("cpu", precision))
        run.one_step(train.Epoch(len(run.data), "x"))
        losses[precision] = run.total_loss.item() / recipe.batch_size
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]
    assert math.isfinite(losses["float32"])


def test_damaged_checkpoints_are_named(tmp_path):
    with pytest.raises(ReproError, match="no such checkpoint"):
        Checkpoint.load(tmp_path / "none.safetensors")
    (tmp_path / "web.safetensors").write_text("<html>not found</html>")
    with pytest.raises(ReproError, match="truncated or damaged"):
        Checkpoint.load(tmp_path / "web.safetensors")
