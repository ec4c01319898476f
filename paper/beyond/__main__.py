"""Make what the paper does not have: ``python -m paper.beyond [NAME ...]``, by default all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from paper import artefacts, exit_code, parser_of


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
    full = [f"beyond.{name}" for name in named or names()]
    return artefacts.make(full, full if named else ())


if __name__ == "__main__":
    sys.exit(exit_code("beyond", main))
