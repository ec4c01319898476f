import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyautoattack.autopgd_base import APGDAttack
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from logit_distributions import recipes
from logit_distributions.errors import ReproError
from logit_distributions.make import attack
from logit_distributions.make.network import ResNet18, frozen
from logit_distributions.recipes import PGD
from tests import naive, toy

EPS = 8 / 255


@pytest.fixture(scope="module")
def victim():
    """A network trained for a moment on the toy set, so that some images resist."""
    torch.manual_seed(1)
    pixels, labels = toy.arrays(20, 1)
    images = torch.from_numpy(pixels).float().div(255)
    labels = torch.from_numpy(labels)
    model = ResNet18(10, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(12):
        noise = attack.pgd(model, images, labels, PGD(steps=2), torch.zeros_like(images))
        loss = nn.functional.cross_entropy(model(noise), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, labels = toy.arrays(4, 2)
    return model.eval(), torch.from_numpy(pixels).float().div(255), torch.from_numpy(labels)


rows = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.integers(3, 8)), elements=st.floats(-20, 20)
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows, st.integers(0, 2**31))
def test_losses_equal_naive(values, draw):
    labels = np.random.default_rng(draw).integers(0, values.shape[1], len(values))
    for name in ("cross_entropy", "dlr", "margin"):
        reference = [
            getattr(naive, name)(row, label)
            for row, label in zip(values.tolist(), labels.tolist(), strict=True)
        ]
        computed = getattr(attack, name)(torch.from_numpy(values), torch.from_numpy(labels))
        np.testing.assert_allclose(computed.numpy(), reference, rtol=1e-6, atol=1e-9)


def test_pgd_stays_in_the_ball_raises_the_loss_and_changes_nothing(victim):
    model, images, labels = victim
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    adversarial = attack.pgd(model, images, labels, PGD(), noise)
    assert model.training
    model.eval()
    assert (adversarial - images).abs().max() <= EPS + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    with torch.no_grad():
        clean = attack.cross_entropy(model(images), labels)
        attacked = attack.cross_entropy(model(adversarial), labels)
    assert (attacked > clean).float().mean() > 0.9
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None or not p.grad.isnan().any() for p in model.parameters())


def test_pgd_of_one_step_is_the_sign_of_the_gradient(victim):
    model, images, labels = victim
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(attack.cross_entropy(model(x), labels).sum(), x)
    reference = torch.clamp(images + 2 / 255 * gradient.sign(), 0, 1)
    computed = attack.pgd(model, images, labels, PGD(steps=1), torch.zeros_like(images))
    different = (computed - reference).abs() > 1e-6
    assert different.float().mean() < 0.01  # signs of gradients near zero, or by a ReLU near it


class _Bowl(nn.Module):
    """Three smooth logits of two pixels, in float64: small enough for the naive attack."""

    def forward(self, images):
        x, y = images.flatten(1).unbind(1)
        return torch.stack(
            [torch.sin(9 * x) + y, torch.cos(7 * y) * x, x * y + 0.2 * torch.sin(40 * x)], 1
        )


@pytest.mark.parametrize("iterations", [1, 7, 30, 100])
@pytest.mark.parametrize("name", ["cross_entropy", "dlr"])
def test_apgd_equals_naive(iterations, name):
    draws = torch.Generator().manual_seed(iterations)
    images = torch.rand(40, 1, 1, 2, generator=draws, dtype=torch.float64)
    model = _Bowl()
    labels = model(images).argmax(1)
    eps = 0.05
    start = images + eps * (2 * torch.rand(images.shape, generator=draws).double() - 1)
    loss = getattr(attack, name)
    computed = attack.apgd(model, images, labels, start, loss=loss, eps=eps, iterations=iterations)
    verdicts = (model(computed).argmax(1) == labels).tolist()
    assert 5 < sum(verdicts) < 40
    for i in range(len(images)):

        def both(x, i=i):
            x = torch.from_numpy(x)[None].requires_grad_()
            value = loss(model(x), labels[i : i + 1]).sum()
            (gradient,) = torch.autograd.grad(value, x)
            return gradient[0].numpy(), value.item()

        def fooled(x, i=i):
            return model(torch.from_numpy(x)[None]).argmax(1).item() != labels[i].item()

        reference = naive.apgd(both, fooled, images[i].numpy(), start[i].numpy(), eps, iterations)
        np.testing.assert_allclose(computed[i].numpy(), reference, atol=1e-12)
        assert fooled(reference) != verdicts[i]


