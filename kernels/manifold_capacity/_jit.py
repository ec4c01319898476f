"""How the kernels are compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
"""Threads run side by side; sums may be reordered, so that they use vector instructions."""


class Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of compiled code, but one that cannot be read is compiled anew.

    A process killed while it writes, or a full disk, leaves truncated files, on which numba
    itself fails at every later call.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code kept for a signature, or None."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling damaged bytes may raise
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep code, unless what is there can be neither read nor replaced."""
        with suppress(Exception):
            super().save_overload(sig, data)


def compiled(function: Function) -> Function:
    """Compile at the first call, and keep the code for later processes where that is possible.

    A third of the time went where a kernel set a slice to an array, as in ``a[:n] = b`` or
    ``a[:n] += b`` (numba compiles its error message too), or began a loop with a literal number
    that a large kernel takes (it is compiled for that number as well).

    Code is kept beside the package, or in the user's cache where that is read-only (numba's
    ``NUMBA_CACHE_DIR`` overrules both); where neither can be written it is compiled anew by
    every process. Several processes may do so at once.
    """
    result: Function = njit(**OPTIONS)(function)
    if result is not function:  # as it is with NUMBA_DISABLE_JIT
        with suppress(RuntimeError):  # no folder to write to
            result._cache = Cache(function)  # type: ignore[attr-defined]
    return result
