import dataclasses
import fcntl
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from logit_distributions import pipeline, recipes
from logit_distributions.errors import ReproError
from logit_distributions.make import train
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.recipes import Distillation, Recipe
from logit_distributions.store import places
from logit_distributions.store.places import epoch_file, rolling_file
from tests import naive

CPU = train.Machine("cpu", "float32")


class _Killed(Exception):
    pass


def _recipe(method: str) -> Recipe:
    name = {"standard": "st", "adversarial": "at", "distillation": "normal"}[method]
    return recipes.recipe(name)


def _targets(method: str) -> np.ndarray | None:
    if method != "distillation":
        return None
    return np.random.default_rng(0).normal(size=(400, 10)).astype(np.float32)


@pytest.mark.parametrize("method", ["standard", "adversarial", "distillation"])
def test_a_run_cut_anywhere_ends_with_the_same_bits(method, toy_world, toy_sheets, monkeypatch):
    recipe = _recipe(method)
    settings = {"machine": CPU, "images": toy_sheets, "targets": _targets(method)}
    whole = train.train(recipe, 0, **settings)
    monkeypatch.setenv("REPRO_CACHE", str(toy_world / "second"))
    one_step = train._Run.one_step
    left = {"steps": 3}

    def killed_after_some(run, draws):
        if left["steps"] == 0:
            left["steps"] = 4
            raise _Killed
        left["steps"] -= 1
        return one_step(run, draws)

    monkeypatch.setattr(train._Run, "one_step", killed_after_some)
    kills = 0
    while True:
        try:
            cut = train.train(recipe, 0, save_every=0.0, **settings)
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


def test_a_finished_run_is_not_trained_again(toy_world, toy_sheets, monkeypatch):
    recipe = _recipe("standard")
    first = train.train(recipe, 0, machine=CPU, images=toy_sheets)
    monkeypatch.setattr(train, "_Run", None)
    assert train.train(recipe, 0).weights_sha256 == first.weights_sha256
    other = dataclasses.replace(recipe, learning_rate=0.05)
    with pytest.raises(ReproError, match="recipe was changed since"):
        train.train(other, 0)


def test_seeds_differ(toy_world, toy_sheets):
    recipe = dataclasses.replace(_recipe("standard"), epochs=1)
    first, second = (train.train(recipe, s, machine=CPU, images=toy_sheets) for s in (0, 1))
    assert first.weights_sha256 != second.weights_sha256


def test_the_time_that_a_device_is_waited_for_counts(toy_world, toy_sheets, monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(train, "time", clock)
    finish = train._Run.assert_finite

    def late(run):
        clock.now += 1.0
        finish(run)

    monkeypatch.setattr(train._Run, "assert_finite", late)
    recipe = dataclasses.replace(_recipe("standard"), epochs=1)
    done = train.train(recipe, 0, machine=CPU, images=toy_sheets, save_every=0.0)
    steps = math.ceil(400 / recipe.batch_size)
    assert done.log[0]["seconds"] == steps


def test_divergence_stops_with_a_clear_message(toy_world, toy_sheets):
    wild = dataclasses.replace(_recipe("standard"), learning_rate=1e30)
    with pytest.raises(ReproError, match="diverged, likely because the learning rate"):
        train.train(wild, 0, machine=CPU, images=toy_sheets)
    assert not epoch_file(wild, 0, 1).exists()


def test_distillation_needs_targets_of_the_right_shape(toy_world, toy_sheets):
    recipe = _recipe("distillation")
    with pytest.raises(ReproError, match="needs targets"):
        train.train(recipe, 0, machine=CPU, images=toy_sheets)
    wrong = np.zeros((3, 10), np.float32)
    with pytest.raises(ReproError, match="another split"):
        train.train(recipe, 0, machine=CPU, images=toy_sheets, targets=wrong)


@pytest.mark.parametrize(("loss", "temperature"), [("l1", 1.0), ("kl", 1.0), ("kl", 4.0)])
def test_distillation_losses_equal_naive(loss, temperature):
    recipe = dataclasses.replace(
        _recipe("distillation"), distillation=Distillation(loss=loss, temperature=temperature)
    )
    draws = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 6, 5, generator=draws).double()
    model = torch.nn.Identity()
    computed, returned = train.batch_loss(recipe, CPU)(
        model, logits.float(), torch.zeros(6), targets.float(), logits
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
        torch.nn.Identity(), logits, labels, logits, logits
    )
    reference = np.mean(
        [naive.cross_entropy(z, y) for z, y in zip(logits.tolist(), labels.tolist(), strict=True)]
    )
    assert computed.item() == pytest.approx(reference, rel=1e-6)


def test_a_linear_schedule_falls_to_zero():
    medium = recipes.recipe("at", "medium")
    rates = [train.learning_rate(medium, progress) for progress in (0, 0.25, 0.5, 1)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0])


def test_every_second_epoch_of_the_medium_scale_is_recorded():
    assert train.recorded_epochs(recipes.recipe("at", "medium")) == list(range(2, 21, 2))
    assert train.recorded_epochs(recipes.recipe("at", "small")) == list(range(1, 7))
    assert train.recorded_epochs(recipes.recipe("at", "paper")) == list(range(10, 201, 10))


def test_learning_rate_is_the_papers_at_200_epochs():
    paper = recipes.recipe("st", "paper")
    rates = [train.learning_rate(paper, epoch / 200) for epoch in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert train.checkpoint_epochs(paper)[3] == 40
    assert train.checkpoint_epochs(recipes.recipe("st", "small"))[-1] == 6


def test_best_epoch_is_the_best_trade_off():
    def entry(epoch, natural, robust):
        found = {"epoch": epoch, "validation_accuracy": natural}
        return found | ({} if robust is None else {"validation_robust_accuracy": robust})

    log = [entry(1.0, 0.9, 0.0), entry(2.0, 0.7, 0.4), entry(3.0, 0.8, 0.2), entry(4.0, 1.0, None)]
    assert train.best_epoch(log) == 2
    with pytest.raises(ReproError, match="no epoch was validated"):
        train.best_epoch(log[3:])


@pytest.mark.parametrize("device", ["cudda", "cuda:99"])
def test_unknown_devices_are_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ReproError, match="device"):
        train.Machine(device).resolve()


def test_bfloat16_training_is_close_to_float32(toy_world, toy_sheets):
    recipe = dataclasses.replace(_recipe("standard"), epochs=1)
    losses = {}
    for seed, precision in ((0, "float32"), (0, "bfloat16")):
        run = train._Run(recipe, seed, train.Machine("cpu", precision), toy_sheets, None)
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


def test_a_run_is_trained_by_one_process_at_a_time(toy_world, monkeypatch):
    st = recipes.recipe("st")

    def train(*arguments, **settings):
        handle = os.open(places.run_folder(st, 0), os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
        raise InterruptedError("as expected")

    monkeypatch.setattr(pipeline, "train", train)
    for make in (pipeline.trained, pipeline.recorded_by_epoch):
        with pytest.raises(InterruptedError, match="as expected"):
            make(st, 0, pipeline.Options())
