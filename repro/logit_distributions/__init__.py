"""Logit distributions of adversarially trained networks: make them, store them, read them.

``import logit_distributions`` needs no torch, nor do its statistics and its datasets; `evaluate`
and `layer_capacity`, which attack and measure a network in memory, do.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logit_distributions.make.capacity import layer_capacity
    from logit_distributions.make.logits import evaluate, replay
    from logit_distributions.manipulations import average, correct, hybrid, permute
    from logit_distributions.read.describe import describe
    from logit_distributions.recipes import Evaluation, Manifolds
    from logit_distributions.store import find, from_arrays, open_dataset, write

__version__ = "0.2.0"

_PLACES = {
    "evaluate": "make.logits",
    "replay": "make.logits",
    "layer_capacity": "make.capacity",
    "Evaluation": "recipes",
    "Manifolds": "recipes",
    "open_dataset": "store",
    "find": "store",
    "from_arrays": "store",
    "write": "store",
    "describe": "read.describe",
    "permute": "manipulations",
    "average": "manipulations",
    "correct": "manipulations",
    "hybrid": "manipulations",
}
"""By public name, the module that has it; imported when it is asked for."""

__all__ = [
    "Evaluation",
    "Manifolds",
    "average",
    "correct",
    "describe",
    "evaluate",
    "find",
    "from_arrays",
    "hybrid",
    "layer_capacity",
    "open_dataset",
    "permute",
    "replay",
    "write",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_PLACES[name]}")
    except ModuleNotFoundError as error:
        from logit_distributions.errors import not_installed

        raise ImportError(str(not_installed(error)), name=error.name) from error
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
