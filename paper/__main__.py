"""Make what is out of date among tables and figures: ``python -m paper [NAME ...]``.

An artefact is up to date if its outputs, the modules that it imports and the stored files
that it looked for are those of when it was last made, all compared by content.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from logit_distributions.errors import ReproError
from logit_distributions.store import files, places

FOLDER = Path(__file__).parent
NUMBERS = FOLDER / "reported.toml"
SUFFIXES = {"table": (".txt", ".csv", ".md", ".tex"), "figure": (".pdf", ".png", ".txt")}


def names() -> list[str]:
    """Return the names of all artefacts that have a script."""
    return [path.stem for kind in SUFFIXES for path in sorted(FOLDER.glob(f"{kind}[0-9ABC]*.py"))]


def outputs(name: str) -> list[Path]:
    """Return the files that an artefact consists of."""
    kind = next(kind for kind in SUFFIXES if name.startswith(kind))
    return [places.build() / f"{kind}s" / f"{name}{suffix}" for suffix in SUFFIXES[kind]]


@cache
def imports(path: Path) -> frozenset[Path]:
    """Return the modules of this project that a module imports itself."""
    wanted: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            wanted |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (places.ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in wanted)
    return frozenset(file for file in files if file.is_file())


def sources(name: str) -> set[Path]:
    """Return the script of an artefact and every module that it needs."""
    found: set[Path] = set()
    todo = {FOLDER / f"{name}.py"}
    while todo:
        path = todo.pop()
        found.add(path)
        todo |= imports(path) - found
    return found | {NUMBERS}


@cache
def _sha256(path: Path, stamp: tuple[int, int]) -> str:
    return files.sha256(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read once as long as it does not change."""
    status = path.stat()
    return _sha256(path, (status.st_size, status.st_mtime_ns))


def state(name: str, patterns: Iterable[str]) -> dict[str, Any]:
    """Return hashes of all that an artefact is made from, and of what it consists of."""
    libraries = [importlib.metadata.version(each) for each in ("numpy", "matplotlib")]
    code = hashlib.sha256(f"{sys.version} {libraries}".encode())
    for path in sorted(sources(name)):
        code.update(f"{path.name} {sha256(path)}".encode())
    return {
        "code": code.hexdigest(),
        "data": {
            pattern: {
                path.relative_to(places.data()).as_posix(): sha256(path)
                for path in sorted(places.data().glob(pattern))
            }
            for pattern in sorted(patterns)
        },
        "outputs": {path.name: sha256(path) if path.exists() else "" for path in outputs(name)},
    }


def is_up_to_date(name: str) -> bool:
    """Return whether making an artefact again would change nothing."""
    record = _record(name)
    if not record.exists():
        return False
    made = json.loads(record.read_text())
    return bool(made == state(name, made["data"]))


def _record(name: str) -> Path:
    return places.build() / "made" / f"{name}.json"


def make(name: str) -> None:
    """Make an artefact and note what it was made from."""
    from paper import selection, style, tables

    selection.looked_for.clear()
    script = importlib.import_module(f"paper.{name}")
    save = style.save if name.startswith("figure") else tables.save
    save(name, script.make)
    with files.atomic(_record(name)) as temporary:
        temporary.write_text(json.dumps(state(name, selection.looked_for), indent=1))


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
    named = list(sys.argv[1:] if arguments is None else arguments)
    groups = {f"{kind}s": [n for n in names() if n.startswith(kind)] for kind in SUFFIXES}
    unknown = [name for name in named if name not in names() and name not in groups]
    if unknown:
        print(f"unknown artefact {unknown[0]!r}: expected {', '.join(names())}", file=sys.stderr)
        return 2
    code = 0
    for name in [n for each in named or groups for n in groups.get(each, [each])]:
        if is_up_to_date(name):
            print(f"{name}: up to date")
            continue
        try:
            make(name)
        except ReproError as error:
            from paper.selection import MissingDataset

            if name in named or not isinstance(error, MissingDataset):
                code = 1
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {outputs(name)[0].parent}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
