"""What is installed: two packages with names of their own, beside others' `kernels` and `repro`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from logit_distributions.store import places

STAND_INS = ("kernels", "repro")
"""Distributions of other people, with packages and commands of these names."""

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.0"
[project.scripts]
{name} = "{name}:main"
[tool.setuptools]
packages = ["{name}"]
"""


def _run(*command: object, folder: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, cwd=folder, env=environment
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _wheel(source: Path, folder: Path) -> Path:
    """Build a wheel with what is installed, so without a network."""
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder)
    _run(sys.executable, "-m", "pip", "wheel", "-q", *options, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def _copy(folder: Path) -> Path:
    """Copy what a wheel is built from: a build leaves files beside its sources."""
    names = ("pyproject.toml", "README.md", "LICENSE", "repro", "kernels")
    sources = [places.ROOT / name for name in names]
    folder.mkdir()
    _run("cp", "-r", *sources, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return _wheel(_copy(folder / "source"), folder / "built")


def test_the_wheel_holds_two_packages(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name.split("/")[0]}
    assert tops == {"logit_distributions", "manifold_capacity"}
    assert "logit_distributions/workflow/Snakefile" in names
    sources = {p.relative_to(places.ROOT / "repro").as_posix() for p in _sources("repro")}
    assert sources <= set(names)


def _sources(root: str) -> list[Path]:
    return list((places.ROOT / root).rglob("*.py"))


def test_the_wheel_leaves_others_packages_of_the_old_names_alone(wheel, tmp_path):
    stand_ins = []
    for name in STAND_INS:
        source = tmp_path / name
        (source / name).mkdir(parents=True)
        (source / "pyproject.toml").write_text(PYPROJECT.format(name=name))
        (source / name / "__init__.py").write_text(f"def main():\n    print('the other {name}')\n")
        stand_ins.append(_wheel(source, tmp_path / f"{name}-wheel"))
    environment = tmp_path / "environment"
    _run(sys.executable, "-m", "venv", "--without-pip", environment)
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "-q")

    def others() -> dict[str, str]:
        assert {name: _run(environment / "bin" / name) for name in STAND_INS} == {
            name: f"the other {name}\n" for name in STAND_INS
        }
        files = [p for name in STAND_INS for p in environment.rglob(f"{name}*/*.py")]
        return {str(p): p.read_text() for p in files}

    _run(*pip, "install", "--no-deps", "--no-index", *stand_ins)
    before = others()
    _run(*pip, "install", "--no-deps", "--no-index", wheel)
    assert others() == before
    assert (environment / "bin" / "logitdist").exists()
    python = environment / "bin" / "python"
    script = "import importlib.util as u; print(*(u.find_spec(n).origin for n in {}))"
    origins = _run(python, "-c", script.format(("logit_distributions", "manifold_capacity")))
    assert all(str(environment) in each for each in origins.split())
    _run(*pip, "uninstall", "-y", "logit-distributions")
    assert others() == before
    assert not (environment / "bin" / "logitdist").exists()
