"""What is given is refused in one line; a premise that fails is a sentence."""

import sys

import pytest
import torch
from torch import nn

from logit_distributions import Evaluation, evaluate
from logit_distributions.errors import ReproError
from logit_distributions.make import attack, logits, premises
from logit_distributions.make.network import Guarded

QUICK = Evaluation(iterations=3)


class Calls(nn.Module):
    """A small convolutional network inside a forward of one's own."""

    def __init__(self, forward=lambda inner, images: inner(images), classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, classes)
        )
        self.call = forward

    def forward(self, images):
        return self.call(self.inner, images)


def some_images(count=6):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def labels_of(model, images):
    """Return the network's own predictions, so that there is something to attack."""
    with torch.no_grad():
        return model(images.clone()).argmax(1)


def network(forward=lambda inner, images: inner(images), classes=4):
    return Calls(forward, classes).eval()


def in_mode(change):
    model = network()
    change(model)
    return model


def nan_in(images, row):
    changed = images.clone()
    changed[row, 0, 0, 0] = torch.nan
    return changed


X, Y = some_images(), torch.tensor([0, 1, 2, 3, 0, 1])
MODEL = network()


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (lambda x: x, "expected a torch module, got function; wrap a function in one"),
        (
            Calls(),
            "expected evaluation mode, got training mode; call model.eval() first",
        ),
        (
            in_mode(lambda m: m.inner[1].train()),
            "expected evaluation mode, got training mode in inner.1; call model.eval() first",
        ),
        (
            network().half(),
            "expected float32 weights, got float16 in inner.0.weight; call model.float() first, "
            "as verdicts are given in float32",
        ),
        (
            network().bfloat16(),
            "expected float32 weights, got bfloat16 in inner.0.weight; call model.float() first, "
            "as verdicts are given in float32",
        ),
        (
            network().double(),
            "expected float32 weights, got float64 in inner.0.weight; call model.float() first, "
            "as verdicts are given in float32",
        ),
        (
            in_mode(lambda m: m.inner[3].bias.data.fill_(torch.inf)),
            "expected finite weights, got NaN or infinity in inner.3.bias; likely saved after the "
            "training had diverged",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.LazyLinear(4)).eval(),
            "expected weights, got none in 1.weight; initialise them first",
        ),
        (
            in_mode(lambda m: m.inner[3].to("meta")),
            "expected weights, got none in inner.3.weight; initialise them first",
        ),
        (
            network(lambda inner, x: inner(x).half()),
            "expected float32 logits, got float16; likely autocast or a cast inside the network: "
            "verdicts are given in float32",
        ),
        (
            network(lambda inner, x: (inner(x), x)),
            "expected a tensor of logits, got tuple; wrap the network in a module that returns its "
            "first entry",
        ),
        (
            network(lambda inner, x: {"logits": inner(x)}),
            "expected a tensor of logits, got dict; wrap the network in a module that returns its "
            "logits",
        ),
        (
            network(lambda inner, x: inner(x)[:, :, None, None]),
            "expected logits of shape (6, classes), got (6, 4, 1, 1); likely a map that is not "
            "pooled",
        ),
        (
            network(lambda inner, x: inner(x).flatten()),
            "expected logits of shape (6, classes), got (24,)",
        ),
        (
            network(lambda inner, x: inner(x).squeeze()),
            "expected logits of shape (1, 4) for one image, got (4,); likely squeeze() without a "
            "dimension",
        ),
        (
            network(classes=1),
            "expected at least two logits an image, got 1; of a binary network with one logit z "
            "give those of two classes, 0 and z",
        ),
        (
            network(lambda inner, x: inner(x) / (x[:, :1, 0, 0] != x[2, 0, 0, 0])),
            "expected finite logits, got NaN or infinity for image 2",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(5, 4)).eval(),
            "expected a network that takes images of shape (6, 3, 8, 8) and returns logits, got "
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (6x192 and 5x4)",
        ),
    ],
)
def test_a_network_that_cannot_be_evaluated_is_one_line(model, line):
    with pytest.raises(ReproError) as refused:
        evaluate(model, X, Y, QUICK)
    assert str(refused.value) == f"model: {line}"


