"""Our attack beside the official implementation's: the same network, images and settings."""

from __future__ import annotations

import pytest
import torch

from logit_distributions.make import attack
from logit_distributions.make.augment import to_float
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.recipes import Evaluation
from tests.conftest import STORED
from tests.test_stored import first_test_images

COUNT = 256


@pytest.fixture(scope="module")
def problem():
    """The stored adversarially trained network and the first test images."""
    checkpoint = Checkpoint.load(STORED / "checkpoints" / "cifar10-small-at-seed0.safetensors")
    data = first_test_images()
    images = to_float(torch.from_numpy(data.images[:COUNT]))
    labels, index = torch.from_numpy(data.labels[:COUNT]), torch.arange(COUNT)
    return checkpoint.model(10), images, labels, index


@pytest.mark.benchmark(group=f"APGD-CE then APGD-DLR, {COUNT} images, 100 iterations, 1 restart")
@pytest.mark.parametrize("engine", ["repro", "autoattack"])
def test_two_attacks(benchmark, problem, engine):
    settings = Evaluation(engine=engine)
    judged = benchmark.pedantic(
        attack.verdicts, args=(*problem, settings), rounds=3, warmup_rounds=1
    )
    benchmark.extra_info["adversarial accuracy"] = judged.robust[-1].float().mean().item()
    other = Evaluation(engine="repro" if engine == "autoattack" else "autoattack")
    agree = attack.verdicts(*problem, other).robust == judged.robust
    benchmark.extra_info["verdicts that agree"] = agree.float().mean().item()
    print(f"\n{engine}: {benchmark.extra_info}")
