"""Every figure from made-up results: drawn, described, missing, up to date."""

from __future__ import annotations

import importlib
import shutil

import numpy as np
import pytest
from PIL import Image

from logit_distributions import images, recipes, store
from logit_distributions.store import places
from paper import __main__ as driver
from paper import selection, style
from tests import naive, toy_results

FIGURES = [name for name in driver.names() if name.startswith("figure") and name[6] != "C"]


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    toy_results.write(folder)
    return folder


@pytest.fixture
def results(written, monkeypatch, tmp_path):
    """Made-up results that a test may read only, and an empty build folder."""
    monkeypatch.setenv("REPRO_DATA", str(written))
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    return written


@pytest.fixture
def own_results(results, monkeypatch, tmp_path):
    """A copy of the made-up results that a test may change."""
    shutil.copytree(results, tmp_path / "data")
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def draw(name):
    return style.main(name, importlib.import_module(f"paper.{name}").make)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_and_described(name, results, capsys):
    assert draw(name) == 0, capsys.readouterr().err
    folder = places.build() / "figures"
    pixels = np.asarray(Image.open(folder / f"{name}.png").convert("L"))
    assert pixels.std() > 5
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    text = (folder / f"{name}.txt").read_text()
    assert text.startswith(style.title(name) + ". ")
    assert "nan" not in text
    for word in ("Scale", "seed", "images", "aper"):
        assert word in text
    assert "seed 2" in text or name in ("figure4", "figureA6", "figureA7")


NEEDED = {
    "figure1": ("epochs", "st", "logitdist run figure1"),
    "figure2": ("logits", "at", "logitdist run figure2"),
    "figure3": ("logits", "st", "logitdist run figure3"),
    "figure4": ("logits", "normal", "logitdist run figure4"),
    "figure5": ("capacity", "hybrid", "logitdist manifolds"),
    "figureA6": ("logits", "logits-epoch-", "logitdist run figureA6"),
    "figureA7": ("logits", "*-epoch-", "logitdist run figureA7"),
    "figureA8": ("capacity", "st", "logitdist manifolds"),
    "figureB1": ("epochs", "at", "logitdist run figureB1"),
    "figureB2": ("logits", "at", "logitdist run figureB2"),
    "figureB3": ("logits", "st", "logitdist run figureB3"),
    "figureB4": ("epochs", "at", "logitdist run figure1 --dataset cifar100"),
    "figureB5": ("logits", "at", "logitdist run figure2 --dataset cifar100"),
    "figureB6": ("logits", "st", "logitdist run figure3 --dataset cifar100"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_missing_is_one_line_with_file_and_command(name, own_results, capsys):
    kind, run, command = NEEDED[name]
    dataset = "cifar100" if "cifar100" in command else "cifar10"
    for path in (own_results / kind).glob(f"{dataset}-*-{run}*.nc"):
        path.unlink()
    assert draw(name) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith(f"{name}: {own_results / kind / dataset}-")
    assert f"is missing; make it with '{command}" in line
    assert command == "logitdist manifolds" or command.split()[2] in recipes.PLANS


def test_missing_pictures_are_one_line(own_results, capsys):
    (own_results / "images" / "cifar10-test-first-1000.png").unlink()
    assert draw("figureB3") == 1
    assert "first-1000.png is missing; make it with 'logitdist fetch'" in capsys.readouterr().err


def test_pixels_and_bytes_are_the_same_again(results, monkeypatch, tmp_path):
    made = []
    for folder in ("one", "two"):
        monkeypatch.setenv("REPRO_BUILD", str(tmp_path / folder))
        assert draw("figure3") == 0
        files = sorted((tmp_path / folder / "figures").iterdir())
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1]
    assert len(made[0]) == 3


def test_only_what_changed_is_made_again(own_results, capsys):
    some = ["figure2", "figureB1", "table1"]
    assert driver.main(some) == 0
    assert "up to date" not in capsys.readouterr().out
    assert driver.main(some) == 0
    assert capsys.readouterr().out.count("up to date") == 3

    recipe = recipes.recipe("at")
    store.write(toy_results.epochs(recipe, 2), own_results / "epochs" / f"{recipe.run(2)}.nc")
    (places.build() / "tables" / "table1.csv").write_text("changed by hand")
    assert driver.main(some) == 0
    printed = capsys.readouterr().out
    assert "figure2: up to date" in printed
    assert printed.count("up to date") == 1
    assert "AT seed 2" not in (places.build() / "figures" / "figureB1.txt").read_text()


def test_missing_data_fail_only_what_was_named(own_results, capsys):
    for path in (own_results / "epochs").iterdir():
        path.unlink()
    assert driver.main(["figureB1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert driver.main(["figure0"]) == 2


def test_modules_that_a_script_needs_are_found():
    found = {path.name for path in driver.sources("figureB5")}
    assert {"figureB5.py", "figure2.py", "style.py", "selection.py", "statistics.py"} <= found
    assert "figure3.py" not in found


def test_a_sweep_compares_on_common_images_and_seeds(results):
    some = toy_results.STUDENTS[1:3]
    runs = selection.runs("logits", "figure4", ["at", "normal"], optional=lambda scale: some)
    found, about = selection.sweep(runs)
    assert "seed 0, attacked on the first 90 test images" in about
    for name in ("normal", "fix-3-permute"):
        dataset = toy_results.logits(recipes.recipe(name), 0, toy_results.SWEEP_SAMPLES)
        share = dataset["robust"].values[-1].mean()
        assert found[name].adversarial == pytest.approx(100 * share)
        low, high = naive.wilson_interval(share, 90)
        assert found[name].interval("adversarial") == pytest.approx((100 * low, 100 * high))


def test_sheets_are_read_as_written(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32)).astype(np.uint8)
    images.write_sheet(pictures, tmp_path / "sheet.png")
    np.testing.assert_array_equal(images.read_sheet(tmp_path / "sheet.png"), pictures)
