"""What becomes of logits on their way to a dataset; an attack in slices of time."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from logit_distributions import Evaluation, cli, evaluate, images, recipes, replay, store
from logit_distributions.errors import ReproError
from logit_distributions.make import logits as attacked_logits
from logit_distributions.make import premises, trial
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.network import ResNet18
from logit_distributions.make.options import Budget, Machine, Options, OutOfTime
from logit_distributions.read import describe
from logit_distributions.recipes import ENGINES
from tests import miniature, naive, others, toy
from tests.conftest import STORED
from tests.test_network import View

logits = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(2, 6)),
    # Steps of 1/4096 near each other, so that some become equal.
    elements=st.integers(-40, 40).map(lambda v: 3 + v / 4096),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(logits)
def test_rounding_equals_naive_and_changes_no_prediction(given_logits):
    stored = attacked_logits.rounded(given_logits)
    expected = [naive.rounded(row, 1024) for row in given_logits.tolist()]
    np.testing.assert_array_equal(stored, np.float32(expected))
    np.testing.assert_array_equal(stored.argmax(1), given_logits.argmax(1))
    assert np.abs(stored - given_logits).max() <= 1 / 2048
    np.testing.assert_array_equal(attacked_logits.rounded(stored), stored)


def test_logits_of_anybodys_network_stand_beside_the_stored_ones(place, capsys):
    output = place / "mine.nc"
    state = {f"module.{name}": each for name, each in others.own_network().state_dict().items()}
    torch.save({"state_dict": state}, place / "mine.pt")
    arguments = [
        "attack", "--checkpoint", place / "mine.pt", "--model", "tests.others:own_network",
        "--limit", "40", "--iterations", "5", "--output", output,
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    stored = store.open_dataset(output, "logits")
    assert dict(stored.sizes) == {"sample": 40, "class": 10, "attack": 2}
    at = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    np.testing.assert_array_equal(stored["label"], at["label"][:40])
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert {"mine", "ST, scale small", "AT, scale small"} <= rows.keys()
    assert rows["mine"].split()[1:5] == ["40", "repro", "8/255", "5it"]
    cells = re.sub(r"\[.*?\]", "", rows["mine"]).split()[6:]
    shown = [float(number) for number in cells]
    assert shown == pytest.approx(list(describe.profile(stored).values()), abs=0.006)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ([], "expected a recipe, or --checkpoint"),
        (["st", "--checkpoint", "mine.pt"], "expected a recipe, or --checkpoint"),
        (["--checkpoint", "{}", "--model", "tests.others:hundred"], "10 logits, got 100"),
    ],
)
def test_an_attack_on_nothing_or_on_the_wrong_thing_is_one_line(more, problem, place, capsys):
    torch.save(others.hundred().state_dict(), place / "hundred.pt")
    more = [each.format(place / "hundred.pt") for each in more]
    assert cli.main(["attack", "--limit", "20", *more]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert problem in error


# A network in memory


def published():
    """Return the published weights of ``at`` in a plain torch module."""
    path = STORED / "checkpoints" / f"{recipes.recipe('at').run(0)}.safetensors"
    weights = {k[6:]: v for k, v in Checkpoint.load(path).tensors.items() if k[:6] == "model."}
    model = ResNet18(10, 8)
    model.load_state_dict(weights)
    return model.eval()


def first_images(count):
    data = images.stored("cifar10")
    pixels = torch.from_numpy(data.images[:count]).float().div(255)
    return pixels, torch.from_numpy(data.labels[:count])


def test_the_published_network_gives_the_stored_verdicts(tmp_path):
    pixels, labels = first_images(100)
    dataset = evaluate(published(), pixels, labels, name="at", progress=False)
    stored = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    some = stored.isel(sample=slice(100))
    assert dataset.attrs["checkpoint_sha256"] == stored.attrs["checkpoint_sha256"]
    np.testing.assert_array_equal(dataset["label"], some["label"])
    np.testing.assert_allclose(dataset["logits"], some["logits"], atol=2e-3)
    agree = dataset["robust"].values == some["robust"].values
    assert agree.mean() > 0.99  # on another processor a verdict on the boundary may be another
    assert json.loads(dataset.attrs["remarks"]) == []
    assert json.loads(dataset.attrs["evaluation"]) == json.loads(stored.attrs["evaluation"])
    dataset.to_netcdf(tmp_path / "plain.nc")
    assert store.open_dataset(tmp_path / "plain.nc", "logits").equals(dataset)
    store.write(dataset, tmp_path / "written.nc")
    assert store.validate(tmp_path / "written.nc") == []


QUICK = Evaluation(iterations=5)


def test_parts_of_a_set_have_the_verdicts_of_the_whole():
    pixels, labels = first_images(30)
    model = published()
    whole = evaluate(model, pixels, labels, QUICK, progress=False)
    numbers = torch.arange(30, dtype=torch.int32)
    parts = [
        evaluate(model, pixels[some], labels[some], QUICK, index=numbers[some], progress=False)
        for some in (slice(13), slice(13, 30))
    ]
    for name in ("robust", "index", "label"):
        axis = 1 if name == "robust" else 0
        joined = np.concatenate([part[name].values for part in parts], axis)
        np.testing.assert_array_equal(joined, whole[name])


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_labels_of_any_whole_numbers_are_taken(kind):
    pixels, labels = first_images(4)
    first = evaluate(published(), pixels, labels, QUICK, progress=False)
    again = evaluate(published(), pixels, labels.to(kind), QUICK, progress=False)
    np.testing.assert_array_equal(first["robust"], again["robust"])


def test_neither_the_network_nor_the_images_are_changed():
    pixels, labels = first_images(4)

    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = published()

        def forward(self, images):
            return self.inner(images.mul_(0.9).add_(0.05))

    model, before = InPlace().eval(), pixels.clone()
    flags = [each.requires_grad for each in model.parameters()]
    for layout in (torch.contiguous_format, torch.channels_last):
        given = pixels.contiguous(memory_format=layout)
        evaluate(model, given, labels, QUICK, progress=False)
        assert torch.equal(given, before)
    assert [each.requires_grad for each in model.parameters()] == flags
    assert not model.training


def test_evaluate_works_inside_inference_mode_and_of_one_image():
    pixels, labels = first_images(1)
    model = published()
    outside = evaluate(model, pixels, labels, QUICK, progress=False)
    with torch.inference_mode():
        inside = evaluate(model, pixels + 0, labels + 0, QUICK, progress=False)
    np.testing.assert_array_equal(outside["robust"], inside["robust"])


def test_a_device_that_is_not_there_is_one_line():
    pixels, labels = first_images(1)
    with pytest.raises(ReproError) as refused:
        evaluate(published(), pixels, labels, QUICK, device="gpu")
    assert str(refused.value) == "unknown device 'gpu': expected cpu, cuda or cuda:N"


# What was unfinished


def test_a_part_is_gone_on_with_only_by_a_network_that_computes_the_same(place, monkeypatch):
    monkeypatch.setattr(trial, "CPU_IMAGES", 10)
    data = images.stored("cifar10").take(np.arange(30))
    partial, options = place / "part.npz", Options(Machine("cpu", "float32"))
    path = others.weights(place, ".pt")

    class Some(Budget):
        def check(self, what):
            if "image 20" in what:
                raise OutOfTime("enough")

    def attack(factory, budget=None):
        how = Options(Machine("cpu", "float32"), budget=budget) if budget else options
        return attacked_logits.of_yours(path, f"tests.others:{factory}", data, QUICK, how, partial)

    with pytest.raises(OutOfTime):
        attack("own_network", Some())
    assert partial.exists()
    counted = []
    verdicts = attacked_logits.verdicts
    monkeypatch.setattr(
        attacked_logits, "verdicts", lambda *a: (counted.append(len(a[1])), verdicts(*a))[1]
    )
    first = attack("own_network")
    assert sum(counted) == 10  # the third chunk only
    corrected = attack("normalised_network")
    assert sum(counted) == 10 + 30
    assert not np.allclose(first["logits"], corrected["logits"])


def test_another_factory_for_the_same_weights_gives_its_own_numbers(place, capsys):
    path = others.weights(place, ".pt")
    natural = []
    for factory in ("own_network", "normalised_network", "own_network"):
        arguments = [
            "attack", "--checkpoint", path, "--model", f"tests.others:{factory}", "--limit", "40",
            "--iterations", "3", "--output", place / "mine.nc",
        ]  # fmt: skip
        assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
        natural.append(store.open_dataset(place / "mine.nc")["logits"].values)
        assert not list((place / "attacks").glob("*"))
    assert not np.allclose(natural[0], natural[1])
    np.testing.assert_array_equal(natural[0], natural[2])


# The command


def test_the_fetched_images_serve_where_none_are_stored(toy_world, toy_sheets, capsys):
    assert cli.main(["fetch", "--images", str(toy_sheets)]) == 0
    images.stored_sheet("cifar10").unlink()
    images.write_cache("cifar10", images.fetch(images.spec_of("cifar10"), toy_sheets))
    arguments = ["attack", "--checkpoint", others.weights(toy_world, ".pt"), "--model",
                 "tests.others:own_network", "--limit", "20", "--iterations", "2", "--output",
                 toy_world / "mine.nc"]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0, capsys.readouterr().err
    assert store.open_dataset(toy_world / "mine.nc").sizes["sample"] == 20


REFUSED = {
    (
        "--limit",
        "10001",
    ): "--limit: expected at most 10,000, the test images of cifar10, got 10,001",
    ("--dataset", "mnist"): "unknown data set 'mnist': expected one of cifar10, cifar100",
    ("--scale", "paper"): "--scale: does not apply to --checkpoint",
    ("--seed", "1"): "--seed: does not apply to --checkpoint",
    ("--precision", "bfloat16"): "--precision: does not apply to --checkpoint",
    ("--save-every", "9"): "--save-every: does not apply to --checkpoint",
    ("--engine", "odi", "--iterations", "9"): "--iterations: does not apply to the engine odi",
    ("--engine", "autoattack-full", "--restarts", "2"): "--restarts: does not apply to the engine "
    "autoattack-full",
    ("--eps", "0"): "eps: expected a length in (0, 1], got 0.0; natural accuracy needs no attack",
    ("--eps", "-0.1"): "eps: expected a length in (0, 1], got -0.1; 8/255 is usual",
    ("--output", "{place}"): "--output {place}: expected a file, got a folder",
    ("--output", "{place}/mine.pt/a.nc"): "--output {place}/mine.pt/a.nc: cannot be written, as "
    "{place}/mine.pt is no writable folder",
}


@pytest.mark.parametrize("more", REFUSED, ids=" ".join)
def test_what_an_attack_refuses_is_one_line_before_it_begins(more, place, capsys, monkeypatch):
    monkeypatch.setattr(attacked_logits, "verdicts", None)
    path = others.weights(place, ".pt")
    arguments = ["attack", "--checkpoint", str(path), "--model", "tests.others:own_network"]
    assert cli.main([*arguments, *(each.format(place=place) for each in more)]) == 1
    line = REFUSED[more].format(place=place)
    assert capsys.readouterr().err == f"logitdist: error: {line}\n"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["st", "--model", "a:b"], "--model: does not apply to a recipe"),
        (["st", "--seed", "0", "1"], "--seed: expected one, got 0 1"),
    ],
)
def test_what_says_nothing_of_a_recipe_is_refused(more, line, place, capsys):
    assert cli.main(["attack", *more]) == 1
    assert capsys.readouterr().err == f"logitdist: error: {line}\n"


def test_an_interrupted_attack_leaves_a_line_and_what_was_finished(place, capsys, monkeypatch):
    monkeypatch.setattr(trial, "CPU_IMAGES", 10)
    verdicts, counted = attacked_logits.verdicts, []

    def interrupted(*arguments):
        counted.append(1)
        if len(counted) == 2:
            raise KeyboardInterrupt
        return verdicts(*arguments)

    monkeypatch.setattr(attacked_logits, "verdicts", interrupted)
    arguments = [
        "attack", "--checkpoint", others.weights(place, ".pt"), "--model",
        "tests.others:own_network", "--limit", "20", "--iterations", "3",
        "--output", place / "mine.nc",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 130
    assert capsys.readouterr().err == "logitdist: stopped; the same command resumes\n"
    assert not (place / "mine.nc").exists()
    assert cli.main([*map(str, arguments)]) == 0
    assert len(counted) == 3  # the first chunk was kept


def test_a_failed_premise_is_printed_before_the_attack_and_below_the_table(place, capsys):
    arguments = [
        "attack", "--checkpoint", others.weights(place, ".pt"), "--model",
        "tests.others:noisy_network", "--limit", "20", "--iterations", "3",
        "--output", place / "mine.nc",
    ]  # fmt: skip
    assert cli.main([*map(str, arguments)]) == 0
    printed = capsys.readouterr()
    line = f"mine: {premises.FAILURES['random']}"
    assert printed.err == f"logitdist: warning: {line}\n"
    assert f"\n{line}.\n" in printed.out


@pytest.mark.parametrize("engine", ["autoattack", "autoattack-full", "odi"])
def test_every_engine_attacks_a_network_that_views_a_convolution(engine):
    torch.manual_seed(0)
    model = View().eval()
    pixels, _ = first_images(4)
    with torch.no_grad():
        labels = model(pixels.clone()).argmax(1)
    dataset = evaluate(model, pixels, labels, Evaluation(engine), progress=False)
    assert dataset["robust"].values[-1].sum() == 0
    assert dataset["attack"].values.tolist() == list(recipes.ENGINES[engine])


# The strongest images


def test_kept_images_are_judged_again(tmp_path):
    pixels, labels = first_images(20)
    model = published()
    dataset = evaluate(model, pixels, labels, QUICK, progress=False, keep_images=True)
    store.write(dataset, tmp_path / "mine.nc")
    dataset = store.open_dataset(tmp_path / "mine.nc")
    np.testing.assert_array_equal(dataset["images"], pixels)
    judged = replay(dataset, model, batch=7)
    robust = dataset["robust"].values[-1]
    assert 0 < robust.sum() < 20
    assert judged["agrees"].values.all()
    np.testing.assert_array_equal(judged["misclassified"], ~robust)
    moved = np.abs(dataset["adversarial_images"].values - pixels.numpy()).max((1, 2, 3))
    assert moved.max() == pytest.approx(8 / 255, abs=1e-6)
    natural = dataset["logits"].values.argmax(1) == labels.numpy()
    assert (moved[natural] > 0).all()
    assert (moved[~natural] == 0).all()


def test_images_that_were_tampered_with_do_not_agree():
    pixels, labels = first_images(3)
    model = published()
    dataset = evaluate(model, pixels, labels, QUICK, progress=False, keep_images=True)
    dataset["adversarial_images"][0] += 0.5
    dataset["adversarial_images"][1] = -dataset["adversarial_images"][1]
    judged = replay(dataset, model)
    assert judged["in_ball"].values.tolist() == [False, False, True]
    assert not judged["in_box"].values[1]
    assert judged["agrees"].values.tolist() == [False, False, True]


def test_a_dataset_without_images_is_one_line():
    stored = store.open_dataset(STORED / "logits" / f"{recipes.recipe('at').run(0)}.nc")
    with pytest.raises(ReproError) as refused:
        replay(stored, published())
    assert str(refused.value) == (
        "expected a dataset with adversarial images, got one without; evaluate keeps them with "
        "keep_images=True"
    )


def attacked(model, data, settings, budget, partial=None):
    options = Options(Machine("cpu", "float32"), budget=budget)
    return attacked_logits.attack(model, data, settings, options, ("toy", "0"), partial)


@pytest.mark.parametrize("engine", [e for e in ENGINES if "square" not in ENGINES[e]])
def test_an_attack_is_cut_within_a_chunk_and_goes_on_to_the_same_bits(
    engine, tmp_path, monkeypatch
):
    monkeypatch.setattr(trial, "CPU_IMAGES", 10)
    torch.manual_seed(0)
    model = ResNet18(10, 8).eval()
    pixels, labels = toy.arrays(2, 2)
    labels[:] = model(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()
    data = images.ImageSet(pixels, labels, np.arange(20), images.CIFAR10.classes, "")
    settings = Evaluation(engine, eps=1e-4, iterations=6)
    plenty = miniature.spent_after(1000)(60)
    whole = attacked(model, data, settings, plenty)
    in_second_chunk = (1000 - plenty.left) * 3 // 4
    partial = tmp_path / "attack.npz"
    with pytest.raises(OutOfTime, match="next comes image 0 of the attack on toy"):
        attacked(model, data, settings, miniature.spent_after(5)(60), partial)
    assert not partial.exists()
    with pytest.raises(OutOfTime, match="next comes image 10 of the attack on toy"):
        attacked(model, data, settings, miniature.spent_after(in_second_chunk)(60), partial)
    kept = partial.read_bytes()
    with pytest.raises(OutOfTime, match="next comes image 10"):
        attacked(model, data, settings, miniature.spent_after(3)(60), partial)
    assert partial.read_bytes() == kept
    again = attacked(model, data, settings, miniature.spent_after(1000)(60), partial)
    for name in ("logits", "adversarial_logits", "robust"):
        np.testing.assert_array_equal(again[name], whole[name])
    assert not model._forward_pre_hooks
