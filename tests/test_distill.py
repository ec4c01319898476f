"""Targets of one's own, as a new user adopts them; the published copy of a teacher's."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import xarray as xr

from logit_distributions import cli, images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job
from logit_distributions.make import distill, run
from logit_distributions.make.options import Machine, Options
from logit_distributions.store import places
from paper import table2
from tests import toy, toy_results


def own(labels, seed=0):
    """Return targets that know the class and rank the others at random."""
    draws = np.random.default_rng(seed)
    return (3 * np.eye(10)[labels] + draws.random((len(labels), 10))).astype(np.float32)


def write(path, **variables):
    xr.Dataset(variables).to_netcdf(path, engine="netcdf4")
    return str(path)


@pytest.fixture
def adopt(toy_world, toy_sheets, capsys):
    """Return a function that adopts logits, and the student's name."""

    def command(logits, name="mine", **more):
        file = write(toy_world / "own.nc", logits=(("sample", "class"), logits), **more)
        arguments = ["adopt", "--targets", file, name, "--images", str(toy_sheets)]
        assert cli.main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()[-1].split()[2]

    return command


def test_a_student_learns_from_them_and_is_a_row_of_table_2(
    adopt, toy_world, toy_sheets, capsys, monkeypatch
):
    data = images.load("cifar10", "train", toy_sheets)
    logits = own(data.labels)
    student = adopt(logits)
    assert student == f"own-mine-{distill.targets_hash(logits)}"
    arguments = ["make", student, "--seed", "0", "--images", str(toy_sheets)]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    recipe = recipes.recipe(student)
    targets, about = distill.student_targets(Job("train", recipe, 0, 2))
    np.testing.assert_array_equal(targets, logits)
    assert about["teacher_training_error"] == 0
    made = store.open_dataset(store.path_of("logits", recipe.run(0)), "logits")
    assert made.sizes["sample"] == 10 * toy.TEST  # all, not those of a sweep
    assert distill.targets_hash(logits) in made.attrs["recipe"]
    monkeypatch.setattr(run, "STAGES", {})  # everything is stored
    assert cli.main(arguments) == 0
    (row,) = table2._own_rows("small")
    natural = 100 * (made["logits"].values.argmax(1) == made["label"].values).mean()
    assert row[:4] == (student, "small", "–", f"{natural:.2f}")


def test_other_targets_are_another_recipe(adopt, toy_world, toy_sheets):
    data = images.load("cifar10", "train", toy_sheets)
    first, second = (adopt(own(data.labels, seed)) for seed in (0, 1))
    hashes = {recipes.recipe(name).hash for name in (first, second)}
    assert len(hashes) == 2
    (job,) = Job("train", recipes.recipe(first), 0, 2).needs
    (other,) = Job("train", recipes.recipe(second), 0, 2).needs
    job.path.write_bytes(other.path.read_bytes())
    with pytest.raises(ReproError, match="expected the targets that were adopted, got those of"):
        run.make(job, Options(Machine("cpu")))
    job.path.unlink()
    with pytest.raises(ReproError, match="no such targets; 'logitdist adopt --targets FILE NAME'"):
        run.make(job, Options(Machine("cpu")))


def test_the_manipulation_of_the_guide_runs_end_to_end(toy_world, toy_sheets, capsys, monkeypatch):
    """The example of CONTRIBUTING.md, with toy targets where the published ones lie."""
    text = (places.ROOT / "CONTRIBUTING.md").read_text()
    guide = re.search(r"## Try a manipulation\n.*?(?=\n## )", text, flags=re.DOTALL)[0]
    (code,) = re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    data = images.load("cifar10", "train", toy_sheets)
    logits = own(data.labels)
    published = toy_world / "data" / "targets" / "cifar10-medium-at-seed0.nc"
    published.parent.mkdir(parents=True)
    labels = {"label": ("sample", data.labels), "index": ("sample", data.index)}
    write(published, logits=(("sample", "class"), logits), **labels)
    monkeypatch.chdir(toy_world)
    exec(code, {})
    (adopt, make, _) = re.findall(r"```\n(logitdist.*?)```", guide, flags=re.DOTALL)[0].splitlines()
    arguments = [*shlex.split(adopt, comments=True)[1:], "--images", str(toy_sheets)]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    student = capsys.readouterr().out.splitlines()[-1].split()[2]
    make = make.replace("own-swapped-HASH", student).replace("medium", "small")
    arguments = [*shlex.split(make)[1:], "--seed", "0", "--images", str(toy_sheets)]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    taught, _ = distill.student_targets(Job("train", recipes.recipe(student), 0, 2))
    before, after = np.argsort(-logits, 1), np.argsort(-taught, 1)
    np.testing.assert_array_equal(after[:, [0, 2, 1, 3]], before[:, :4])
    assert (toy_world / "results" / "logits" / f"{recipes.recipe(student).run(0)}.nc").exists()


