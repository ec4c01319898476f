import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from logit_distributions import cli, images, manipulations, pipeline, recipes, store
from logit_distributions.make import distill, history, network
from logit_distributions.make import logits as attacked_logits
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.store import files, places
from logit_distributions.store.places import epoch_file
from tests import toy


@pytest.fixture(scope="module")
def table2(tmp_path_factory, toy_sheets):
    """Run everything behind Table 2 on the toy set, once."""
    folder = tmp_path_factory.mktemp("world")
    environment = os.environ | {
        f"REPRO_{name.upper()}": str(folder / name) for name in ("data", "cache", "build")
    }
    command = [sys.executable, "-m", "tests.toy", "run", "table2", "--seed", "0"]
    done = subprocess.run(
        [*command, "--images", str(toy_sheets), "--threads", "2"],
        env=environment, cwd=places.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def world(table2, toy_world, monkeypatch):
    """The toy world with Table 2 made."""
    folder, _ = table2
    for name in ("data", "cache", "build"):
        monkeypatch.setenv(f"REPRO_{name.upper()}", str(folder / name))
    return folder


def test_run_makes_every_dataset_of_table_2(table2, world, capsys):
    _, printed = table2
    for name in recipes.plan("table2", "small"):
        run = f"cifar10-small-{name}-seed0"
        assert f"{run}: natural" in printed
        dataset = store.open_dataset(store.path_of("logits", run), "logits")
        assert json.loads(dataset.attrs["recipe"])["name"] == name
        assert dataset.sizes == {"sample": 100, "class": 10, "attack": 2}
        log = store.open_dataset(store.path_of("log", run), "log")
        assert log.sizes["epoch"] == 2
    assert cli.main(["validate", str(places.data())]) == 0
    assert "12 datasets, 0 with faults" in capsys.readouterr().out


def test_a_second_run_does_nothing(world, capsys, monkeypatch):
    monkeypatch.setattr(attacked_logits, "attack", None)
    before = {p: p.stat().st_mtime_ns for p in world.rglob("*") if p.is_file()}
    assert cli.main(["run", "table2", "--seed", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert before == {p: p.stat().st_mtime_ns for p in world.rglob("*") if p.is_file()}


def test_students_were_held_to_the_manipulated_targets(world, toy_sheets):
    options = pipeline.Options(images=toy_sheets)
    student = recipes.recipe("correct-fix-1")
    made, about = pipeline.student_targets(student, 0, options)
    teacher = pipeline.teacher_logits("at", student, 0, options)
    assert about["target_error"] == 0.0
    assert about["teacher_training_error"] > 0
    np.testing.assert_array_equal(np.sort(made, 1), np.sort(teacher["logits"].values, 1))
    log = store.open_dataset(store.path_of("log", student.run(0)))
    assert log.attrs["teacher_training_error"] == about["teacher_training_error"]
    hybrid, _ = pipeline.student_targets(recipes.recipe("hybrid"), 0, options)
    partner = pipeline.teacher_logits("st", student, 0, options)["logits"].values
    np.testing.assert_array_equal(hybrid, manipulations.hybrid(teacher["logits"].values, partner))


def test_the_teacher_is_the_epoch_of_the_best_trade_off(world):
    log = store.open_dataset(store.path_of("log", "cifar10-small-at-seed0"))
    score = log["validation_accuracy"].values + log["validation_robust_accuracy"].values
    assert log.attrs["evaluated_epoch"] == log["epoch"].values[score.argmax()]
    assert "validation" in log.attrs["evaluated_because"]


def test_targets_average_batch_statistics_and_leave_the_teacher_alone(world, toy_sheets):
    student = recipes.recipe("normal")
    teacher = Checkpoint.load(pipeline.stored_checkpoint("cifar10-small-at-seed0"))
    model = distill._in_batch_mode(teacher, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model(torch.rand(16, 3, 32, 32))
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if "num_batches" not in n)
    made = pipeline.teacher_logits("at", student, 0, pipeline.Options(images=toy_sheets))
    assert made.attrs["passes"] == 5
    assert made["logits"].shape == (400, 10)


def test_changed_recipes_do_not_pass_for_stored_ones(world, capsys, monkeypatch):
    monkeypatch.setitem(recipes.SCALES["small"], "epochs", 3)
    assert cli.main(["run", "st", "--seed", "0"]) == 1
    assert "expected results of recipe" in capsys.readouterr().err


def test_without_validation_images_the_last_epoch_stands_for_the_run(
    toy_world, toy_sheets, capsys, monkeypatch
):
    everything = dataclasses.replace(toy.spec(), validation_per_class=0)
    monkeypatch.setitem(images.SPECS, "cifar10", everything)
    assert cli.main(["train", "at", "--images", str(toy_sheets), "--device", "cpu"]) == 0
    assert "epoch 2 of 2 stands for the run; training accuracy" in capsys.readouterr().out
    log = store.open_dataset(store.path_of("log", "cifar10-small-at-seed0"), "log")
    assert log.attrs["training_images"] == 10 * toy.TRAIN
    assert log.attrs["evaluated_because"].startswith("last epoch: no images are set aside")
    assert np.isnan(log["validation_accuracy"].values).all()


def test_verification_engines_store_beside_the_main_results(world, toy_sheets, capsys):
    arguments = ["attack", "at", "--engine", "odi", "--limit", "20", "--images", str(toy_sheets)]
    assert cli.main(arguments) == 0
    path = places.data() / "logits" / "odi" / "cifar10-small-at-seed0.nc"
    found = store.open_dataset(path)
    assert found.sizes["sample"] == 20
    assert found["attack"].values.tolist() == ["odi"]
    assert "of 20 images" in capsys.readouterr().out


def test_other_settings_never_pass_for_the_stored_ones(world, toy_sheets, capsys):
    main = store.path_of("logits", "cifar10-small-st-seed0")
    before = main.read_bytes()
    images = ["--images", str(toy_sheets)]
    assert cli.main(["attack", "st", "--eps", "4/255", "--iterations", "5", *images]) == 0
    path = places.data() / "logits" / "repro" / "cifar10-small-st-seed0.nc"
    assert str(path) in capsys.readouterr().out
    stored = json.loads(store.open_dataset(path).attrs["evaluation"])
    assert (stored["eps"], stored["iterations"]) == (4 / 255, 5)
    for other in (["--eps", "2/255", "--iterations", "5"], ["--limit", "10"]):
        assert cli.main(["attack", "st", *other, *images]) == 1
        printed = capsys.readouterr().err
        assert "expected an evaluation by" in printed
        assert len(printed.splitlines()) == 1
    assert main.read_bytes() == before


def test_list_and_show(world, capsys):
    assert cli.main(["list"]) == 0
    assert "logits/cifar10-small-hybrid-seed0.nc" in capsys.readouterr().out
    assert cli.main(["show", str(store.path_of("logits", "cifar10-small-at-seed0"))]) == 0
    printed = capsys.readouterr().out
    assert "recipe_hash" in printed
    assert "adversarial_logits" in printed


def test_train_and_distill_report_the_epoch(world, toy_sheets, capsys):
    assert cli.main(["train", "at", "--images", str(toy_sheets)]) == 0
    assert cli.main(["distill", "normal", "--images", str(toy_sheets)]) == 0
    printed = capsys.readouterr().out
    assert "cifar10-small-at-seed0: epoch" in printed
    assert "cifar10-small-normal-seed0: epoch 2 of 2" in printed


def test_checkpoints_of_one_seed_are_stored(world):
    stored = sorted(p.name for p in (places.data() / "checkpoints").iterdir())
    names = [f"cifar10-small-{name}-seed0.safetensors" for name in recipes.plan("table2", "small")]
    assert stored == sorted(names)
    st = recipes.recipe("st")
    kept = Checkpoint.load(places.data() / "checkpoints" / f"{st.run(0)}.safetensors")
    assert kept.weights_sha256 == Checkpoint.load(epoch_file(st, 0, 2)).weights_sha256


def test_fetch_verifies_a_folder(toy_world, toy_sheets, capsys):
    assert cli.main(["fetch", "--images", str(toy_sheets)]) == 0
    assert "cifar10 validation: 100 images, content verified" in capsys.readouterr().out
    sheet = images.stored_sheet("cifar10")
    kept = toy.parts()["test"][0][: images.SHEET_IMAGES]
    np.testing.assert_array_equal(images.read_sheet(sheet), kept)
    assert store.registry(sheet) == files.sha256(sheet)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "table9"],
        ["run", "st", "--images", "/nowhere"],
        ["validate", "/nowhere"],
        ["show", "/nowhere.nc"],
        ["list", "--data", "/nowhere"],
        ["fetch", "--dataset", "mnist"],
        ["train", "st", "--device", "cudda"],
        ["attack", "st", "--engine", "fgsm"],
        ["attack", "st", "--eps", "8"],
        ["attack", "st", "--restarts", "0"],
    ],
)
def test_errors_are_one_line_and_exit_code_1(arguments, toy_world, capsys):
    assert cli.main(arguments) == 1
    printed = capsys.readouterr()
    lines = (printed.err or printed.out).strip().splitlines()
    assert lines
    assert "Traceback" not in printed.err
    assert len(printed.err.strip().splitlines()) <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "normal"],
        ["run", "st", "--seed", "-1"],
        ["run", "st", "--scale", "huge"],
        ["attack", "st", "--eps", "8/0"],
        ["attack", "st", "--limit", "none"],
        ["run", "st", "--threads", "0"],
        ["validate", ""],
        ["plan", "--price", "-1"],
        ["plan", "--price", "nan"],
        ["run", "paper", "--budget", "0s"],
        ["run", "paper", "--budget", "soon"],
        [],
    ],
)
def test_usage_errors_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_debug_shows_the_traceback(toy_world):
    with pytest.raises(Exception, match="unknown recipe"):
        cli.main(["run", "table9", "--debug"])


