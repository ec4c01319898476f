import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from logit_distributions.store import places
from paper import selection, table1, table2, table3, tableS, tables, tableV
from tests import toy_results


def test_printed_numbers_are_those_of_the_datasets():
    made = table2.make()
    names = list(tables.reported("table2"))

    def stored(name: str, scale: str, seed: int) -> Path:
        return places.data() / "logits" / f"cifar10-{scale}-{name}-seed{seed}.nc"

    assert len(made.rows) % len(names) == 0
    for name, row in zip(itertools.cycle(names), made.rows, strict=False):
        seeds = [s for s in recipes.SEEDS if all(stored(n, row[1], s).exists() for n in names)]
        files = [stored(name, row[1], seed) for seed in seeds]
        natural, adversarial = [], []
        for file in files:
            with xr.open_dataset(file) as dataset:
                label = dataset["label"].values
                hit = dataset["logits"].values.argmax(1) == label
                held = dataset["adversarial_logits"].values.argmax(1) == label
            natural.append(100 * np.mean(hit))
            adversarial.append(100 * np.mean(hit & held))
        expected = [f"{np.mean(v):.2f} ± {np.std(v, ddof=1):.2f}" for v in (natural, adversarial)]
        assert [row[3], row[6]] == expected


def test_table_2_tells_both_orders_and_both_noises():
    notes = " ".join(table2.make().notes)
    assert "natural: the paper Normal < Fix-1 (perm) < Hybrid ST-AT < Correct-fix-1 (perm)" in notes
    runs = selection.printed("logits", list(tables.reported("table2")))[0]
    student, normal = runs["hybrid"], runs["normal"]
    differences = np.array(
        [
            a["robust"].values[-1].astype(float) - b["robust"].values[-1]
            for a, b in zip(student, normal, strict=True)
        ]
    )
    images = 100 * differences.mean(0).std(ddof=1) / np.sqrt(differences.shape[1])
    assert f"adversarial {100 * differences.mean():+.2f} ({images:.2f} from images, " in notes


def test_students_that_tie_are_in_no_order():
    reported = tables.reported("table2")
    tie = np.zeros(2)
    measured = dict.fromkeys(reported, tables.Accuracies(tie, tie, (0, 1), 10, (1, 1)))
    for note in table2._order_notes("toy", measured, reported):
        assert note.endswith("the paper's order in 0 of 2 seeds.")