@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_gives_the_official_verdicts_from_the_same_start(victim, loss):
    model, images, labels = victim
    right = model(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)) * 2 - 1
    start = images + EPS * noise
    official = APGDAttack(model, eps=EPS, loss=loss, n_iter=50, device="cpu")
    official.init_hyperparam(images)
    _, reference, _, _ = official.attack_single_run(images, labels, x_init=start)
    function = attack.cross_entropy if loss == "ce" else attack.dlr
    computed = attack.apgd(model, images, labels, start, loss=function, eps=EPS, iterations=50)
    assert 0 < reference.sum() < len(reference)
    assert torch.equal(model(computed).argmax(1) == labels, reference)


@pytest.mark.parametrize("engine", ["repro", "odi", "autoattack"])
def test_verdicts_are_consistent(victim, engine):
    model, images, labels = victim
    quick = recipes.Evaluation(engine=engine, iterations=10, restarts=2)
    judged = attack.verdicts(model, images, labels, torch.arange(len(images)), quick)
    natural = judged.logits.argmax(1) == labels
    adversarial = judged.adversarial_logits.argmax(1) == labels
    assert torch.equal(judged.robust[-1], natural & adversarial)
    assert (judged.robust[0] <= natural).all()
    assert (judged.robust[1:] <= judged.robust[:-1]).all()
    torch.testing.assert_close(judged.logits, model(images))


def test_results_do_not_depend_on_the_batch(victim):
    model, images, labels = victim
    quick = recipes.Evaluation(iterations=20)
    index = torch.arange(100, 100 + len(images))
    whole = attack.verdicts(model, images, labels, index, quick)
    for size in (3, 7):
        parts = [
            attack.verdicts(
                model, images[i : i + size], labels[i : i + size], index[i : i + size], quick
            )
            for i in range(0, len(images), size)
        ]
        assert torch.equal(torch.cat([p.robust for p in parts], 1), whole.robust)


def test_restarts_and_seeds_draw_differently(victim):
    first = attack._draws(torch.arange(3), 0, "apgd-ce", 0, (4,), "start")
    assert torch.equal(first, attack._draws(torch.arange(3), 0, "apgd-ce", 0, (4,), "start"))
    assert torch.equal(first[1:], attack._draws(torch.arange(1, 3), 0, "apgd-ce", 0, (4,), "start"))
    assert first.abs().max() <= 1
    for other in ((1, "apgd-ce", 0), (0, "apgd-dlr", 0), (0, "apgd-ce", 1)):
        assert not torch.equal(first, attack._draws(torch.arange(3), *other, (4,), "start"))


def test_the_full_official_suite_runs(victim):
    model, images, labels = victim
    full = recipes.Evaluation(engine="autoattack-full")
    judged = attack.verdicts(model, images[:3], labels[:3], torch.arange(3), full)
    assert judged.robust.shape == (4, 3)


def test_odi_fools_at_least_what_random_noise_does(victim):
    model, images, labels = victim
    draws = torch.Generator().manual_seed(0)
    noise = torch.rand(images.shape, generator=draws) * 2 - 1
    direction = torch.rand(len(images), 10, generator=draws) * 2 - 1
    adversarial = attack.odi(
        frozen(model), images, labels, images + EPS * noise, direction, eps=EPS
    )
    assert (adversarial - images).abs().max() <= EPS + 1e-6
    noisy = (model((images + EPS * noise).clamp(0, 1)).argmax(1) == labels).sum()
    assert (model(adversarial).argmax(1) == labels).sum() < noisy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "fgsm"}, "unknown attack engine 'fgsm'"),
        ({"eps": 8.0}, "8/255 is usual"),
        ({"eps": float("nan")}, "expected a length"),
        ({"iterations": 0}, "expected at least 1"),
        ({"restarts": -1}, "expected at least 1"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ReproError, match=message):
        dataclasses.replace(recipes.Evaluation(), **change)


def test_a_step_of_an_attack_needs_no_gradient_by_weights():
    torch.manual_seed(0)
    attacked, images = frozen(ResNet18(10, 8)), torch.rand(2, 3, 32, 32)

    def flops(step) -> int:
        with FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops()

    def ascend():
        attacked(images.requires_grad_()).logsumexp(1).sum().backward()

    assert flops(ascend) == 2 * flops(lambda: attacked(images))
