import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import torch

from logit_distributions import cli, images, manipulations, plans, recipes, store
from logit_distributions.jobs import Job, epoch_file, teachers
from logit_distributions.make import distill, history, network, run
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.store import files, places
from tests import toy, warm


@pytest.fixture(scope="module")
def table2(tmp_path_factory, toy_sheets):
    """Run everything behind Table 2 on the toy set, once."""
    folder = tmp_path_factory.mktemp("world")
    environment = os.environ | {
        f"REPRO_{name.upper()}": str(folder / name) for name in ("data", "cache", "build")
    }
    options = ("--seed", "0", "--images", str(toy_sheets), "--threads", "1")
    done = warm.run("tests.toy", "make", "table2", *options, env=environment)
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
    for name in plans.TABLE2:
        stem = f"cifar10-small-{name}-seed0"
        assert f"logits/{name}, seed 0: natural" in printed
        dataset = store.open_dataset(store.path_of("logits", stem), "logits")
        assert json.loads(dataset.attrs["recipe"])["name"] == name
        assert dataset.sizes == {"sample": 100, "class": 10, "attack": 2}
        log = store.open_dataset(store.path_of("log", stem), "log")
        assert log.sizes["epoch"] == 2
    assert cli.main(["validate", str(places.data())]) == 0
    assert "13 files, 0 with faults" in capsys.readouterr().out


