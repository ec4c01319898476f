"""How the kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
"""Threads run side by side; sums may be reordered, so that they use vector instructions."""


def compiled(function: Function) -> Function:
    """Compile at the first call, and keep the code for later processes where that is possible.

    Code is kept beside the package, or in the user's cache where that is read-only (numba's
    ``NUMBA_CACHE_DIR`` overrules both); where neither can be written it is compiled anew by
    every process. Several processes may do so at once.
    """
    try:
        result: Function = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # no folder to write to
        result = njit(**OPTIONS)(function)
    return result
