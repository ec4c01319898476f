"""One epoch's steps of our loop beside a plain torch loop over a torchvision DataLoader."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from logit_distributions import recipes
from logit_distributions.images import ImageSet
from logit_distributions.make import train
from logit_distributions.make.augment import Epoch
from logit_distributions.make.network import ResNet18
from logit_distributions.make.options import Machine
from tests import toy

STEPS = 20


class _Plain(Dataset):
    """Images as the usual tutorial reads them: one at a time, through PIL."""

    def __init__(self, pixels, labels):
        self.pixels, self.labels = pixels, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.pixels[i])), self.labels[i]


def _plain_steps(model, optimizer, loader):
    for number, (images, labels) in enumerate(loader):
        if number == STEPS:
            break
        loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture
def recipe():
    return recipes.recipe("st")


@pytest.mark.benchmark
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("loop", ["repro", "plain"])
def test_standard_training(benchmark, recipe, loop, threads):
    benchmark.group = f"training at width {recipe.width}, {STEPS} steps of 128, {threads} threads"
    torch.set_num_threads(threads)
    pixels, labels = toy.arrays(300, 5)
    images = ImageSet(pixels, labels, labels, tuple("0123456789"), "")
    if loop == "repro":
        run = train.Trainer(recipe, 0, Machine("cpu").resolve(), images, images)
        draws = Epoch(len(labels), "bench")

        def steps():
            run.step = 0
            run.model.train()
            for _ in range(STEPS):
                run.one_step(draws)

    else:
        model = ResNet18(10, recipe.width)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
        data = _Plain(pixels.transpose(0, 2, 3, 1), labels)
        loader = DataLoader(data, batch_size=128, shuffle=True, num_workers=0)

        def steps():
            _plain_steps(model, optimizer, loader)

    benchmark.pedantic(steps, rounds=5, warmup_rounds=1)
    benchmark.extra_info["images/s"] = round(STEPS * 128 / benchmark.stats["median"])
    print(f"\n{loop}, {threads} threads: {benchmark.extra_info}")
    torch.set_num_threads(2)
