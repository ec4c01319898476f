"""Terms of the register's formulas against slow, obvious ways to the same number."""

from __future__ import annotations

import dataclasses
import json
from itertools import combinations, permutations

import numpy as np
import pytest
import xarray as xr

from logit_distributions import images, recipes, store
from paper.claims import terms
from tests import naive, toy_results

IMAGES = 40


def evaluate(formula, **more):
    return terms.evaluate(formula, "cifar10", "small", **more)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder of made-up results, empty at first."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    terms.forget()
    yield tmp_path
    terms.forget()


def save(stage, name, seed, make=toy_results.logits, **values):
    recipe = recipes.recipe(name)
    made = make(recipe, seed, toy_results.SAMPLES) if stage == "logits" else make(recipe, seed)
    made = made.assign(values)
    store.write(made, store.path_of(stage, recipe.run(seed)))
    return made


def test_share_of_images_whose_largest_logit_rises(world):
    data = save("epochs", "st", 0, toy_results.epochs)
    save("epochs", "st", 1, toy_results.epochs)
    rising = [
        data["largest"].values[-1, i] > data["largest"].values[0, i]
        for i in range(toy_results.SAMPLES)
        if not data["test"].values[i]
    ]
    assert evaluate('share_rising("max", "st")').values[(0,)] == pytest.approx(
        100 * np.mean(rising)
    )


@pytest.fixture
def pictured(world):
    draws = np.random.default_rng(4)
    sheet = draws.integers(0, 256, (toy_results.SAMPLES, 3, 32, 32)).astype(np.uint8)
    (world / "images").mkdir()
    images.write_sheet(sheet, world / "images" / "cifar10-test-first-1000.png")
    return sheet


def test_diversity_of_what_a_network_is_sure_of(pictured):
    draws = np.random.default_rng(0)
    scale = xr.DataArray(draws.uniform(0.2, 2, toy_results.SAMPLES), dims="sample")
    made = toy_results.logits(recipes.recipe("st"), 0, toy_results.SAMPLES)
    logits = (made["logits"] * scale).astype(np.float32)
    # Two classes of 60 images, of which the 6 most confident count.
    label = (np.arange(toy_results.SAMPLES) % 2).astype(np.int16)
    hits = logits.values.argmax(1) == label
    for seed in (0, 1):
        recipe = recipes.recipe("st")
        data = toy_results.logits(recipe, seed, toy_results.SAMPLES).assign(
            logits=logits, label=("sample", label), adversarial_logits=logits,
            robust=(("attack", "sample"), np.stack([hits, hits])),
        )  # fmt: skip
        store.write(data, store.path_of("logits", recipe.run(seed)))
    distances = {"colour": [], "shape": []}
    for which in (0, 1):
        members = [i for i in range(toy_results.SAMPLES) if label[i] == which]
        members.sort(key=lambda i: -naive.confidence(logits.values[i].astype(float)))
        pairs = list(combinations(members[:6], 2))
        distances["colour"].append(
            np.mean([naive.colour_distance(pictured[i], pictured[j]) for i, j in pairs])
        )
        distances["shape"].append(
            np.mean([naive.shape_distance(pictured[i], pictured[j], 8) for i, j in pairs])
        )
    for by, expected in distances.items():
        value = evaluate(f'picture_diversity("{by}", "st")')
        assert value.values[(0,)] == pytest.approx(np.mean(expected), rel=1e-4)
        low, high = value.interval
        assert low < high


def test_distance_of_random_images(pictured, monkeypatch):
    few = pictured[:IMAGES]
    monkeypatch.setattr(terms.Measures, "_pictures", lambda self: few)
    measures = terms.Measures("cifar10", "small")
    for by, distance in (
        ("colour", naive.colour_distance),
        ("shape", lambda a, b: naive.shape_distance(a, b, 8)),
    ):
        expected = np.mean([distance(a, b) for a, b in permutations(few[:12], 2)])
        monkeypatch.setattr(terms.Measures, "_pictures", lambda self: few[:12])
        assert measures.random_distance(by) == pytest.approx(expected)


def test_fall_of_margins_under_a_step(world):
    draws = np.random.default_rng(2)
    margins = draws.normal(1, 1, (4, 300)).astype(np.float32)
    steps = np.array([0.0, *recipes.STEPS])

    class Opened(terms.Measures):
        def _open(self, stage, name):
            assert (stage, name) == ("theory", "at")
            data = xr.Dataset({"hard_margin": (("eps", "sample"), margins)}, coords={"eps": steps})
            return [(0, data)]

    value = Opened("cifar10", "small").margin_fall(0.1, "at", within=(0.75, 1))
    before = margins[0]
    bound = np.quantile(before[before > 0], 0.75)
    falls = [before[i] - margins[3, i] for i in range(300) if before[i] >= bound]
    assert value.values[(0,)] == pytest.approx(np.mean(falls), rel=1e-4)
    assert value.images == 300


def test_overlap_of_average_vectors(world):
    made = [save("logits", "at", seed) for seed in (0, 1)]
    rows = []
    for data in made:
        logits, labels = data["logits"].values.astype(float), data["label"].values
        right = [i for i in range(len(labels)) if logits[i].argmax() == labels[i]]
        rows.append(
            [np.mean([logits[i] for i in right if labels[i] == c], axis=0) for c in range(10)]
        )
    expected = np.mean([naive.average_overlap(a, b, 5) for a, b in zip(*rows, strict=True)])
    value = evaluate('average_vector_overlap(5, "at", "at")')
    assert value.values == {(0, 1): pytest.approx(expected)}
    assert value.interval == pytest.approx((expected, expected))


