"""Print a verdict on every claim of the paper: ``python -m paper.claims [ID ...]``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence

from paper import exit_code
from paper.claims.verdicts import lines, plain, verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the verdicts and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m paper.claims", description="Judge every claim of the paper by the stored data."
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="only these claims (default all)")
    parser.add_argument("--details", action="store_true", help="quotation, measure, rule, seeds")
    parser.add_argument("--json", action="store_true", help="print JSON, with all details")
    parsed = parser.parse_args(arguments)
    return exit_code("claims", lambda: _print(parsed))


def _print(parsed: argparse.Namespace) -> int:
    found = verdicts(parsed.ids)
    if parsed.json:
        print(json.dumps([plain(each) for each in found], indent=2, ensure_ascii=False))
        return 0
    width = shutil.get_terminal_size((0, 0)).columns  # 0: no terminal, lines of any length
    print("\n".join(lines(found, parsed.details, width)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