def test_table_s_says_what_moves_towards_the_paper(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    for scale, right in (("small", 30), ("medium", 60)):
        for name in ("st", "at"):
            recipe = recipes.recipe(name, scale)
            made = toy_results.logits(recipe, 0, 100)
            hits = np.arange(100) < right
            label = made["label"].values
            shown = np.where(hits, label, (label + 1) % 10)
            logits = np.eye(10, dtype=np.float32)[shown]
            made = made.assign(
                logits=(("sample", "class"), logits),
                adversarial_logits=(("sample", "class"), logits),
                robust=(("attack", "sample"), np.stack([hits, hits])),
            )
            store.write(made, store.path_of("logits", recipe.run(0)))
    made = tableS.make()
    assert made.header[1:4] == ("natural: small", "natural: medium", "natural: the paper")
    assert made.rows[0][1:4] == ("30.00", "60.00", "94.50")
    assert made.rows[4][1:3] == ("–", "–")
    # AT's 41.5 lies between 30 and 60: 11.5 before, 18.5 after; ST's is 0
    assert made.notes[-1].startswith(
        "From small to medium, of 4 numbers: 2 towards the paper (CIFAR-10 ResNet18 natural, "
        "CIFAR-10 AT ResNet18 natural); 2 away (CIFAR-10 ResNet18 adversarial, "
        "CIFAR-10 AT ResNet18 adversarial)"
    )


def test_table_v_compares_on_the_same_images(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    for name in ("at", "st", *tables.reported("table2")):
        recipe = recipes.recipe(name, "medium")
        made = toy_results.logits(recipe, 0, 120)
        store.write(made, store.path_of("logits", recipe.run(0)))
    with pytest.raises(store.Missing, match=r"make it with 'logitdist.*-full/at --scale medium"):
        tableV.make()
    recipe = recipes.recipe("at", "small")
    main = toy_results.logits(recipe, 0, 120)
    store.write(main, store.path_of("logits", recipe.run(0)))
    stronger = main.isel(sample=slice(80), attack=[0])
    hits = stronger["robust"].values.copy()
    hits[0, :10] = False
    wrong = np.eye(10, dtype=np.float32)[(stronger["label"].values + 1) % 10]
    attacked = np.where(hits.T, stronger["adversarial_logits"].values, wrong)
    stronger = stronger.assign(
        robust=(("attack", "sample"), hits), adversarial_logits=(("sample", "class"), attacked)
    ).assign_coords(attack=["odi"])
    stronger.attrs["evaluation"] = json.dumps(dataclasses.asdict(recipes.Evaluation("odi")))
    store.write(stronger, store.path_of("logits/odi", recipe.run(0)))
    (row,) = tableV.make().rows
    before, after = (100 * d["robust"].values[-1, :80].mean() for d in (main, stronger))
    assert row == (
        "AT", "–", "–", "–", f"{before:.2f}", f"{after:.2f}", f"{before - after:.2f}",
    )  # fmt: skip


def test_every_form_holds_every_cell():
    made = table1.make()
    for form in (made.text(), made.csv(), made.markdown(), made.latex()):
        for row in made.rows:
            for cell in row:
                assert cell.split(" ")[0].strip("[],") in form
    assert made.latex().count(r"\\") == len(made.rows) + 1


def test_table_3_is_the_sum_of_the_epochs():
    made = table3.make()
    logs = store.find("log", "at", "cifar10", "small")
    hours = np.array([log["seconds"].values.sum() / 3600 for log in logs])
    mean, spread = distribution.mean_and_sd(hours)
    row = next(row for row in made.rows if row[0] == "Adversarial" and row[1] == "small")
    assert row[4:6] == (f"{mean:.2f} ± {spread:.2f}", str(len(logs)))
    images = sum(45_000 * log.sizes["epoch"] for log in logs)
    assert float(row[6].replace(",", "")) == pytest.approx(images / hours.sum() / 3600, abs=0.5)


@pytest.mark.parametrize(
    ("make", "name"), [(table1.make, "st"), (table2.make, "normal"), (table3.make, "st")]
)
def test_missing_datasets_name_file_and_command(make, name, tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    with pytest.raises(store.Missing, match="make it with 'logitdist make log") as error:
        make()
    assert f"cifar10-small-{name}-seed0.nc" in str(error.value)


def test_a_missing_dataset_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    assert tables.main("table2", table2.make) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_stored_recipes_are_those_of_the_code():
    for dataset in store.find("logits", dataset="*"):
        recipe = store.recipe_of(dataset)
        wanted = recipes.recipe(recipe["name"], recipe["scale"], recipe["dataset"])
        assert json.loads(wanted.to_json()) == recipe
        assert dataset.attrs["recipe_hash"] == wanted.hash


@pytest.fixture
def variation(tmp_path, monkeypatch):
    """Results of Table 2 in a ball of 4/255, with students of a given teacher."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    for name in ("at", *tables.reported("table2")):
        for seed in (0, 1):
            recipe = recipes.recipe(name, "small+wide_resnet50_2+eps4+given-mine")
            store.write(
                toy_results.logits(recipe, seed, 100), store.path_of("logits", recipe.run(seed))
            )
    return "small+wide_resnet50_2+eps4+given-mine"


def test_table_2_of_a_variation_and_a_given_teacher(variation, tmp_path, capsys):
    arguments = ["--scale", variation]
    assert tables.main("table2", table2.make, arguments, table2.of_scale) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "build" / "tables" / f"table2-{variation}.txt").read_text() + "\n"
    student = toy_results.logits(recipes.recipe("normal", variation), 0, 100)
    robust = 100 * student["robust"].values[-1].mean()
    seeds = [toy_results.logits(recipes.recipe("normal", variation), seed, 100) for seed in (0, 1)]
    expected = np.mean([100 * each["robust"].values[-1].mean() for each in seeds])
    assert robust > 0
    (row,) = (line for line in printed.splitlines() if line.startswith("Normal"))
    assert f" {expected:.2f} ± " in row
    assert "APGD-DLR, Linf 4/255." in printed
    assert f"Scale {variation}: wide_resnet50_2, 6 epochs; seeds 0, 1; 100 test images" in printed
    assert "\nTeachers: mine natural " in printed


def test_a_scale_that_is_unknown_or_not_stored_is_one_line(variation, capsys):
    for scale, line in (
        ("smal", "table2: unknown scale 'smal': expected one of "),
        ("small+eps2", "small+eps2-normal-seed0.nc is missing; make it with 'logitdist make logits/"
         "normal --scale small+eps2'\n"),
    ):  # fmt: skip
        assert tables.main("table2", table2.make, ["--scale", scale], table2.of_scale) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert line in error
