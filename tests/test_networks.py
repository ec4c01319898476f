"""Figures 1 to 3 of files of others: drawn, described, or why not in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from logit_distributions import from_arrays, recipes, store
from logit_distributions.store import places
from paper import figure1, figure2, figure3, figure4, networks, style
from tests import toy_results

FIGURES = {"figure1": figure1, "figure2": figure2, "figure3": figure3}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files of a network of others, attacked and not, and of two seeds of ours."""
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    paths = {}
    for seed in (0, 1):
        recipe = recipes.recipe("at")
        paths[f"at{seed}"] = tmp_path / f"at{seed}.nc"
        store.write(toy_results.logits(recipe, seed, 120), paths[f"at{seed}"])
        paths[f"epochs{seed}"] = tmp_path / f"epochs{seed}.nc"
        store.write(toy_results.epochs(recipe, seed), paths[f"epochs{seed}"])
    st = toy_results.logits(recipes.recipe("st"), 0, 120)
    order = np.random.default_rng(0).permutation(120)[:100]
    logits, labels = st["logits"].values[order], st["label"].values[order]
    hits = logits.argmax(1) == labels
    paths["mine"] = tmp_path / "mine.nc"
    store.write(from_arrays(logits, labels, hits, name="mine", index=order), paths["mine"])
    paths["natural"] = tmp_path / "natural.nc"
    store.write(from_arrays(logits * 30, labels, name="natural", index=order), paths["natural"])
    return {name: str(path) for name, path in paths.items()}


def draw(figure, *paths):
    script = FIGURES[figure]
    return style.main(figure, script.make, paths, script.of_files)


def caption(figure, *paths):
    """Draw a figure that must be drawn, and return its caption."""
    assert draw(figure, *paths) == 0
    (text,) = (places.build() / "figures").glob("*.txt")
    picture = np.asarray(Image.open(text.with_suffix(".png")).convert("L"))
    assert picture.std() > 5
    assert text.with_suffix(".pdf").is_file()
    words = text.read_text()
    text.unlink()
    assert "nan" not in words
    return words


@pytest.mark.parametrize("figure", FIGURES)
def test_networks_of_others_are_drawn_beside_ours(figure, files):
    words = caption(figure, files["mine"], files["at0"], files["at1"])
    assert "mine: 100 images, attacked by an attack of yours." in words
    count = 100 if figure == "figure3" else 120
    assert (
        f"AT, scale small: seeds 0, 1; {count} images, attacked by repro 8/255 100it x1." in words
    )
    assert words.endswith(f"As Figure {figure[-1]} of the paper.\n")
    names = {path.stem for path in (places.build() / "figures").iterdir()}
    assert names == {f"{figure}-mine-and-2-more"}


def test_natural_logits_alone_give_the_natural_half(files):
    assert "natural: 100 images, not attacked." in caption("figure1", files["natural"])
    gaps = store.open_dataset(files["natural"])["logits"].values
    top = np.sort(gaps, axis=1)
    mean = (top[:, -1] - top[:, -2]).mean()
    assert f"natural: mean gap {mean:.2f}. natural: 100" in caption("figure2", files["natural"])
    assert "On the 100 images that all have" in caption("figure3", files["natural"], files["at0"])


def test_epochs_are_rows(files):
    words = caption("figure1", files["epochs0"], files["epochs1"], files["mine"])
    assert "AT, scale small: seeds 0, 1; 120 images." in words
    assert " to " in words.partition("AT, scale small: mean")[2].partition(";")[0]


def test_common_images_are_those_of_the_index_in_one_order(files):
    shown = networks.of_files([files["mine"], files["at0"]], ["logits"])
    mine, at = (datasets[0] for datasets in networks.on_common_images(shown).values())
    plain = {int(i): row for i, row in zip(shown["mine"][0]["index"], shown["mine"][0]["logits"],
                                          strict=True)}  # fmt: skip
    assert list(mine["index"].values) == list(at["index"].values) == sorted(plain)
    for place, number in enumerate(mine["index"].values):
        np.testing.assert_array_equal(mine["logits"].values[place], plain[int(number)])


def test_each_network_has_a_name_and_a_colour_of_its_own(files, tmp_path):
    again = store.open_dataset(files["mine"])
    again = again.assign(logits=again["logits"] + 1)
    store.write(again, tmp_path / "again.nc")
    shown = networks.of_files([files["mine"], tmp_path / "again.nc", files["at0"]], ["logits"])
    assert list(shown) == ["mine", "mine (2)", "AT, scale small"]
    colours = networks.colours(shown)
    assert colours["AT, scale small"] == style.COLOURS["at"]
    assert len(set(colours.values())) == 3


def test_what_cannot_be_drawn_is_one_line(files, tmp_path, capsys):
    def line(figure, *paths):
        assert draw(figure, *paths) == 1
        return capsys.readouterr().err

    epochs = files["epochs0"]
    assert line("figure2", epochs) == (
        f"figure2: {epochs}: expected a dataset of logits, got epochs\n"
    )
    assert line("figure3", files["mine"]) == (
        "figure3: compares networks: expected files of two to 4, got 1; seeds of one recipe are "
        "one network\n"
    )
    assert line("figure2", files["at0"], files["at0"] + "/../at0.nc").startswith("figure2: ")
    copy = tmp_path / "copy.nc"
    copy.write_bytes((tmp_path / "at0.nc").read_bytes())
    assert line("figure2", files["at0"], str(copy)) == (
        f"figure2: {copy}: holds the same as {files['at0']}; likely given twice\n"
    )
    store.write(from_arrays(np.eye(10) * 2.0, np.arange(10), name="far",
                            index=np.arange(500, 510)), tmp_path / "far.nc")  # fmt: skip
    assert line("figure3", files["at0"], str(tmp_path / "far.nc")) == (
        "figure3: expected networks on the same images, got none in common (index)\n"
    )
    store.write(from_arrays(np.eye(10) * 2.0, (np.arange(10) + 1) % 10, name="other"),
                tmp_path / "other.nc")  # fmt: skip
    assert "expected the same label for the same image (index), got different ones" in line(
        "figure3", files["at0"], str(tmp_path / "other.nc")
    )
    store.write(from_arrays(np.ones((9, 3)), np.zeros(9, int), name="flat"), tmp_path / "flat.nc")
    assert line("figure2", str(tmp_path / "flat.nc")) == (
        "figure2: expected logits with gaps, got none above 0; likely all logits equal\n"
    )
    assert "no such file" in line("figure1", str(tmp_path / "absent.nc"))


def test_a_figure_that_takes_no_files_says_so(capsys):
    assert style.main("figure4", figure4.make, ["mine.nc"]) == 1
    assert capsys.readouterr().err == ("figure4: takes no files, got mine.nc; Figures 1 to 3 do\n")


def test_other_attacks_on_a_recipe_are_networks_of_their_own(files, tmp_path):
    settings = json.dumps({"engine": "odi", "eps": 8 / 255, "iterations": 100, "restarts": 20,
                           "seed": 0})  # fmt: skip
    odi = store.open_dataset(files["at0"]).assign_attrs(evaluation=settings)
    store.write(odi, tmp_path / "odi.nc")
    assert list(networks.of_files([files["at0"], tmp_path / "odi.nc"], ["logits"])) == [
        "AT, scale small", "AT, scale small (2)",
    ]  # fmt: skip
