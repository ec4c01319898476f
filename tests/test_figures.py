"""Every figure from made-up results: drawn, described, or what is missing."""

from __future__ import annotations

import importlib
import shutil

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from logit_distributions import images, recipes, store
from logit_distributions.store import places
from paper import __main__ as driver
from paper import figure4, selection, style, title
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
    assert text.startswith(style.printed(name) + ". ")
    assert "nan" not in text
    for word in ("Scale", "seed", "images", "aper"):
        assert word in text
    assert "seed 2" in text or name in ("figure4", "figureA6", "figureA7")


NEEDED = {
    "figure1": ("epochs", "st"),
    "figure2": ("logits", "at"),
    "figure3": ("logits", "st"),
    "figure4": ("logits", "normal"),
    "figure5": ("capacity", "hybrid"),
    "figureA6": ("logits", "logits-epoch-"),
    "figureA7": ("logits", "*-epoch-"),
    "figureA8": ("capacity", "st"),
    "figureB1": ("epochs", "at"),
    "figureB2": ("logits", "at"),
    "figureB3": ("logits", "st"),
    "figureB4": ("epochs", "at"),
    "figureB5": ("logits", "at"),
    "figureB6": ("logits", "st"),
}
CIFAR100 = ("figureB4", "figureB5", "figureB6")


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_missing_is_one_line_with_file_and_command(name, own_results, capsys):
    stage, network = NEEDED[name]
    dataset, scale = ("cifar100", "paper") if name in CIFAR100 else ("cifar10", "small")
    for path in (own_results / stage).glob(f"{dataset}-*-{network}*.nc"):
        path.unlink()
    assert draw(name) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith(f"{name}: {own_results / stage / dataset}-{scale}-")
    network = {"figureA6": "logits-epoch-1", "figureA7": "logits-epoch-1"}.get(name, network)
    option = " --dataset cifar100" if name in CIFAR100 else ""
    assert f"is missing; make it with 'logitdist make {stage}/{network}{option} --scale" in line


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


def test_missing_data_fail_only_what_was_named(own_results, monkeypatch, capsys):
    monkeypatch.setattr(driver, "names", lambda: ["table1", "figureB1"])
    for path in (own_results / "epochs").iterdir():
        path.unlink()
    assert driver.main(["figureB1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert driver.main([]) == 0
    assert (places.build() / "tables" / "table1.txt").exists()
    assert driver.main(["figure0"]) == 2


def test_all_are_made_by_default_and_some_by_name(results, monkeypatch, capsys):
    monkeypatch.setattr(driver, "names", lambda: ["table1", "figure2", "figureA6"])
    for wanted, made in (
        ([], ["table1", "figure2", "figureA6"]),
        (["figures"], ["figure2", "figureA6"]),
        (["table1"], ["table1"]),
    ):
        assert driver.main(wanted) == 0
        lines = capsys.readouterr().out.splitlines()
        kinds = [name.rstrip("0123456789A") + "s" for name in made]
        folders = [f"{places.build()}/{kind}" for kind in kinds]
        assert lines == [f"{n}: {f}" for n, f in zip(made, folders, strict=True)]
    assert len(list((places.build() / "tables").iterdir())) == 4


def test_titles_are_the_first_lines_of_the_scripts():
    assert title("figureB4") == "Figure B.4: Figure 1 for CIFAR-100"
    for name in driver.names():
        assert title(name).startswith(style.printed(name).replace("table", "Table ") + ": ")


def test_a_sweep_compares_on_common_images_and_seeds(results):
    some = toy_results.STUDENTS[1:3]
    runs = selection.select("logits", ["normal"], optional=lambda scale: some, paired=False)
    chosen, about = selection.sweep(runs)
    assert "seed 0, attacked on the first 90 test images" in about
    for name in ("normal", "fix-3-permute"):
        dataset = toy_results.logits(recipes.recipe(name), 0, toy_results.SWEEP_SAMPLES)
        share = dataset["robust"].values[-1].mean()
        assert chosen[name].adversarial == pytest.approx(100 * share)
        low, high = naive.wilson_interval(share, 90)
        assert chosen[name].interval("adversarial") == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize("rounding", [1 / 64, 1 / 1024])
def test_bins_hold_as_many_roundings_each(rounding):
    """Otherwise a smooth density has a ripple: values in 1/64 in bins of 11 or 12 of them."""
    for low, high, count in ((-0.3, 9.71, 90), (0, 4.4, 90), (0.1, 0.9, 90), (-3, 21, 240)):
        edges = style.edges_between(low, high, count, rounding)
        assert len(edges) - 1 <= count
        assert edges[0] < low
        assert edges[-1] > high
        multiples = np.arange(np.ceil(edges[0] / rounding), edges[-1] / rounding) * rounding
        held, _ = np.histogram(multiples, edges)
        assert len(set(held)) == 1


def captions(name):
    assert draw(name) == 0
    return (places.build() / "figures" / f"{name}.txt").read_text()


def test_captions_say_what_does_not_fit(results):
    assert "within all 10 classes" in captions("figureB2")
    falls = captions("figure4")
    assert ("It falls from k = " in falls) == ("points (permute" in falls or "(average" in falls)
    assert "(here ST " in captions("figure5")
    assert "times that on test images" in captions("figureB1")


def test_figure_b5_is_of_one_epoch(own_results, capsys):
    """ST is drawn at the epoch at which AT is evaluated, even if it was attacked at another."""
    same = captions("figureB5")
    assert "ST's is at most" in same
    for path in (own_results / "logits").glob("cifar100-paper-st-*"):
        store.write(store.open_dataset(path).assign_attrs(checkpoint_epoch=2), path)
    other = captions("figureB5")
    assert "ST of this epoch was not attacked" in other
    assert "AT of epoch 3, ST of epoch 3" in other
    for path in (own_results / "epochs").glob("cifar100-paper-st-*"):
        path.unlink()
    assert draw("figureB5") == 1
    assert "logitdist make epochs/st --dataset cifar100 --scale paper'" in capsys.readouterr().err


def test_figure_4_names_every_fall_of_robustness():
    def point(adversarial, shift=0):
        robust = np.roll(np.arange(2000) < 20 * adversarial, shift).astype(float)
        return selection.Accuracy(50.0, 100 * robust.mean(), 2000, robust)

    one, two = point(16.5), point(14.0, shift=40)
    text = figure4._falls({"fix-1-permute": one, "fix-2-permute": two, "normal": point(20.0)})
    z = scipy.stats.ttest_rel(one.robust, two.robust).statistic
    assert f"k = 1 to 2 by 2.5 points (permute, z = {z:.1f})" in text
    assert figure4._falls({"fix-1-permute": point(10.0), "fix-2-permute": point(11.0)}) == ""


def test_sheets_are_read_as_written(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (5, 3, 32, 32)).astype(np.uint8)
    images.write_sheet(pictures, tmp_path / "sheet.png")
    np.testing.assert_array_equal(images.read_sheet(tmp_path / "sheet.png"), pictures)
