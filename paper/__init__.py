"""One script for each table and figure of the paper, of the same name; claims, audit, report."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable

from logit_distributions.errors import ReproError


def title(name: str) -> str:
    """Return the title of a table or figure, which is the first line of its script."""
    text = importlib.import_module(f"paper.{name}").__doc__ or ""
    return text.partition("\n")[0].removesuffix(".")


def exit_code(name: str, command: Callable[[], int]) -> int:
    """Return a command's exit code: what it returns, or 1 after one line on what is wrong."""
    try:
        return command()
    except ReproError as error:
        print(f"{name}: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
