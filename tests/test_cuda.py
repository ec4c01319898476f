"""What only a GPU can show: graphs equal plain steps, verdicts equal the CPU's, nothing waits."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from logit_distributions import images, recipes
from logit_distributions.images import ImageSet
from logit_distributions.jobs import Job, rolling_file
from logit_distributions.make import attack, graphs, train
from logit_distributions.make.augment import Epoch, to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.options import Budget, Machine, Options
from logit_distributions.make.precision import strict_float32
from logit_distributions.make.run import make
from logit_distributions.recipes import Evaluation
from tests import toy

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch finds none here"
)
METHODS = ("st", "at", "normal")
STEPS = graphs.WARM_UP + 8


@pytest.fixture
def deterministic(monkeypatch):
    """Take convolutions that add in one order, or two runs drift apart within some steps."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def _run(name, precision="bfloat16", replayed=True, **changes):
    recipe = dataclasses.replace(recipes.recipe(name), width=16, batch_size=64, **changes)
    pixels, labels = toy.arrays(100, 1)
    data = ImageSet(pixels, labels, labels, tuple("0123456789"), "")
    targets = np.random.default_rng(0).normal(size=(len(data), 10)).astype(np.float32)
    machine = Machine("cuda", precision, replayed).resolve()
    return train.Trainer(recipe, 0, machine, data, data, targets)


def _steps(run, count):
    draws = Epoch(len(run.data), "x", device="cuda")
    run.model.train()
    for _ in range(count):
        run.one_step(draws)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_replayed_steps_equal_plain_ones(name, precision, deterministic, capfd):
    replayed, plain = (_run(name, precision, each, learning_rate=1e-3) for each in (True, False))
    before = [each.clone() for each in plain.model.parameters()]
    for run in (replayed, plain):
        _steps(run, STEPS)
    assert isinstance(replayed.update, graphs.Graphed)
    assert replayed.update.checked, "the graph was never replayed"
    assert not replayed.update.given_up, capfd.readouterr().err
    assert replayed.total_loss.item() == pytest.approx(plain.total_loss.item(), rel=0.02)
    parameters = (before, replayed.model.parameters(), plain.model.parameters())
    differences = [graphs._relative_difference(*each) for each in zip(*parameters, strict=True)]
    assert torch.stack(differences).mean() <= 0.3


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("replayed", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_gpu(name, replayed):
    run = _run(name, replayed=replayed)
    _steps(run, STEPS)
    draws = Epoch(len(run.data), "x", device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.one_step(draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_replay_takes_the_learning_rate_of_its_step(monkeypatch):
    run = _run("st")
    _steps(run, STEPS)
    before = [each.clone() for each in run.model.parameters()]
    monkeypatch.setattr(train, "learning_rate", lambda *_: 0.0)
    _steps(run, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_cut_goes_on_within_rounding(
    name, deterministic, toy_world, toy_sheets, monkeypatch
):
    recipe = dataclasses.replace(recipes.recipe(name), batch_size=32, learning_rate=1e-3)
    targets = np.random.default_rng(0).normal(size=(400, 10)).astype(np.float32)
    targets = targets if name == "normal" else None

    def trained(save_every=60.0, machine=None):
        parts = [images.load("cifar10", part, toy_sheets) for part in ("train", "validation")]
        trainer = train.Trainer(
            recipe, 0, (machine or Machine("cuda")).resolve(), *parts, targets=targets
        )
        return trainer.run(recipe.epochs, save_every, Budget())

    whole = trained()
    monkeypatch.setenv("REPRO_CACHE", str(toy_world / "second"))
    one_step = train.Trainer.one_step

    def killed(run, draws):
        if (run.epoch, run.step) == (1, 9):
            raise KeyboardInterrupt
        return one_step(run, draws)

    monkeypatch.setattr(train.Trainer, "one_step", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(save_every=0.0)
    assert rolling_file(recipe, 0).exists()
    monkeypatch.setattr(train.Trainer, "one_step", one_step)
    cut = trained()
    assert [e["loss"] for e in cut.log] == pytest.approx([e["loss"] for e in whole.log], rel=0.02)


def test_verdicts_are_those_of_the_cpu(toy_world, toy_sheets):
    options = Options(Machine("cpu", "float32"), toy_sheets)
    model = Checkpoint.load(make(Job("train", recipes.recipe("at"), 0, 2), options)).model(10)
    pixels, labels = (torch.from_numpy(each) for each in toy.arrays(20, 2))
    images, settings = to_float(pixels), Evaluation(eps=1 / 255, iterations=30)
    judged = {}
    for device in ("cpu", "cuda"):
        judged[device] = attack.verdicts(
            model.to(device), images.to(device), labels.to(device), torch.arange(200), settings
        )
    ours, reference = judged["cuda"], judged["cpu"]
    torch.testing.assert_close(ours.logits.cpu(), reference.logits, atol=1e-4, rtol=1e-4)
    robust = reference.robust[-1]
    assert 0 < robust.sum() < (reference.logits.argmax(1) == labels).sum()
    assert (ours.robust.cpu() != reference.robust).sum(1).max() <= 1  # a coin on the boundary


def test_strict_float32_does_not_round_to_tf32():
    draws = torch.Generator().manual_seed(0)
    images, weights = (torch.randn(4, 64, 16, 16, generator=draws) for _ in range(2))
    exact = functional.conv2d(images.double(), weights[:, :, :3, :3].double())
    with strict_float32():
        convolved = functional.conv2d(images.cuda(), weights[:, :, :3, :3].cuda())
        product = images.flatten(1).cuda() @ weights.flatten(1).cuda().T
    torch.testing.assert_close(convolved.cpu().double(), exact, atol=1e-3, rtol=1e-5)  # TF32: 1e-2
    exact_product = images.flatten(1).double() @ weights.flatten(1).double().T
    torch.testing.assert_close(product.cpu().double(), exact_product, atol=2e-3, rtol=1e-5)
