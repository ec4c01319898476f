"""One script for each table and figure of the paper, of the same name; claims, audit, report."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable

from logit_distributions import errors


def title(name: str) -> str:
    """Return the title of a table or figure, which is the first line of its script."""
    text = importlib.import_module(f"paper.{name}").__doc__ or ""
    return text.partition("\n")[0].removesuffix(".")


def parser_of(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m COMMAND``, which takes ``--debug`` and explains itself."""
    made = argparse.ArgumentParser(
        f"python -m {command}", description=description.partition("\n")[0]
    )
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    return made


def exit_code(name: str, command: Callable[[], int]) -> int:
    """Return a command's exit code; whatever fails is one line, or with ``--debug`` a traceback."""
    return errors.exit_code(name, command, "--debug" in sys.argv[1:])
