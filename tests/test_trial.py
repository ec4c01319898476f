"""How many images at once: the choosing, without a GPU."""

import pytest
import torch
from torch import nn

from logit_distributions.make.trial import CPU_IMAGES, SIZES, best_size, images_at_once

SPEED = {500: 100.0, 1000: 180.0, 2000: 300.0, 4000: 310.0, 8000: 900.0}


def test_sizes_grow_while_that_pays():
    assert best_size(SPEED.__getitem__, SIZES) == 2000  # 4,000 gains too little, 8,000 is not tried
    assert best_size({**SPEED, 1000: 105.0}.__getitem__, SIZES) == 500
    assert best_size(float, SIZES) == SIZES[-1]


def test_memory_that_runs_out_ends_the_trial():
    def speed(size):
        if size > 1000:
            raise torch.OutOfMemoryError
        return float(size)

    assert best_size(speed, SIZES) == 1000
    with pytest.raises(torch.OutOfMemoryError):
        best_size(speed, [2000])


def test_a_cpu_takes_the_same_number_always():
    model = nn.Flatten()
    assert images_at_once(model, torch.zeros(2, 3, 32, 32), "toy") == CPU_IMAGES
    assert images_at_once(model, torch.zeros(2, 3, 64, 64), "toy") == CPU_IMAGES // 4
    assert images_at_once(model, torch.zeros(1, 3, 1000, 1000), "toy") == 1
    assert images_at_once(model, torch.zeros(1, 3, 8, 8), "toy") == CPU_IMAGES
