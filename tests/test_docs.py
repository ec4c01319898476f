"""Every public name has an example, and it runs; the pages are written."""

import doctest
import importlib
import os
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
    rules = (places.ROOT / "Makefile").read_text()
    rule = rules.partition("\ndocs: ")[2].partition("\n\n")[0].partition("\n")[2]
    rule = rule.replace("$(FULL)/bin/python", sys.executable).replace("build/docs", str(tmp_path))
    done = subprocess.run(
        rule.replace("\t@", ""), shell=True, cwd=places.ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONWARNINGS": "error::UserWarning"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for package in PACKAGES:
        page = (tmp_path / f"{package.replace('.', '/')}.html").read_text()
        for path in PUBLIC:
            parent, _, name = path.rpartition(".")
            if parent == package:
                assert f'id="{name}"' in page
    assert not list(tmp_path.rglob("make*.html"))
