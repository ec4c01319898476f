"""The folder that is deposited: everything is in it, whole, and its checksums hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile

import pytest

from logit_distributions import recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.store import files, places
from paper import release
from tests import toy_results
from tests.conftest import STORED


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one source, one result and one finished training in its cache."""
    root, cache = tmp_path / "checkout", tmp_path / "cache"
    (root / "data").mkdir(parents=True)
    (root / "source.py").write_text("pass\n")
    monkeypatch.setattr(places, "ROOT", root)
    for name, folder in (("DATA", root / "data"), ("CACHE", cache), ("BUILD", root / "build")):
        monkeypatch.setenv(f"REPRO_{name}", str(folder))
    recipe = recipes.recipe("at")
    made = toy_results.logits(recipe, 0, 20)
    store.save(made, store.path_of("logits", recipe.run(0)))
    (root / "data" / "README.md").write_text("Results.\n")
    weights = STORED / "checkpoints" / f"{recipe.run(0)}.safetensors"
    run = cache / "runs" / recipe.run(0)
    run.mkdir(parents=True)
    shutil.copy(weights, run / "epoch-002.safetensors")
    shutil.copy(weights, run / "rolling.safetensors")  # unfinished, so no result
    git(root, "init", "-q")
    git(root, "add", "source.py", "data")
    git(root, "commit", "-qm", "all")
    return root


def test_everything_is_there_and_the_checksums_hold(checkout, capsys):
    assert release.main([]) == 0
    folder = checkout / "build" / "release"
    assert str(folder) in capsys.readouterr().out
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    run = recipes.recipe("at").run(0)
    assert names == {
        "README.txt", release.SOURCES, files.REGISTRY, f"data/{files.REGISTRY}", "data/README.md",
        f"data/logits/{run}.nc", f"weights/runs/{run}/epoch-002.safetensors",
    }  # fmt: skip
    listed = dict(
        reversed(line.split("  ")) for line in (folder / files.REGISTRY).read_text().splitlines()
    )
    assert listed == {n: files.sha256(folder / n) for n in names - {files.REGISTRY}}
    with tarfile.open(folder / release.SOURCES) as sources:
        assert [n for n in sources.getnames() if "." in n] == ["logit-distributions/source.py"]
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    assert commit in (folder / "README.txt").read_text()
    first = files.sha256(folder / release.SOURCES)
    assert release.main([]) == 0  # once more, to the same bytes
    assert files.sha256(folder / release.SOURCES) == first


def test_what_is_not_whole_is_not_released(checkout):
    (checkout / "source.py").write_text("changed\n")
    with pytest.raises(ReproError, match="a checkout without changes, got some in source"):
        release.write(checkout / "build" / "release")
    git(checkout, "commit", "-qam", "changed")
    file = store.path_of("logits", recipes.recipe("at").run(0))
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    git(checkout, "commit", "-qam", "damaged")
    with pytest.raises(ReproError, match="expected SHA-256"):
        release.write(checkout / "build" / "release")
    (checkout / "other").mkdir()
    with pytest.raises(ReproError, match="expected a release or nothing"):
        release.write(checkout / "other")


def test_outside_of_a_checkout_it_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "ROOT", tmp_path)
    with pytest.raises(ReproError, match="expected a git checkout") as error:
        release.write(tmp_path / "release")
    assert "\n" not in str(error.value)


def test_the_card_of_the_weights_runs(monkeypatch):
    monkeypatch.chdir(places.ROOT)
    text = (places.ROOT / "data" / "checkpoints" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names = {}
    exec(code, names)
    assert names["model"].logits.weight.shape[0] == 10
