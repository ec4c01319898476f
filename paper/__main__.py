"""Make tables and figures: ``python -m paper [NAME ...]``, by default all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from logit_distributions import store
from logit_distributions.errors import ReproError
from logit_distributions.store import places
from paper import exit_code, parser_of, style, tables

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
    return max([_make(name, name in named) for name in wanted])


def _make(name: str, named: bool) -> int:
    script = importlib.import_module(f"paper.{name}")
    save = style.save if name.startswith("figure") else tables.save
    try:
        save(name, script.make)
    except ReproError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return int(named or not isinstance(error, store.Missing))
    (kind,) = (kind for kind in KINDS if name.startswith(kind))
    print(f"{name}: {places.build() / kind}s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code("paper", main))
