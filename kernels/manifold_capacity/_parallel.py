"""A pool of threads for kernels that release the GIL, while BLAS keeps to one thread.

Every item is computed by itself and by the same instructions whatever the number of threads,
so results do not depend on it, bit for bit.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

from manifold_capacity._input import whole_number

Item = TypeVar("Item")
Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])


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
    threads = available() if threads is None else whole_number("threads", threads, 1)
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def available() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_blas_thread(function: Function) -> Function:
    """Decorate a function to run with one BLAS thread, so that all sums have one order."""

    @functools.wraps(function)
    def limited(*args: Any, **kwargs: Any) -> Any:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return cast(Function, limited)


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
