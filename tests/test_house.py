"""The house is the arrow make → store → read: who may import whom, and what needs torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from logit_distributions.store import places

PACKAGE = places.ROOT / "repro" / "logit_distributions"
ORDER = (
    "cli", "bench", "make", "plans", "jobs", "choice", "read", "images", "manipulations", "store",
    "recipes", "progress", "errors",
)  # fmt: skip
"""Each room may use those to its right."""

NEEDS_TORCH = ("make", "bench")
FACES = ("__init__", "__main__")


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Return the dotted names that a module imports, of modules and of what is in them."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_of(names: set[str]) -> set[str]:
    inside = {name.split(".")[1] for name in names if name.startswith("logit_distributions.")}
    return inside & {*ORDER, "workflow"}


def test_at_most_fifteen_rooms_are_in_sight():
    seen = {room(file) for file in modules(PACKAGE)} - set(FACES)
    assert seen == {*ORDER, "workflow"}
    assert len(seen) <= 15


@pytest.mark.parametrize("file", modules(PACKAGE), ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(file):
    here = room(file)
    if here in (*FACES, "workflow"):
        return
    allowed = set(ORDER[ORDER.index(here) :])
    assert rooms_of(imports(file)) <= allowed


def test_the_kernels_know_nothing_of_ours():
    for file in modules(places.ROOT / "kernels"):
        tops = {name.split(".")[0] for name in imports(file)}
        assert not tops & {"logit_distributions", "paper"}, file


def test_the_kernels_import_without_torch():
    code = "import sys, manifold_capacity.replica; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_nothing_that_is_shipped_reads_the_paper():
    for file in modules(PACKAGE):
        assert not any(name.split(".")[0] == "paper" for name in imports(file)), file
        assert "paper/" not in file.read_text(), file


def test_the_paper_makes_nothing_but_where_the_audit_measures_again():
    for file in modules(places.ROOT / "paper"):
        used = rooms_of(imports(file))
        assert not used & {"cli", "bench"}, file
        assert "make" not in used or file.name == "audit.py", file


def _names() -> list[str]:
    files = [f for f in modules(PACKAGE) if room(f) not in (*NEEDS_TORCH, "__main__")]
    files += [f for f in modules(places.ROOT / "paper") if f.name != "__main__.py"]
    names = []
    for file in files:
        base = places.ROOT / "repro" if PACKAGE in file.parents else places.ROOT
        parts = file.relative_to(base).with_suffix("").parts
        names.append(".".join(part for part in parts if part != "__init__"))
    return names


def test_everything_but_make_and_bench_imports_without_torch():
    code = (
        f"import importlib, sys\nfor name in {_names()!r}:\n    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=places.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_benchmarks_can_be_imported():
    names = [f.stem for f in sorted((places.ROOT / "tests" / "bench").glob("[a-z]*.py"))]
    code = "".join(f"import tests.bench.{name}\n" for name in names)
    assert len(names) >= 8
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=places.ROOT, check=True)
