"""Given networks: kept under a name, attacked, and teaching."""

import numpy as np
import pytest
import torch
from torch import nn

from logit_distributions import cli, images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job
from logit_distributions.make import run
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.logits import rounded
from logit_distributions.make.network import Guarded, natural_logits
from tests import others

GIVEN = "small+given-mine"


@pytest.fixture
def adopted(toy_world):
    """The folder of a world in which a network is given."""
    arguments = [
        "adopt", "mine", "--checkpoint", others.weights(toy_world, ".pt"),
        "--model", "tests.others:own_network",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0
    return toy_world


def test_a_given_network_is_attacked_and_teaches(adopted, toy_sheets, capsys, monkeypatch):
    arguments = ["make", "at", "normal", "hybrid", "--scale", GIVEN, "--seed", "0"]
    arguments += ["--images", str(toy_sheets)]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    at, normal, hybrid = (recipes.recipe(name, GIVEN) for name in ("at", "normal", "hybrid"))
    stored = store.open_dataset(store.path_of("logits", at.run(0)), "logits")
    assert (stored.attrs["method"], stored.attrs["scale"]) == ("given", GIVEN)
    test = images.load("cifar10", "test", toy_sheets)
    logits = natural_logits(Guarded(others.own_network().eval()), test.images, "cpu")
    np.testing.assert_array_equal(stored["logits"].values, rounded(logits))
    taught = store.open_dataset(Job("targets", at, 0).path, "targets")
    wrong = (taught["logits"].values.argmax(1) != taught["label"].values).mean()
    for student in (normal, hybrid):
        log = store.open_dataset(store.path_of("log", student.run(0)), "log").attrs
        assert log["teacher_run"] == at.run(0)
        assert log["teacher_training_error"] == pytest.approx(wrong)
        assert store.path_of("logits", student.run(0)).exists()
    assert Job("targets", recipes.recipe("st", GIVEN), 0).path.exists()  # hybrid's partner
    assert not store.path_of("log", at.run(0)).exists()
    capsys.readouterr()
    monkeypatch.setattr(run, "STAGES", {})  # everything is stored
    assert cli.main(arguments) == 0


def test_a_given_network_whose_factory_has_changed_is_one_line(adopted, monkeypatch):
    monkeypatch.setattr(
        others, "own_network", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    )
    with pytest.raises(ReproError, match="weights do not fit"):
        Checkpoint.of(Job("checkpoint", recipes.recipe("at", GIVEN), 0)).model(10)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["make", "normal", "--scale", "small+given-other"], "no network of this name was given"),
        (["make", "log/at", "--scale", GIVEN], "is given, so it is not trained"),
        (["adopt", "mine", "--checkpoint", "{}/other.pt"], "holds other weights"),
        (["adopt", "a/b", "--checkpoint", "{}/other.pt"], "expected letters, digits"),
        (["adopt", "wide", "--checkpoint", "{}/hundred.pt"], "10 logits, got 100"),
        (
            ["adopt", "small", "--checkpoint", "{}/small.pt"],
            "takes images of shape (2, 3, 32, 32) and returns logits",
        ),
    ],
)
def test_what_is_wrong_with_a_given_network_is_one_line(
    arguments, problem, adopted, toy_sheets, capsys
):
    state = others.own_network().state_dict()
    torch.save({name: each + 1 for name, each in state.items()}, adopted / "other.pt")
    torch.save(others.hundred().state_dict(), adopted / "hundred.pt")
    torch.save(others.of_small_images().state_dict(), adopted / "small.pt")
    capsys.readouterr()
    if arguments[0] == "adopt":
        networks = {"wide": "hundred", "small": "of_small_images"}
        network = networks.get(arguments[1], "own_network")
        arguments = [*arguments, "--model", f"tests.others:{network}"]
    else:
        arguments = [*arguments, "--images", str(toy_sheets)]
    assert cli.main([each.format(adopted) for each in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error


def test_a_given_network_that_computes_something_else_is_one_line(adopted, monkeypatch, capsys):
    job = Job("checkpoint", recipes.recipe("at", GIVEN), 0)
    Checkpoint.of(job).model(10)
    line = (
        "tests.others:{}: expected the network that was adopted, got one that computes other "
        "logits with the same weights; likely its code was changed: adopt it under another name"
    )
    arguments = ["adopt", "mine", "--checkpoint", others.weights(adopted, ".pt"), "--model"]
    assert cli.main([*map(str, arguments), "tests.others:normalised_network"]) == 1
    refused = capsys.readouterr().err
    assert refused == f"logitdist: error: {line.format('normalised_network')}\n"
    assert cli.main([*map(str, arguments), "tests.others:own_network"]) == 0
    corrected = others.normalised_network()
    monkeypatch.setattr(others, "own_network", lambda: corrected)
    with pytest.raises(ReproError) as changed:
        Checkpoint.of(job).model(10)
    assert str(changed.value) == line.format("own_network")


def test_a_network_that_draws_is_not_adopted(toy_world, capsys):
    arguments = ["adopt", "mine", "--checkpoint", others.weights(toy_world, ".pt"), "--model"]
    assert cli.main([*map(str, arguments), "tests.others:noisy_network"]) == 1
    assert capsys.readouterr().err == (
        "logitdist: error: tests.others:noisy_network: expected a network that computes, got one "
        "that gives other logits for the same images twice; likely dropout or noise in its "
        "forward\n"
    )