@pytest.mark.parametrize(
    "forward",
    [
        lambda inner, x: inner(x).detach(),
        lambda inner, x: inner(x.detach()),
        torch.inference_mode()(lambda inner, x: inner(x)),
    ],
)
def test_logits_without_a_gradient_are_refused(forward):
    with pytest.raises(ReproError) as refused:
        evaluate(network(forward), X, Y, QUICK)
    assert str(refused.value) == (
        "model: expected logits with a gradient in the images, got none; likely detached, computed "
        "under no_grad or outside torch: an attack by gradients tells nothing of it"
    )


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (X.numpy(), "expected a torch tensor, got numpy.ndarray; torch.from_numpy makes one of an "
         "array"),
        (X.double(), "expected float32 pixels in [0, 1], got float64; give images.float()"),
        (X.half(), "expected float32 pixels in [0, 1], got float16; give images.float()"),
        ((255 * X).byte(), "expected float32 pixels in [0, 1], got uint8; give images.float() / "
         "255"),
        (0 * X + 200, "expected pixels in [0, 1], got 200 to 200; likely 0 to 255: divide by 255"),
        (0 * X - 1, "expected pixels in [0, 1], got -1 to -1; likely normalised already: "
         "normalisation belongs inside the model"),
        (0 * X + 1.5, "expected pixels in [0, 1], got 1.5 to 1.5; likely interpolated: clamp them "
         "to [0, 1]"),
        (X.permute(0, 2, 3, 1), "expected the shape (n, channels, rows, columns), got "
         "(6, 8, 8, 3); likely channels last: give images.permute(0, 3, 1, 2)"),
        (X[0], "expected the shape (n, channels, rows, columns), got (3, 8, 8); likely one image: "
         "give images[None]"),
        (X[:0], "expected the shape (n, channels, rows, columns), got (0, 3, 8, 8)"),
        (nan_in(X, 3), "expected finite pixels, got NaN or infinity in image 3"),
    ],
)  # fmt: skip
def test_images_that_are_none_are_one_line(images, line):
    with pytest.raises(ReproError) as refused:
        evaluate(MODEL, images, Y, QUICK)
    assert str(refused.value) == f"images: {line}"


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (Y.numpy(), "expected a torch tensor of whole numbers, got numpy.ndarray; give "
         "torch.as_tensor(labels)"),
        (Y.tolist(), "expected a torch tensor of whole numbers, got builtins.list; give "
         "torch.as_tensor(labels)"),
        (Y.float(), "expected whole numbers, got float32; give labels.long()"),
        (Y.bool(), "expected whole numbers, got bool; give labels.long()"),
        (torch.eye(4)[Y], "expected the shape (6,), got (6, 4); likely one-hot: give "
         "labels.argmax(1)"),
        (Y[:4], "expected the shape (6,), one for each image, got (4,)"),
        (Y - 1, "expected classes from 0, got -1 for image 0"),
        (Y + 1, "expected classes 0 to 3, as the network has 4 logits, got 4 for image 3"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_one_line(labels, line):
    with pytest.raises(ReproError) as refused:
        evaluate(MODEL, X, labels, QUICK)
    assert str(refused.value) == f"labels: {line}"


@pytest.mark.parametrize(
    ("index", "line"),
    [
        (torch.arange(5), "expected the shape (6,), one for each image, got (5,)"),
        (torch.arange(6) - 1, "expected numbers from 0 to 2147483647, got -1 to 4"),
        (torch.arange(6) + (1 << 31), "expected numbers from 0 to 2147483647, got 2147483648 to "
         "2147483653"),
        (torch.rand(6), "expected whole numbers, got float32; give index.long()"),
    ],
)  # fmt: skip
def test_indices_that_are_none_are_one_line(index, line):
    with pytest.raises(ReproError) as refused:
        evaluate(MODEL, X, Y, QUICK, index=index)
    assert str(refused.value) == f"index: {line}"


def adaptive(inner, images):
    """Move the images by a gradient of its own, as adaptive defences do."""
    with torch.enable_grad():
        moved = images.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(inner(moved).logsumexp(1).sum(), moved)
    return inner(images + 0.01 * gradient.sign())


def straight_through(inner, images):
    rounded = (15 * images).round() / 15
    return inner(images + (rounded - images).detach())


@pytest.mark.parametrize(
    ("forward", "flags"),
    [
        (lambda inner, x: inner(x), ()),
        (lambda inner, x: inner(x + 0.05 * torch.randn_like(x)), ("random",)),
        (lambda inner, x: nn.functional.dropout(inner(x), 0.1), ("random",)),
        (lambda inner, x: inner(x).softmax(1), ("probabilities",)),
        (lambda inner, x: inner(x).log_softmax(1), ("log-probabilities",)),
        (lambda inner, x: inner(x) - inner(x).mean(0), ("batch",)),
        (adaptive, ("dynamic",)),
        (straight_through, ("rounded",)),
    ],
)
def test_a_premise_that_fails_is_named(forward, flags):
    model = network(forward)
    said = premises.failed(Guarded(model), X, labels_of(model, X))
    assert said == [premises.FAILURES[flag] for flag in flags]


def test_rounded_inputs_have_no_gradient():
    model = network(lambda inner, x: inner((15 * x).round() / 15))
    assert premises.failed(Guarded(model), X, labels_of(model, X)) == [
        premises.FAILURES["rounded"],
        "adversarial accuracy is an upper bound only: the logits have no gradient at 6 of 6 images "
        "(rounded inputs, saturated units), so an attack by gradients tells nothing of them",
    ]


def test_a_huge_temperature_hides_the_gradient_of_the_cross_entropy():
    model = network(lambda inner, x: 1e5 * inner(x))
    (said,) = premises.failed(Guarded(model), X, labels_of(model, X))
    assert said.startswith(
        "adversarial accuracy is an upper bound only: the gradient of the cross-entropy is zero at "
    )
    assert said.endswith("where APGD-CE cannot move")


def test_a_gradient_that_is_not_finite_is_named():
    model = network(
        lambda inner, x: inner(x) + 0 * (x - x.detach()).abs().sqrt().sum((1, 2, 3))[:, None]
    )
    assert premises.failed(Guarded(model), X, labels_of(model, X)) == [
        "adversarial accuracy is an upper bound only: the gradient is NaN or infinite at 6 of 6 "
        "images"
    ]


def test_the_official_checks_are_used_and_leave_nothing_behind():
    before = sys.gettrace()
    dynamic = network(adaptive)
    assert premises._official_flags(Guarded(dynamic), X, Y) == {"dynamic"}
    assert premises._official_flags(Guarded(MODEL), X, Y) == set()
    noisy = network(lambda inner, x: inner(x + 0.1 * torch.randn_like(x)).softmax(1))
    assert premises._official_flags(Guarded(noisy), X, Y) == {"random", "probabilities"}
    assert sys.gettrace() is before


def test_square_that_finds_more_is_a_sign_of_masking():
    assert premises.square_failure({"apgd-ce": 0.4, "apgd-t": 0.3, "square": 0.299}) == []
    assert premises.square_failure({"apgd-ce": 0.4, "apgd-dlr": 0.1}) == []
    (said,) = premises.square_failure({"apgd-ce": 0.4, "fab-t": 0.3, "square": 0.2})
    assert "Square, which needs no gradient, fools 10.00% more" in said


def test_remarks_are_warned_of_and_stored():
    model = network(lambda inner, x: inner(x).log_softmax(1))
    with pytest.warns(UserWarning, match="mine: the outputs are log-probabilities"):
        dataset = evaluate(model, X, Y, QUICK, name="mine", progress=False)
    assert "log-probabilities" in dataset.attrs["remarks"]


def test_a_warning_points_at_the_caller_and_comes_before_the_attack(monkeypatch):
    monkeypatch.setattr(logits, "attack", None)
    model = network(lambda inner, x: inner(x).log_softmax(1))
    with pytest.warns(UserWarning, match="log-p") as said, pytest.raises(TypeError):
        evaluate(model, X, Y, QUICK, progress=False)
    assert said[0].filename == __file__


@pytest.mark.parametrize(
    ("classes", "engine", "attacks"),
    [
        (2, "repro", ("apgd-ce", "apgd-margin")),
        (3, "repro", ("apgd-ce", "apgd-dlr")),
        (2, "autoattack", ("apgd-ce",)),
        (2, "autoattack-full", ("apgd-ce", "fab-t", "square")),
        (3, "autoattack-full", ("apgd-ce", "apgd-dlr", "fab-t", "square")),
        (4, "autoattack-full", ("apgd-ce", "apgd-t", "fab-t", "square")),
        (2, "odi", ("odi",)),
    ],
)
def test_few_classes_get_the_attacks_that_have_a_meaning(classes, engine, attacks):
    assert attack.attacks_on(classes, Evaluation(engine)) == attacks


def test_two_classes_are_evaluated():
    model = network(classes=2)
    line = "with 2 classes apgd-dlr means nothing: the attacks are apgd-ce, apgd-margin"
    with pytest.warns(UserWarning, match=f"Calls: {line}"):
        dataset = evaluate(model, X, labels_of(model, X), Evaluation(iterations=20, eps=0.5))
    assert dataset["attack"].values.tolist() == ["apgd-ce", "apgd-margin"]
    assert dataset["robust"].values[-1].sum() == 0
