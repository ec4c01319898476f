"""Make tables and figures: ``python -m paper [NAME ...]``, by default all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from paper import artefacts, exit_code, parser_of

KINDS = ("table", "figure")


def names() -> list[str]:
    """Return the names of all artefacts that have a script, in the paper's order.

    Tables S and V are ours: how numbers move with scale, and what stronger attacks find.
    """
    folder = Path(__file__).parent
    return [path.stem for kind in KINDS for path in sorted(folder.glob(f"{kind}[0-9A-CSV]*.py"))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the artefacts of these names, by default all.

    Parameters
    ----------
    arguments : sequence of str, optional
        Names; ``tables`` and ``figures`` stand for all of a kind.

    Returns
    -------
    int
        1 if one could not be made, unless it was not named and only its data are not stored.
    """
    parser = parser_of("paper", "Make tables and figures, by default all, into the build folder.")
    about = f"tables, figures, or of {', '.join(names())}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=about)
    named: list[str] = parser.parse_args(arguments).names
    groups = {f"{kind}s": [n for n in names() if n.startswith(kind)] for kind in KINDS}
    wanted = [name for each in named or groups for name in groups.get(each, [each])]
    if unknown := [name for name in wanted if name not in names()]:
        print(f"unknown artefact {unknown[0]!r}: expected {', '.join(names())}", file=sys.stderr)
        return 2
    return artefacts.make(wanted, named)


if __name__ == "__main__":
    sys.exit(exit_code("paper", main))
