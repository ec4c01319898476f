"""How far a long task is: a bar in a terminal, elsewhere a line a minute."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

EVERY = 60.0
"""Seconds between two lines where there is no terminal, as in batch jobs."""


class Bar(tqdm):  # type: ignore[misc]
    """tqdm's bar, which where stderr is no terminal prints a line now and then in its place.

    Parameters
    ----------
    *arguments, **options
        As of `tqdm`; ``disable=True`` shows nothing.
    """

    monitor_interval = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._lines = not sys.stderr.isatty() and not options.get("disable")
        self._said = time.monotonic()
        if self._lines:
            options |= {"mininterval": 1.0, "miniters": 1}
        super().__init__(*arguments, **options)

    def display(self, *arguments: Any, **options: Any) -> Any:
        """Show the bar, or print a line if the last one is a minute old."""
        if not self._lines:
            return super().display(*arguments, **options)
        if time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            print(f"logitdist: {self}", file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        """End the bar; where there is no terminal, nothing more is said."""
        if self._lines:
            self.disable = True
        super().close()
