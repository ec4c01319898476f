"""Make what the paper does not have: ``python -m paper.beyond [NAME ...]``, by default all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from logit_distributions import store
from logit_distributions.errors import ReproError
from logit_distributions.store import places
from paper import exit_code, parser_of, style, tables


def names() -> list[str]:
    """Return the names of all scripts; each has a `table`, a `figure`, or both."""
    return [path.stem for path in sorted(Path(__file__).parent.glob("[a-z]*.py"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what these scripts have, by default all, print the tables and name the figures.

    Returns
    -------
    int
        1 if something could not be made, unless it was not named and only its data are missing.
    """
    parser = parser_of("paper.beyond", "Make what the paper does not have, by default all of it.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    named: list[str] = parser.parse_args(arguments).names
    if unknown := [name for name in named if name not in names()]:
        print(f"unknown name {unknown[0]!r}: expected {', '.join(names())}", file=sys.stderr)
        return 2
    return max([_make(name, name in named) for name in named or names()])


def _make(name: str, named: bool) -> int:
    script, full = importlib.import_module(f"paper.beyond.{name}"), f"beyond.{name}"
    try:
        if hasattr(script, "table"):
            print(tables.save(full, script.table).text())
        if hasattr(script, "figure"):
            style.save(full, script.figure)
            print(places.build() / "figures" / f"{full}.png", flush=True)
    except ReproError as error:
        print(f"{full}: {error}", file=sys.stderr)
        return int(named or not isinstance(error, store.Missing))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("beyond", main))
