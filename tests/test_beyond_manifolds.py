"""GLUE beside Figure 5, and capacities against the number of points, from made-up results."""

from __future__ import annotations

import numpy as np
import pytest

from logit_distributions import recipes, store
from logit_distributions.read import capacity
from paper import capacities, figure5
from paper.beyond.__main__ import main as make
from tests import toy_results


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    for name in (*recipes.FIGURE5, recipes.UNTRAINED):
        toy_results.write_capacity(tmp_path / "data", name, (0, 1) if name == "at" else (0,))
    return tmp_path


def with_points(folder, name, count, factor):
    dataset = toy_results.capacities(recipes.recipe(name), 0)
    dataset = dataset.sel(layer=list(recipes.POINTS_LAYERS))
    dataset.attrs["manifold_points"] = count
    for quantity in dataset.variables:
        if str(quantity).startswith("conic_capacity"):
            dataset[quantity] = dataset[quantity] * factor
    stage = f"capacity/points-{count}"
    store.write(dataset, folder / "data" / stage / f"{dataset.attrs['run']}.nc")


def test_glue_is_drawn_of_what_is_measured(results, capsys):
    assert make(["glue"]) == 0, capsys.readouterr().err
    text = (results / "build" / "figures" / "beyond.glue.txt").read_text()
    assert "AT 0, 1; normal 0" in text
    assert "nan" not in text
    for file in (results / "data" / "capacity").glob("*.nc"):
        before = store.open_dataset(file).drop_vars(["glue_radius"])
        store.write(before, file)
    assert make(["glue"]) == 1
    assert "make it with 'logitdist make capacity/at --scale small'" in capsys.readouterr().err


def test_capacities_are_drawn_against_points(results, capsys):
    assert make(["points"]) == 1
    assert "make it with 'logitdist make manifolds --scale small'" in capsys.readouterr().err
    for count, factor in ((10, 2.0), (100, 0.9)):
        with_points(results, "at", count, factor)
    assert make(["points"]) == 0, capsys.readouterr().err
    text = (results / "build" / "figures" / "beyond.points.txt").read_text()
    assert "From M = 50 to 100 the conic capacity falls by 10% to 10% after layer1.1" in text


def test_other_exemplars_widen_the_band_of_figure_5(results):
    runs = capacities.networks()
    assert capacities.other_exemplars(runs, "st") == []
    toy = toy_results.capacities(recipes.recipe("st"), 0)
    toy.attrs["manifold_exemplar_set"] = 1
    store.write(toy, results / "data" / "capacity" / "set-1" / f"{toy.attrs['run']}.nc")
    assert len(capacities.other_exemplars(runs, "st")) == 1
    text = figure5.make().get_label()
    assert "seeds and disjoint sets of exemplars" in text
    assert "Dotted: a network as it is initialised" in text


def test_means_leave_out_manifolds_without_a_centre(results):
    dataset = capacities.networks()["st"][0].copy(deep=True)
    dataset["center_kept"][2, 4] = 0.0
    radii = np.delete(dataset["radius"].values[2].astype(float), 4)
    assert capacities.by_layer([dataset], "radius")[0, 2] == pytest.approx(radii.mean())
    assert capacities.by_layer([dataset], "left_out")[0].tolist() == [0, 0, 1] + [0] * 9
    assert np.isnan(capacities.by_layer([dataset.drop_vars("center_kept")], "left_out")).all()
    theory = capacity.estimates(dataset.isel(layer=2))["theory"].value
    assert capacities.by_layer([dataset], "theory")[0, 2] == theory
    assert np.isnan(
        capacities.by_layer([dataset.drop_vars("guarded_radius")], "guarded_radius")
    ).all()
