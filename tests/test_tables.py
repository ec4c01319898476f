import json

import numpy as np
import pytest
import xarray as xr

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from logit_distributions.store import places
from paper import table1, table2, table3, tables


def test_printed_numbers_are_those_of_the_datasets():
    made = table2.make()
    for name, row in zip(tables.reported("table2"), made.rows, strict=False):
        files = sorted((places.data() / "logits").glob(f"cifar10-small-{name}-seed*.nc"))
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
    assert row[3:5] == (f"{mean:.2f} ± {spread:.2f}", str(len(logs)))
    images = sum(45_000 * log.sizes["epoch"] for log in logs)
    assert float(row[5].replace(",", "")) == pytest.approx(images / hours.sum() / 3600, abs=0.5)


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
