"""Make tables and figures side by side, a process for each processor."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from logit_distributions.errors import ReproError

PROCESSES = 8
"""At most; each takes some 300 MB of memory."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield what a function returns of each item, in their order.

    Parameters
    ----------
    function : callable
        Other processes import it by its name.
    items : sequence
        A single one is left to this process.

    Raises
    ------
    ReproError
        If a process was killed.
    """
    count = min(len(items), PROCESSES, os.cpu_count() or 1)
    if count < 2:
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(
        count,
        multiprocessing.get_context("spawn"),  # a forked process may hang on its parent's threads
        signal.signal,  # an interrupt is answered here
        (signal.SIGINT, signal.SIG_IGN),
    )
    try:
        with pool:
            yield from pool.map(function, items)
    except BrokenProcessPool as error:
        raise ReproError(
            f"one of {count} processes was killed; likely out of memory: make them one by one"
        ) from error


def parts(name: str) -> dict[str, Callable[[], Any]]:
    """Return what a script makes: a ``table`` or a ``figure``, beyond the paper perhaps both.

    Parameters
    ----------
    name : str
        Such as ``figure1`` or ``beyond.controls``.
    """
    script = importlib.import_module(f"paper.{name}")
    if hasattr(script, "make"):
        return {"figure" if name.startswith("figure") else "table": script.make}
    return {kind: getattr(script, kind) for kind in ("table", "figure") if hasattr(script, kind)}


def make(names: Sequence[str], named: Container[str] = ()) -> int:
    """Make what scripts have, print what they say and, in a line, what they lack.

    Parameters
    ----------
    names : sequence of str
        Such as ``figure1`` or ``beyond.controls``.
    named : container of str
        Those that were asked for by name.

    Returns
    -------
    int
        1 if one could not be made, unless it was not named and only its data are missing.
    """
    code = 0
    results = side_by_side(_attempt, names)
    for name, (said, problem, is_missing) in zip(names, results, strict=True):
        for text in said:
            print(text, flush=True)
        if problem:
            print(f"{name}: {problem}", file=sys.stderr)
            code = max(code, int(name in named or not is_missing))
    return code


def _attempt(name: str) -> tuple[list[str], str, bool]:
    """Return what to print of a script, why it could not go on, and if for lack of data."""
    from logit_distributions.store import Missing  # not where one only waits: it takes a second

    said: list[str] = []
    try:
        said += _saved(name)  # what was said before an error too
    except ReproError as error:
        return said, str(error), isinstance(error, Missing)
    return said, "", False


def _saved(name: str) -> Iterator[str]:
    """Make and write what a script has, and yield what to print."""
    from logit_distributions.store import places
    from paper import style, tables

    for kind, function in parts(name).items():
        if kind == "table":
            said = tables.save(name, function).text()
        else:
            style.save(name, function)
            said = str(places.build() / "figures" / f"{name}.png")
        yield said if "." in name else f"{name}: {places.build() / kind}s"
