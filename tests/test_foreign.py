"""Networks of others: capacities and logits, and what is wrong with a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from logit_distributions import cli, images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job
from logit_distributions.make import run
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.logits import rounded
from logit_distributions.make.network import laid_out, natural_logits, state_of
from logit_distributions.read import describe, distribution
from tests import toy
from tests.conftest import STORED


def own_network() -> nn.Module:
    """Return a network that is not ours."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(1800, 10)
    )


def hundred() -> nn.Module:
    """Return a network of a hundred classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))


def of_small_images() -> nn.Module:
    """Return a network for images of 16 x 16 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 10))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder, which is the cache too."""
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    return tmp_path


def weights(folder, suffix):
    path, state = folder / f"mine{suffix}", own_network().state_dict()
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3}, path)
    return path


def pictures(folder, form):
    pixels, labels = toy.arrays(1, 5)
    if form == "npz":
        np.savez(folder / "images.npz", images=pixels, labels=labels)
        return folder / "images.npz"
    (folder / "pictures").mkdir()
    for i, each in enumerate(pixels):
        Image.fromarray(each.transpose(1, 2, 0)).save(folder / "pictures" / f"{i:02d}.png")
    return folder / "pictures"


@pytest.mark.parametrize(("suffix", "form"), [(".safetensors", "npz"), (".pt", "folder")])
def test_anybodys_network_is_measured(suffix, form, place, capsys):
    output = place / "mine.nc"
    arguments = [
        "capacity", "--checkpoint", weights(place, suffix), "--images", pictures(place, form),
        "--model", "tests.test_foreign:own_network", "--exemplars", "5", "--points", "4",
        "--draws", "6", "--output", output, "--threads", "2",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    found = store.open_dataset(output, "capacity")
    assert found["layer"].values.tolist() == ["input", "0", "1", "2", "3"]
    assert dict(found.sizes) == {"layer": 5, "manifold": 5, "draw": 6}
    assert "mine: adversarial manifolds, P = 5, M = 4" in printed
    assert str(output) in printed


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("tests.test_foreign:nothing", "expected MODULE:FUNCTION"),
        ("tests.test_foreign", "expected MODULE:FUNCTION"),
        ("tests.toy:spec", "expected a torch module, got Spec"),
        ("torch.nn:Identity", "weights do not fit the network"),
        (None, "expected --model MODULE:FUNCTION beside it"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_line(model, problem, place, capsys):
    more = ["--model", model] if model else []
    path = str(weights(place, ".safetensors"))
    images_of = str(pictures(place, "npz"))
    assert cli.main(["capacity", "--checkpoint", path, "--images", images_of, *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error


def test_weights_and_images_that_are_none_are_refused(place):
    (place / "no.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ReproError, match="weights-only"):
        state_of(place / "no.pt")
    np.savez(place / "no.npz", images=np.zeros((2, 3, 4, 4)))
    with pytest.raises(ReproError, match="images are float64"):
        images.of_yours(place / "no.npz")


def test_logits_of_anybodys_network_stand_beside_the_stored_ones(place, capsys):
    output = place / "mine.nc"
    state = {f"module.{name}": each for name, each in own_network().state_dict().items()}
    torch.save({"state_dict": state}, place / "mine.pt")
    arguments = [
        "attack", "--checkpoint", place / "mine.pt", "--model", "tests.test_foreign:own_network",
        "--limit", "40", "--iterations", "5", "--output", output,
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    found = store.open_dataset(output, "logits")
    assert dict(found.sizes) == {"sample": 40, "class": 10, "attack": 2}
    at = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    np.testing.assert_array_equal(found["label"], at["label"][:40])
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert {"mine", "ST, scale small", "AT, scale small"} <= rows.keys()
    shown = [float(number) for number in rows["mine"].split()[1:]]
    assert shown == pytest.approx(list(describe.profile(found).values()), abs=0.006)


def test_a_profile_holds_the_plain_statistics():
    at = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    found, logits = describe.profile(at), at["logits"].values
    robust = at["robust"].values[-1]
    order = np.argsort(distribution.logit_gap(logits))
    quarter = len(order) // 4
    assert found["low"] == pytest.approx(100 * robust[order[:quarter]].mean(), abs=0.1)
    assert found["high"] == pytest.approx(100 * robust[order[-quarter:]].mean(), abs=0.1)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found["sure"] == pytest.approx(softmax.max(1).mean())
    assert found["max"] == pytest.approx(logits.max(1).mean())


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ([], "expected a recipe, or --checkpoint"),
        (["st", "--checkpoint", "mine.pt"], "expected a recipe, or --checkpoint"),
        (["--checkpoint", "{}", "--model", "tests.test_foreign:hundred"], "10 logits, got 100"),
    ],
)
def test_an_attack_on_nothing_or_on_the_wrong_thing_is_one_line(more, problem, place, capsys):
    torch.save(hundred().state_dict(), place / "hundred.pt")
    more = [each.format(place / "hundred.pt") for each in more]
    assert cli.main(["attack", "--limit", "20", *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error


GIVEN = "small+given-mine"


@pytest.fixture
def adopted(toy_world):
    """The folder of a world in which a network is given."""
    arguments = [
        "adopt", "mine", "--checkpoint", weights(toy_world, ".pt"),
        "--model", "tests.test_foreign:own_network",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0
    return toy_world


def test_a_given_network_is_attacked_and_teaches(adopted, toy_sheets, capsys, monkeypatch):
    arguments = ["make", "at", "normal", "hybrid", "--scale", GIVEN, "--seed", "0"]
    arguments += ["--images", str(toy_sheets)]
    assert cli.main(arguments) == 0, capsys.readouterr().err
    at, normal, hybrid = (recipes.recipe(name, GIVEN) for name in ("at", "normal", "hybrid"))
    found = store.open_dataset(store.path_of("logits", at.run(0)), "logits")
    assert (found.attrs["method"], found.attrs["scale"]) == ("given", GIVEN)
    test = images.load("cifar10", "test", toy_sheets)
    logits = natural_logits(laid_out(own_network().eval()), test.images, "cpu")
    np.testing.assert_array_equal(found["logits"].values, rounded(logits))
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
    monkeypatch.setitem(
        globals(), "own_network", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
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
        (["adopt", "small", "--checkpoint", "{}/small.pt"], "takes images of 32 x 32 pixels"),
    ],
)
def test_what_is_wrong_with_a_given_network_is_one_line(
    arguments, problem, adopted, toy_sheets, capsys
):
    state = own_network().state_dict()
    torch.save({name: each + 1 for name, each in state.items()}, adopted / "other.pt")
    torch.save(hundred().state_dict(), adopted / "hundred.pt")
    torch.save(of_small_images().state_dict(), adopted / "small.pt")
    capsys.readouterr()
    if arguments[0] == "adopt":
        networks = {"wide": "hundred", "small": "of_small_images"}
        network = networks.get(arguments[1], "own_network")
        arguments = [*arguments, "--model", f"tests.test_foreign:{network}"]
    else:
        arguments = [*arguments, "--images", str(toy_sheets)]
    assert cli.main([each.format(adopted) for each in arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error