def test_logits_by_epoch_are_those_of_the_kept_checkpoints(world, toy_sheets, capsys, monkeypatch):
    monkeypatch.setattr(history, "EPOCH_IMAGES", 150)
    arguments = ["run", "figure1", "--seed", "0", "--images", str(toy_sheets)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("logits by epoch") == 2
    found = store.open_dataset(store.path_of("epochs", "cifar10-small-at-seed0"), "epochs")
    other = store.open_dataset(store.path_of("epochs", "cifar10-small-st-seed0"), "epochs")
    assert found["epoch"].values.tolist() == [1, 2]
    assert found["test"].values.sum() == 100
    assert (~found["test"].values).sum() == 150
    np.testing.assert_array_equal(found["index"], other["index"])
    for name, part in (("test", found["test"].values), ("train", ~found["test"].values)):
        data = images.load("cifar10", name, toy_sheets)
        position = {index: i for i, index in enumerate(data.index)}
        some = data.take(np.array([position[i] for i in found["index"].values[part]]))
        np.testing.assert_array_equal(some.labels, found["label"].values[part])
        for row, epoch in enumerate((1, 2)):
            checkpoint = Checkpoint.load(epoch_file(recipes.recipe("at"), 0, epoch))
            logits = network.natural_logits(checkpoint.model(10), some.images, "cpu")
            ordered = np.sort(logits, 1)
            for variable, column in (("largest", -1), ("second", -2)):
                values = found[variable].values[row, part]
                np.testing.assert_allclose(values, ordered[:, column], atol=1 / 128 + 1e-3)
                assert (values * 64 == np.round(values * 64)).all()
    monkeypatch.setattr(history, "by_epoch", None)
    assert cli.main(arguments) == 0


def test_sweeps_come_after_the_tables_of_every_seed(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(pipeline, "recorded", lambda r, s, o: made.append((r.name, s)) or tmp_path)
    monkeypatch.setattr(pipeline, "recorded_by_epoch", lambda r, s, o: tmp_path)
    monkeypatch.setattr(cli, "_print_accuracy", lambda path: None)
    assert cli.main(["run", "figures", "--seed", "1", "2"]) == 0
    tables = [(n, s) for s in (1, 2) for n in recipes.plan("table2", "small")]
    assert made[: len(tables)] == tables
    sweeps = [n for n in recipes.names("small") if n not in recipes.plan("table2", "small")]
    assert sorted(made[len(tables) :]) == sorted((n, s) for s in (1, 2) for n in sweeps)
