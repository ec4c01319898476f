import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from logit_distributions import recipes, work
from logit_distributions.make import attack, train
from logit_distributions.make.network import ResNet18, build, forward_work, frozen

IMAGES, WIDTH = 2, 8
ONE = work.resnet18(WIDTH, 10)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    return ResNet18(10, WIDTH), torch.rand(IMAGES, 3, 32, 32), torch.zeros(IMAGES).long()


class _NoModules:
    """In the place of torch's tracker of modules, which cannot follow ``autograd.grad``."""

    parents = frozenset({"Global"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _counted(function) -> int:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with counter:
        function()
    return counter.get_total_flops()


@pytest.mark.parametrize(("width", "classes"), [(8, 10), (16, 100), (64, 10)])
def test_forward_flops_are_those_that_torch_counts(width, classes):
    model = ResNet18(classes, width).eval()
    with torch.no_grad():
        counted = _counted(lambda: model(torch.rand(1, 3, 32, 32)))
    assert work.resnet18(width, classes).flops == counted
    assert forward_work(model) == work.resnet18(width, classes)


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_flops_of_other_networks_are_those_that_torch_counts(name):
    model = build(name, 10).eval()
    with torch.no_grad():
        counted = _counted(lambda: model(torch.rand(1, 3, 32, 32)))
    assert forward_work(model).flops == counted
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["st", "at", "normal"])
def test_training_flops_are_those_that_torch_counts(name, problem):
    model, images, labels = problem
    recipe = recipes.recipe(name)
    loss = train.batch_loss(recipe, train.Machine("cpu", "float32"))
    targets, noise = torch.zeros(IMAGES, 10), torch.zeros_like(images)
    counted = _counted(lambda: loss(model, images, labels, targets, noise)[0].backward())
    assert work.training_flops(ONE, recipe, IMAGES) == counted


def test_attack_flops_are_those_that_torch_counts_when_nobody_is_fooled(problem):
    model, images, labels = problem
    with torch.no_grad():
        model.eval().logits.bias[0] += 1000
    settings = attack.Evaluation(iterations=3, restarts=2)
    counted = _counted(
        lambda: attack.evaluate(model, images, labels, torch.arange(IMAGES), settings)
    )
    assert work.attack_flops(ONE, IMAGES, iterations=3, restarts=2) == counted


def test_targets_flops_are_passes_of_all_images():
    assert work.targets_flops(ONE, images=7, passes=5) == 35 * ONE.flops


def test_a_step_of_an_attack_needs_no_gradient_by_weights(problem):
    model, images, labels = problem
    attacked = frozen(model)

    def step():
        functional.cross_entropy(attacked(images.requires_grad_()), labels).backward()

    assert IMAGES * work.ascent_flops(ONE) == _counted(step)
