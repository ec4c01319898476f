"""What surrounds a CUDA graph, on any machine: a replay is a call on the static tensors."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from logit_distributions import images, recipes
from logit_distributions.images import ImageSet
from logit_distributions.make import graphs, train
from logit_distributions.make.augment import Epoch
from logit_distributions.make.precision import strict_float32, tuned_convolutions
from tests import toy

CPU = train.Machine("cpu", "float32")


class _Emulated(graphs.Graphed):
    """Captures by remembering the static tensors, so that only they can reach a replay."""

    replays = 0

    def _aside(self, *tensors):
        self.function(*tensors)

    def _captured(self, *tensors):
        def replay():
            self.replays += 1
            self.function(*tensors)

        return replay


class _Failing(_Emulated):
    def _captured(self, *tensors):
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        except RuntimeError as error:
            raise torch.AcceleratorError("capture was invalidated", 901) from error


class _Stale(_Emulated):
    """A graph that works on the tensors of the capture, whatever is copied to the static ones."""

    def _captured(self, *tensors):
        return super()._captured(*(each.clone() for each in tensors))


class _Forgetful(_Emulated):
    """A graph that does not change one of the tensors."""

    def _captured(self, *tensors):
        def replay():
            kept = self.state()[1].clone()
            self.function(*tensors)
            self.state()[1].copy_(kept)

        return replay


def _sums(kind):
    """Return two sums and the function that adds to them."""
    total, squares = torch.zeros(3), torch.zeros(3)

    def function(values):
        total.add_(values.sum(0))
        squares.add_(values.square().sum(0))

    return total, squares, kind(function, lambda: [total, squares])


@pytest.mark.parametrize("kind", [_Emulated, _Failing, _Stale, _Forgetful])
def test_results_are_those_of_the_function_whatever_the_capture_does(kind, capsys):
    total, squares, step = _sums(kind)
    draws = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 3, generator=draws) for _ in range(9)]
    batches.insert(7, torch.randn(2, 3, generator=draws))
    for batch in batches:
        step(batch)
    torch.testing.assert_close(total, torch.cat(batches).sum(0))
    torch.testing.assert_close(squares, torch.cat(batches).square().sum(0))
    warned = capsys.readouterr().err
    assert step.given_up == (kind is not _Emulated)
    assert warned.count("\n") == 1
    if kind is _Emulated:
        assert (
            "replayed from a CUDA graph: its replay differs from the plain step by 0 on" in warned
        )
        assert step.replays == len(batches) - graphs.WARM_UP - 2
    elif kind is _Failing:
        assert "one by one: RuntimeError: operation not permitted when stream is cap" in warned
    else:
        assert "differs from the plain step" in warned


class _Borderline(_Emulated):
    """A graph whose rounding decides otherwise which class of one image is the largest."""

    def _captured(self, *tensors):
        def replay():
            self.replays += 1
            self.function(*tensors)
            total, correct = self.state()
            total.mul_(1 + 1e-7)
            correct.add_(1)

        return replay


def test_an_image_on_the_border_does_not_throw_the_graph_away(capsys):
    total, correct = torch.zeros(3), torch.zeros((), dtype=torch.int64)

    def function(values):
        total.add_(values.sum(0))
        correct.add_((values > 2).sum())

    step = _Borderline(function, lambda: [total, correct])
    for _ in range(graphs.WARM_UP + 3):
        step(torch.ones(4, 3))
    assert step.checked
    assert not step.given_up
    assert "replayed from a CUDA graph" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "given_up"), [(_Emulated, False), (_Forgetful, True)])
def test_a_function_that_differs_from_call_to_call_is_compared_with_itself(kind, given_up):
    """As kernels do that add in no fixed order, when the sign of a gradient decides."""
    total, squares = torch.zeros(300), torch.zeros(300)
    draws = torch.Generator().manual_seed(0)

    def function(values):
        for each, power in ((total, 1), (squares, 2)):
            each.add_(values.pow(power).sum(0) * (1 + 0.2 * torch.randn(300, generator=draws)))

    step = kind(function, lambda: [total, squares])
    for _ in range(graphs.WARM_UP + 3):
        step(torch.rand(4, 300, generator=draws))
    assert step.checked
    assert step.given_up == given_up


def test_epochs_of_few_steps_are_never_captured(capsys):
    total, _, step = _sums(_Emulated)
    for _ in range(3):
        for size in (4, 4, 1):
            step(torch.ones(size, 3))
    assert total.tolist() == [27.0] * 3
    assert step.replay is None
    assert not capsys.readouterr().err


@pytest.mark.parametrize("name", ["st", "at", "normal"])
def test_a_training_step_is_a_function_of_static_tensors_and_the_state(name, capsys):
    recipe = dataclasses.replace(recipes.recipe(name), batch_size=16)
    if recipe.pgd is not None:
        recipe = dataclasses.replace(recipe, pgd=recipes.PGD(steps=2))
    pixels, labels = toy.arrays(10, 1)
    data = ImageSet(pixels, labels, labels, tuple("0123456789"), "")
    targets = np.random.default_rng(0).normal(size=(100, 10)).astype(np.float32)
    runs = [train.Trainer(recipe, 0, CPU, data, data, targets) for _ in range(2)]
    graphed = runs[1].update = _Emulated(runs[1].plain_update, runs[1].state)
    for run in runs:
        for step in range(9):
            run.step = step % 7  # the seventh batch is smaller
            run.model.train()
            run.one_step(Epoch(len(run.data), "x"))
    plain, other = (run.state() for run in runs)
    assert len(plain) > 150
    assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    assert graphed.replays == 4
    assert "steps are replayed from a CUDA graph" in capsys.readouterr().err


@pytest.mark.parametrize("context", [strict_float32, tuned_convolutions])
def test_settings_of_the_gpu_are_put_back(context):
    def settings():
        return (
            torch.backends.cudnn.conv.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
            torch.backends.cudnn.benchmark,
        )

    before = settings()
    with contextlib.suppress(ZeroDivisionError), context():
        assert settings() != before
        raise ZeroDivisionError
    assert settings() == before


def test_verdicts_are_computed_in_strict_float32(toy_world, toy_sheets, monkeypatch):
    data = images.load("cifar10", "validation", toy_sheets)
    run = train.Trainer(recipes.recipe("at"), 0, CPU, data, data)
    seen = set()
    run.model.register_forward_pre_hook(
        lambda *_: seen.add(torch.backends.cudnn.conv.fp32_precision)
    )
    run.validate()
    assert seen == {"ieee"}
