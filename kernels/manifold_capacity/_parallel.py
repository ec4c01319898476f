"""A pool of threads for kernels that release the GIL, while BLAS keeps to one thread.

Every item is computed by itself and by the same instructions whatever the number of threads,
so results do not depend on it, bit for bit.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from manifold_capacity._input import whole_number

Item = TypeVar("Item")
Value = TypeVar("Value")
Function = TypeVar("Function", bound=Callable[..., Any])

_thread = threading.local()

PATIENCE = 10.0
"""Seconds without a word."""

INTERVAL = 60.0
"""Seconds between two lines of progress, where there is no terminal for a bar."""


def for_each(
    function: Callable[[Item], Value],
    items: Iterable[Item],
    threads: int | None = None,
    progress: str | None = None,
) -> list[Value]:
    """Return ``[function(item) for item in items]``, computed on `threads` threads.

    An interrupt is passed on at once: items that have not begun are dropped, and those that
    have end at their next `may_stop`.

    Parameters
    ----------
    function : callable
    items : iterable
    threads : int, optional
        Default: as many as the process may use.
    progress : str, optional
        Say under this name how far it is, see `reported`.
    """
    threads = available() if threads is None else whole_number("threads", threads, 1)
    items = list(items)
    if threads == 1:
        return list(reported(map(function, items), len(items), progress))
    stop = np.zeros(1, bool)
    pool = ThreadPoolExecutor(threads, initializer=setattr, initargs=(_thread, "stop", stop))
    try:
        futures = [pool.submit(function, item) for item in items]
        results = (future.result() for future in futures)
        return list(reported(results, len(items), progress))
    finally:
        stop[0] = True
        pool.shutdown(wait=False, cancel_futures=True)


def may_stop() -> None:
    """End the item that this thread works on if the others have been interrupted.

    Long items call it at least once a second.
    """
    if stop_flag()[0]:
        raise Stopped


def stop_flag() -> NDArray[np.bool_]:
    """Return the flag of this thread, shape (1,), true once the others have been interrupted.

    For compiled code that runs for more than a second.
    """
    return getattr(_thread, "stop", np.zeros(1, bool))


class Stopped(Exception):
    """Nobody waits for the result."""


def reported(results: Iterable[Value], total: int, name: str | None) -> Iterator[Value]:
    """Yield the results; after `PATIENCE` seconds say on standard error how many there are.

    On a terminal a bar, elsewhere a line every `INTERVAL` seconds. Nothing without a name.
    """
    began = told = time.monotonic()
    bar = None
    for done, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if not name or now - began < PATIENCE:
            continue
        if sys.stderr.isatty():
            if bar is None:
                from tqdm import tqdm

                bar = tqdm(total=total, desc=name, initial=done - 1, leave=False)
            bar.update()
        elif now - told >= INTERVAL or told == began:
            told = now
            left = (now - began) / done * (total - done)
            print(f"{name}: {done} of {total}, about {left:.0f} s left", file=sys.stderr)
    if bar is not None:
        bar.close()


def available() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def refuse_beyond_memory(shapes: Sequence[tuple[int, ...]], copies: int) -> None:
    """Refuse manifolds of shapes (N, M_i) whose `copies` in float64 exceed the free memory.

    Raises
    ------
    ValueError
        With the number of points per manifold, and of features, that would fit.
    """
    features, points = shapes[0][0], sum(shape[1] for shape in shapes)
    rows = min(features, points)
    needed, free = 8 * copies * features * points, free_memory()
    if needed <= free:
        return
    share = free / needed
    raise ValueError(
        f"expected manifolds that fit into memory, got {points:,} points with {features:,} "
        f"features: {needed / 1e9:.3g} GB of float64 where {free / 1e9:.3g} GB are free; pass at "
        f"most {max(int(share * points / len(shapes)), 1):,} points of each, or a random "
        f"projection to at most {max(int(share * rows), 1):,} features"
    )


def free_memory() -> float:
    """Return the bytes that a process may still take; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines}
    return 1024.0 * kilobytes["MemAvailable:"]


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