def test_time_is_compared_as_measured_side_by_side(world):
    with pytest.raises(store.Missing, match=r"bench\.json is missing; make it with 'logitdist"):
        evaluate('bench_ratio("adversarial", "standard")')
    (world / "bench.json").write_text(
        '{"adversarial": {"seconds": [30.0, 31, 10]}, "standard": {"seconds": [4.0]}}'
    )
    value = evaluate('bench_ratio("adversarial", "standard")')
    assert (value.mean, value.repeated) == (7.5, True)


def robust(name, seed, share):
    """Write a network of which a share of the images is robust."""
    recipe = recipes.recipe(name)
    made = toy_results.logits(recipe, seed, toy_results.SAMPLES)
    label = made["label"].values
    hits = np.arange(len(label)) < share * len(label)
    logits = np.eye(10, dtype=np.float32)[np.where(hits, label, (label + 1) % 10)]
    made = made.assign(
        logits=(("sample", "class"), logits),
        adversarial_logits=(("sample", "class"), logits),
        robust=(("attack", "sample"), np.stack([hits, hits])),
    )
    store.write(made, store.path_of("logits", recipe.run(seed)))


def test_of_one_seed_the_interval_has_the_noise_of_trainings(world):
    for seed in recipes.SEEDS:
        save("logits", "at", seed)
    robust("fix-3-permute", 0, 0.5)
    alone = evaluate('robust("fix-3-permute")')
    assert not alone.repeated  # and nothing tells how far another training would be
    shares = {0: 0.6, 1: 0.2, 2: 0.4}
    for seed, share in shares.items():
        robust("normal", seed, share)
    terms.forget()
    value = evaluate('robust("fix-3-permute")')
    assert (value.mean, value.repeated) == (50, True)
    images = 100 * np.sqrt(0.25 / toy_results.SAMPLES)
    half = 1.96 * np.hypot(images, np.std([60, 20, 40], ddof=1))
    low, high = value.interval
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert evaluate('robust("normal")').interval[1] < 55  # seeds are there: images alone
    robust("logits-epoch-3", 0, 0.1)  # normal once more: the teacher's evaluated epoch is 3
    terms.forget()
    low, high = evaluate('robust("fix-3-permute")').interval
    half = 1.96 * np.hypot(images, np.std([60, 10], ddof=1))
    assert low == pytest.approx(max(50 - half, 0), abs=8)
    assert high == pytest.approx(min(50 + half, 100), abs=8)


def test_two_attacks_on_one_network_have_one_training(world):
    for name, seed, share in (("at", 0, 0.5), ("at", 1, 0.3), ("at", 2, 0.7)):
        robust(name, seed, share)
    recipe = recipes.recipe("at")
    main = store.open_dataset(world / "logits" / f"{recipe.run(0)}.nc")
    odi = main.isel(attack=[0]).assign_coords(attack=["odi"])
    odi.attrs["evaluation"] = json.dumps(dataclasses.asdict(recipes.Evaluation("odi")))
    store.write(odi, store.path_of("logits/odi", recipe.run(0)))
    value = evaluate('robust("at") - robust("at", engine="odi")')
    assert (value.seeds, value.repeated) == ((0,), True)
    assert value.interval == (0, 0)


def test_a_single_pair_of_trainings_is_unrepeated(world):
    for name in recipes.TEACHERS:
        save("logits", name, 0)
    assert not evaluate('disagreement("at", "st")').repeated
    save("logits", "at", 1)
    save("logits", "st", 1)
    terms.forget()
    assert evaluate('disagreement("at", "st")').repeated


def test_the_epoch_of_at(world):
    for seed in (0, 1):
        save("logits", "at", seed)
        made = save("epochs", "st", seed, toy_results.epochs)
    test = made["test"].values
    expected = made["largest"].sel(epoch=3).values[test].mean()  # AT is evaluated at epoch 3
    value = evaluate('mean("max", "st", epoch="at", part="test")')
    assert value.values[(1,)] == pytest.approx(expected)
    at = store.path_of("logits", recipes.recipe("at").run(1))
    store.write(store.open_dataset(at).assign_attrs(checkpoint_epoch=5), at)
    terms.forget()
    value = evaluate('mean("max", "st", epoch="at", part="test")')
    assert value.values[(1,)] == pytest.approx(expected)  # not recorded: the nearest, 3
    at.unlink()
    terms.forget()
    assert list(evaluate('mean("max", "st", epoch="at", part="test")').values) == [(0,)]


def test_an_interval_may_end_at_infinity():
    draws = np.full(1 + terms.RESAMPLES, np.inf)
    draws[1 : 1 + terms.RESAMPLES // 2] = np.arange(terms.RESAMPLES // 2)
    low, high = terms.Estimate({(0,): draws}, 100).interval
    assert low == pytest.approx(0.025 * terms.RESAMPLES, abs=1)
    assert high == np.inf
    assert terms.Estimate({(0,): np.full(1 + terms.RESAMPLES, np.inf)}, 100).interval == (
        np.inf,
        np.inf,
    )


def test_resampled_shares_are_exact():
    hits = np.random.default_rng(8).random((1000, 3)) < 0.3
    draws = np.random.default_rng(1000).integers(1000, size=(terms.RESAMPLES, 1000))
    shares = np.array([hits.mean(0), *(hits[draw].sum(0) / 1000 for draw in draws)])
    assert np.array_equal(terms.resampled(hits), shares)


def test_what_threads_may_change_is_not_in_an_estimate():
    units = np.full(1 + terms.RESAMPLES, 26.75) + np.linspace(-1, 1, 1 + terms.RESAMPLES)
    one, other = (
        terms.Estimate({(0,): units * (1 + shift), (1,): units}, images=10)
        for shift in (0.0, 3e-16)
    )
    assert one.mean == other.mean
    assert one.interval == other.interval
