"""One script for each table and figure of the paper, of the same name; claims, audit, report."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

from logit_distributions import errors


def title(name: str) -> str:
    """Return the title of a table or figure, which is the first line of its script."""
    text = importlib.import_module(f"paper.{name}").__doc__ or ""
    return text.partition("\n")[0].removesuffix(".")


def exit_code(name: str, command: Callable[[], int]) -> int:
    """Return a command's exit code; whatever fails is one line, or with ``--debug`` a traceback."""
    return errors.exit_code(name, command, "--debug" in sys.argv[1:])
