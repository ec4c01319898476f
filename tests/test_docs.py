"""Every public name has an example, and it runs; the pages are written."""

import doctest
import importlib
import subprocess
import sys

import pytest

from logit_distributions.store import places

PACKAGES = ("logit_distributions", "manifold_capacity", "manifold_capacity.replica")
PUBLIC = [f"{each}.{name}" for each in PACKAGES for name in importlib.import_module(each).__all__]


@pytest.mark.parametrize("path", PUBLIC)
def test_the_example_of_every_public_name_runs(path, monkeypatch):
    monkeypatch.chdir(places.ROOT)
    package, _, name = path.rpartition(".")
    public = getattr(importlib.import_module(package), name)
    (example,) = doctest.DocTestFinder(exclude_empty=False, recurse=False).find(
        public, path, globs={"__name__": "example"}
    )
    assert example.examples, f"{path} has no example"
    failures: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_make_docs_writes_a_page_of_each_package(tmp_path):
    pytest.importorskip("pdoc")
    environment = tmp_path / "bin"
    environment.mkdir()
    (environment / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (environment / "python").chmod(0o755)
    (tmp_path / "done").touch()
    command = ["make", "--silent", "docs", f"FULL={tmp_path}", f"DOCS={tmp_path / 'docs'}"]
    done = subprocess.run(command, cwd=places.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warn" not in done.stderr
    for package in PACKAGES:
        page = (tmp_path / "docs" / f"{package.replace('.', '/')}.html").read_text()
        assert "_ArrayLike" not in page
        for path in PUBLIC:
            parent, _, name = path.rpartition(".")
            if parent == package:
                assert f'id="{name}"' in page
    assert not list(tmp_path.rglob("make*.html"))