def test_a_second_run_does_nothing(world, capsys, monkeypatch):
    monkeypatch.setattr(run, "STAGES", {})
    before = {p: p.stat().st_mtime_ns for p in world.rglob("*") if p.is_file()}
    assert cli.main(["make", "table2", "--seed", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12
    assert before == {p: p.stat().st_mtime_ns for p in world.rglob("*") if p.is_file()}


def test_students_were_held_to_the_manipulated_targets(world):
    student = Job("train", recipes.recipe("correct-fix-1"), 0, 2)
    made, about = distill.student_targets(student)
    (teacher,) = (store.open_dataset(need.path, "targets") for need in teachers(student))
    assert about["target_error"] == 0.0
    assert about["teacher_training_error"] > 0
    np.testing.assert_array_equal(np.sort(made, 1), np.sort(teacher["logits"].values, 1))
    log = store.open_dataset(store.path_of("log", student.run))
    assert log.attrs["teacher_training_error"] == about["teacher_training_error"]
    at, st = (
        store.open_dataset(store.path_of("logits", recipes.recipe(name).run(0))).attrs
        for name in ("at", "st")
    )
    weights = [each["checkpoint_sha256"] for each in (at, st)]
    assert log.attrs["teacher_checkpoint_sha256"] == weights[0]
    hybrid = Job("train", recipes.recipe("hybrid"), 0, 2)
    log = store.open_dataset(store.path_of("log", hybrid.run))
    assert log.attrs["teacher_checkpoint_sha256"] == " ".join(weights)
    targets, _ = distill.student_targets(hybrid)
    robust, standard = (store.open_dataset(n.path)["logits"].values for n in teachers(hybrid))
    np.testing.assert_array_equal(targets, manipulations.hybrid(robust, standard))


def test_weights_of_teachers_are_named_where_all_are_known(world, monkeypatch):
    stored = distill._targets

    def of_own_targets(need):
        targets = stored(need)
        if need.recipe.name == "at":
            del targets.attrs["checkpoint_sha256"]
        return targets

    monkeypatch.setattr(distill, "_targets", of_own_targets)
    for student in ("normal", "hybrid"):
        _, about = distill.student_targets(Job("train", recipes.recipe(student), 0, 2))
        assert "teacher_checkpoint_sha256" not in about


def test_the_teacher_is_the_epoch_of_the_best_trade_off(world):
    log = store.open_dataset(store.path_of("log", "cifar10-small-at-seed0"))
    score = log["validation_accuracy"].values + log["validation_robust_accuracy"].values
    assert log.attrs["evaluated_epoch"] == log["epoch"].values[score.argmax()]
    assert "validation" in log.attrs["evaluated_because"]


def test_targets_average_batch_statistics_and_leave_the_teacher_alone(world):
    teacher = Checkpoint.of(Job("checkpoint", recipes.recipe("at"), 0))
    model = distill.in_batch_mode(teacher, 10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model(torch.rand(16, 3, 32, 32))
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before if "num_batches" not in n)
    made = store.open_dataset(Job("targets", recipes.recipe("at"), 0).path, "targets")
    assert made.attrs["passes"] == 5
    assert made["logits"].shape == (toy.SHOWN, 10)


def test_changed_recipes_do_not_pass_for_stored_ones(world, capsys, monkeypatch):
    longer = dataclasses.replace(recipes.SCALES["small"], epochs=3)
    monkeypatch.setitem(recipes.SCALES, "small", longer)
    assert cli.main(["make", "st", "--seed", "0"]) == 1
    assert "expected results of recipe" in capsys.readouterr().err


def test_without_validation_images_the_last_epoch_stands_for_the_run(
    toy_world, toy_sheets, capsys, monkeypatch
):
    everything = dataclasses.replace(toy.spec(), validation_per_class=0)
    monkeypatch.setitem(images.SPECS, "cifar10", everything)
    arguments = ["make", "log/at", "--seed", "0", "--images", str(toy_sheets), "--device", "cpu"]
    assert cli.main(arguments) == 0
    log = store.open_dataset(store.path_of("log", "cifar10-small-at-seed0"), "log")
    assert log.attrs["training_images"] == 10 * toy.TRAIN
    assert log.attrs["evaluated_because"].startswith("last epoch: no images are set aside")
    assert np.isnan(log["validation_accuracy"].values).all()


def test_verification_is_stored_beside_the_main_results(world, toy_sheets, capsys):
    images = ["--seed", "0", "--images", str(toy_sheets)]
    assert cli.main(["make", "logits/odi/at", *images]) == 0
    dataset = store.open_dataset(store.path_of("logits/odi", "cifar10-small-at-seed0"))
    assert dataset.sizes["sample"] == 100
    assert dataset["attack"].values.tolist() == ["odi"]
    assert "of 100 images" in capsys.readouterr().out


def test_other_settings_go_to_a_file_of_their_own(world, toy_sheets, capsys, tmp_path):
    main = store.path_of("logits", "cifar10-small-st-seed0")
    before = main.read_bytes()
    output = tmp_path / "weaker.nc"
    arguments = ["--eps", "4/255", "--iterations", "5", "--images", str(toy_sheets), "--seed", "0"]
    assert cli.main(["attack", "st", *arguments, "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    settings = json.loads(store.open_dataset(output).attrs["evaluation"])
    assert (settings["eps"], settings["iterations"]) == (4 / 255, 5)
    assert main.read_bytes() == before


def test_other_settings_never_pass_for_the_stored_ones(world, monkeypatch, capsys):
    weaker = dataclasses.replace(recipes.Evaluation(), iterations=5)
    monkeypatch.setattr(recipes, "evaluation", lambda stage, recipe: weaker)
    assert cli.main(["make", "logits/st", "--seed", "0"]) == 1
    error = capsys.readouterr().err
    assert "expected an evaluation by {'engine': 'repro', " in error
    assert len(error.splitlines()) == 1


def test_list_and_show(world, capsys):
    assert cli.main(["list"]) == 0
    assert "logits/cifar10-small-hybrid-seed0.nc" in capsys.readouterr().out
    assert cli.main(["show", str(store.path_of("logits", "cifar10-small-at-seed0"))]) == 0
    printed = capsys.readouterr().out
    assert "recipe_hash" in printed
    assert "adversarial_logits" in printed


def test_the_published_checkpoints_are_stored(world):
    stored = sorted(p.name for p in (places.data() / "checkpoints").iterdir())
    assert stored == [
        f"cifar10-small-{n}-seed0.safetensors" for n in recipes.SCALES["small"].published
    ]
    at = recipes.recipe("at")
    kept = Checkpoint.load(places.data() / "checkpoints" / f"{at.run(0)}.safetensors")
    assert kept.weights_sha256 == Checkpoint.load(epoch_file(at, 0, kept.epoch)).weights_sha256


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
        ["make", "table9"],
        ["make", "st", "--images", "/nowhere"],
        ["validate", "/nowhere"],
        ["show", "/nowhere.nc"],
        ["list", "--data", "/nowhere"],
        ["fetch", "--dataset", "mnist"],
        ["make", "st", "--device", "cudda"],
        ["make", "nosuch/st"],
        ["make", "logits/fgsm/st"],
        ["make", "train/st@3"],
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
        ["attack", "st", "--engine", "fgsm"],
        ["make", "st", "--seed", "-1"],
        ["make", "st", "--scale", "huge"],
        ["attack", "st", "--eps", "8/0"],
        ["attack", "st", "--limit", "none"],
        ["make", "st", "--threads", "0"],
        ["validate", ""],
        ["make", "paper", "--budget", "0s"],
        ["make", "paper", "--budget", "soon"],
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
        cli.main(["make", "table9", "--debug"])


def test_logits_by_epoch_are_those_of_the_kept_checkpoints(world, toy_sheets, capsys, monkeypatch):
    monkeypatch.setattr(history, "EPOCH_IMAGES", 150)
    arguments = ["make", "figure1", "--seed", "0", "--images", str(toy_sheets)]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.count("epochs/") == 4
    stored = store.open_dataset(store.path_of("epochs", "cifar10-small-at-seed0"), "epochs")
    other = store.open_dataset(store.path_of("epochs", "cifar10-small-st-seed0"), "epochs")
    assert stored["epoch"].values.tolist() == [1, 2]
    assert stored["test"].values.sum() == 100
    assert (~stored["test"].values).sum() == 150
    np.testing.assert_array_equal(stored["index"], other["index"])
    for name, part in (("test", stored["test"].values), ("train", ~stored["test"].values)):
        data = images.load("cifar10", name, toy_sheets)
        position = {index: i for i, index in enumerate(data.index)}
        some = data.take(np.array([position[i] for i in stored["index"].values[part]]))
        np.testing.assert_array_equal(some.labels, stored["label"].values[part])
        for row, epoch in enumerate((1, 2)):
            checkpoint = Checkpoint.load(epoch_file(recipes.recipe("at"), 0, epoch))
            natural = network.natural_logits(checkpoint.model(10), some.images, "cpu")
            ordered = np.sort(natural, 1)
            for variable, column in (("largest", -1), ("second", -2)):
                values = stored[variable].values[row, part]
                np.testing.assert_allclose(values, ordered[:, column], atol=1 / 128 + 1e-3)
                assert (values * 64 == np.round(values * 64)).all()
    monkeypatch.setattr(run, "STAGES", {})
    assert cli.main(arguments) == 0


def test_stored_adversarial_images_are_judged_again(
    world, tmp_path, toy_sheets, capsys, monkeypatch
):
    shutil.copytree(world / "data", tmp_path / "copy")
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "copy"))
    monkeypatch.setattr(recipes, "KEPT_IMAGES", 6)
    assert cli.main(["replay"]) == 1
    assert "make some with 'logitdist make adversarial'" in capsys.readouterr().err
    arguments = ["make", "adversarial/st", "adversarial/at", "--seed", "0"]
    assert cli.main([*arguments, "--images", str(toy_sheets)]) == 0, capsys.readouterr().err
    stored = {}
    for name in recipes.TEACHERS:
        path = store.path_of("adversarial", recipes.recipe(name).run(0))
        stored[name] = store.open_dataset(path, "adversarial")
        whole = store.open_dataset(store.path_of("logits", path.stem)).isel(sample=slice(6))
        np.testing.assert_array_equal(stored[name]["robust"].values, whole["robust"].values)
    assert cli.main(["validate"]) == 0
    capsys.readouterr()
    assert cli.main(["replay"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("of 6 images in ball 6, in box 6" in line and "agrees 6" in line for line in lines)
    moved = stored["st"].copy(deep=True)
    moved["adversarial_images"][2] += 9 / 255
    store.write(moved, tmp_path / "moved.nc")
    assert cli.main(["replay", str(tmp_path / "moved.nc")]) == 1
    assert "in ball 5" in capsys.readouterr().out
    other = stored["st"].assign_attrs(checkpoint_sha256="0" * 64)
    store.write(other, tmp_path / "other.nc")
    assert cli.main(["replay", str(tmp_path / "other.nc")]) == 1
    assert "expected the weights behind cifar10-small-st-seed0, got" in capsys.readouterr().err
    theirs = stored["st"].assign_attrs(dataset="given")
    store.write(theirs, tmp_path / "theirs.nc")
    assert cli.main(["replay", str(tmp_path / "theirs.nc")]) == 1
    assert "name it with --checkpoint and --model" in capsys.readouterr().err
