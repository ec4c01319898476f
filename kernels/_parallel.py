"""One pool of threads for kernels that release the GIL, with BLAS held to one thread each.

Every item is computed by itself and by the same instructions whatever the number of threads,
so results do not depend on it, bit for bit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

Item = TypeVar("Item")
Value = TypeVar("Value")


def for_each(
    function: Callable[[Item], Value], items: Iterable[Item], threads: int | None = None
) -> list[Value]:
    """Return ``[function(item) for item in items]``, computed on `threads` threads.

    Parameters
    ----------
    function : callable
    items : iterable
    threads : int, optional
        Default: as many as the process may use.
    """
    if threads is None:
        threads = available()
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    with one_blas_thread():
        if threads == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


def available() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_blas_thread() -> AbstractContextManager[Any]:
    """Return a context in which BLAS keeps to one thread, so that its sums have one order."""
    limits: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limits


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