def wrong_files(folder, labels):
    """Yield files that are no targets, and what is said of each."""
    good = own(labels)
    dims = ("sample", "class")
    broken = good.copy()
    broken[3] = np.nan
    yield write(folder / "a.nc", scores=(dims, good)), "expected a variable logits"
    yield write(folder / "b.nc", logits=(dims, good[:-1])), f"each of {toy.SHOWN} training images"
    yield (
        write(folder / "c.nc", logits=(dims, good[:, :9])),
        rf"got float32 of shape \({toy.SHOWN}, 9\)",
    )
    yield write(folder / "d.nc", logits=(dims, good.astype(int))), "got int64 of shape"
    yield write(folder / "e.nc", logits=(dims, broken)), "logits of 1 images are NaN"
    order = ("sample", np.roll(labels, 1))
    yield write(folder / "f.nc", logits=(dims, good), label=order), "label differs from"
    (folder / "g.nc").write_text("no netCDF")
    yield str(folder / "g.nc"), "cannot be read as netCDF"


def test_what_are_no_targets_is_one_line(toy_world, toy_sheets):
    data = images.load("cifar10", "train", toy_sheets)
    assert len(data) == toy.SHOWN
    for file, problem in wrong_files(toy_world, data.labels):
        with pytest.raises(ReproError, match=problem) as error:
            distill.adopt_targets("mine", file, folder=toy_sheets)
        assert "\n" not in str(error.value)
    with pytest.raises(ReproError, match="expected letters, digits"):
        distill.adopt_targets("a/b", toy_world / "a.nc", folder=toy_sheets)


@pytest.mark.parametrize(
    "arguments",
    [["mine"], ["mine", "--targets", "a.nc", "--checkpoint", "b"], ["mine", "--model", "m:f"]],
)
def test_either_a_network_or_targets(arguments, capsys):
    assert cli.main(["adopt", *arguments]) == 1
    assert "expected --checkpoint and --model, or --targets alone" in capsys.readouterr().err


def test_the_published_copy_is_rounded_and_errs_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    recipe = recipes.recipe("st", "medium")
    logits = np.random.default_rng(0).normal(0, 3, (200, 10)).astype(np.float32)
    logits[0, :2] = 9.0, 9.0 + 1e-3  # would tie
    label = np.arange(200) % 10
    targets = xr.Dataset(
        {
            "logits": (("sample", "class"), logits),
            "label": ("sample", label.astype(np.int16)),
            "index": ("sample", np.arange(200, dtype=np.int32)),
        },
        coords={"class": list(images.CIFAR10.classes)},
        attrs=toy_results.attributes("targets", recipe, 0) | {"passes": 5},
    )
    job = Job("targets/published", recipe, 0)
    (need,) = job.needs
    store.write(targets, need.path)
    monkeypatch.setattr(run, "is_done", lambda job, known=run.is_done: job == need or known(job))
    path = run.make(job, Options(Machine("cpu")))
    assert path == tmp_path / "data" / "targets" / f"{recipe.run(0)}.nc"
    copy = store.open_dataset(path, "targets")
    np.testing.assert_array_equal(copy["logits"].values.argmax(1), logits.argmax(1))
    assert np.abs(copy["logits"].values - logits).max() <= 1 / 128
    assert store.registry(path) is not None
    assert store.validate(path) == []
    at = recipes.recipe("at", "paper")
    assert Job("targets/published", at, 0).needs == (Job("targets", at, 0, 40),)
