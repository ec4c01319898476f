"""How exactly a GPU multiplies: strict float32 for what is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def strict_float32() -> Iterator[None]:
    """Let a GPU multiply float32 numbers as such, not rounded to TF32's ten bits before.

    For everything that is recorded or judged. Without it torch rounds the inputs of
    convolutions, which moves logits by a thousandth of their size, and with them the
    verdict on an image near a decision boundary. No difference on a CPU. Also a decorator.
    """
    backends = (
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cuda.matmul,
    )
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for a shape when it first sees it, and take the fastest.

    For shapes that come again thousands of times; no difference on a CPU.
    """
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = True
        yield
    finally:
        torch.backends.cudnn.benchmark = before
