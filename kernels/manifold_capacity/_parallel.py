"""A pool of threads for kernels that release the GIL, while BLAS keeps to one thread.

Every item is computed by itself and by the same instructions whatever the number of threads,
so results do not depend on it, bit for bit.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from threadpoolctl import ThreadpoolController

from manifold_capacity._input import whole_number

Item = TypeVar("Item")
Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])


def for_each(
    function: Callable[[Item], Value],
    items: Iterable[Item],
    threads: int | None = None,
    progress: str | None = None,
) -> list[Value]:
    """Return ``[function(item) for item in items]``, computed on `threads` threads.

    An interrupt (Ctrl-C) ends it once the items in work are done; the others are dropped.

    Parameters
    ----------
    function : callable
    items : iterable
    threads : int, optional
        Default: as many as the process may use.
    progress : str, optional
        What is being done, for a bar on stderr; a line a minute where that is no terminal.
        Needs tqdm.
    """
    threads = available() if threads is None else whole_number("threads", threads, 1)
    items = list(items)
    if threads == 1:
        return list(_shown(map(function, items), len(items), progress))
    with ThreadPoolExecutor(threads) as pool:
        return list(_shown(pool.map(function, items), len(items), progress))


def _shown(values: Iterable[Value], count: int, what: str | None) -> Iterable[Value]:
    """Return the values, with a bar that appears after ten seconds if `what` is given."""
    if what is None:
        return values
    from tqdm import tqdm

    often = 0.5 if sys.stderr.isatty() else 60.0
    bar: Iterable[Value] = tqdm(values, what, count, delay=10, mininterval=often)
    return bar


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
