"""The register of claims, its rules, and what broken or missing datasets make of the verdicts."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from scipy import stats

from logit_distributions import images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.read import distribution, ranking
from paper.claims import terms
from paper.claims import verdicts as claims
from paper.claims.__main__ import main
from paper.claims.__main__ import verdicts as judged_all
from paper.claims.terms import Estimate
from tests import toy_results
from tests.conftest import STORED

TEACHERS = ("st", "at")


@pytest.fixture(scope="module")
def verdicts():
    return {each.claim.id: each for each in judged_all()}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the stored teachers, without a registry."""
    for run in (f"cifar10-small-{name}-seed{seed}" for name in TEACHERS for seed in (0, 1)):
        for kind in ("logits", "log"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.copy(STORED / kind / f"{run}.nc", tmp_path / kind)
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    return tmp_path


def judged(*ids):
    return {each.claim.id: each for each in judged_all(ids)}


def test_the_register_is_complete_and_readable():
    register = claims.register()
    assert len({claim.id for claim in register}) == len(register) >= 60
    artefacts = {claim.artefact for claim in register}
    assert artefacts >= {"table1", "table2", "table3", "figure1", "figure2", "figure3", "figure4"}
    assert artefacts >= {"figureA6", "figureA7", *(f"figureB{i}" for i in range(1, 7))}
    for claim in register:
        assert "\n" not in claim.quotation
        assert len(claim.quotation) < 120
        if claim.measure is None:
            assert claim.decision
            continue
        stated = claims.Window.parse(claim.stated)
        assert stated.low < stated.high or claim.unit == "epoch"
        if claim.direction:
            wider = claims.Window.parse(claim.direction)
            assert wider.low <= stated.low
            assert wider.high >= stated.high
        assert (claim.scale == "paper" or claim.untrained) == (claim.needs is not None)
        assert claim.fixed in ("before", "after")
        assert bool(claim.because) == (claim.fixed == "after"), claim.id


def test_no_two_claims_are_one():
    keys = [(c.measure, c.stated, c.direction, c.dataset, c.scale) for c in claims.register()]
    measured = [key for key in keys if key[0] is not None]
    assert len(set(measured)) == len(measured)


FACTOR_OF_TWO = {"> 2", "< 0.5", "< 0.2"}
ANOTHER_PART = {
    "gap-peak-at-zero": "its peak; gap-significantly-smaller has the rest",
    "correct-fix-1-zero": "its 0 %; correct-fix-1-natural has the rest",
    "fix-1-above-st": "ST has 0 %, of which nothing is a multiple",
}
"""Claims whose quotation says more than they judge, or has no ratio."""


def test_rules_follow_the_conventions_of_the_head():
    for claim in claims.register():
        strong = re.search(r"\b(much|significantly|far) (?!lower mean)", claim.quotation)
        if strong and claim.measure and claim.id not in ANOTHER_PART:
            assert claim.stated in FACTOR_OF_TWO or claim.scale == "paper", claim.id
        if claim.quotation.startswith("0%"):
            assert claim.stated in ("< 0.05", "< 0.01"), claim.id


def test_every_claim_has_a_verdict_and_a_reason_where_it_cannot_be_tested(verdicts):
    assert list(verdicts) != [claim.id for claim in claims.register()]
    assert set(verdicts) == {claim.id for claim in claims.register()}
    for judgement in verdicts.values():
        assert judgement.verdict in claims.VERDICTS
        if judgement.verdict == claims.MISSING:
            assert "is missing; make it with 'logitdist" in judgement.reason
        if judgement.verdict in (claims.UNDECIDED, claims.NEEDS_SCALE, claims.UNTRAINED):
            assert judgement.reason
        assert (judgement.verdict == claims.UNTRAINED) == judgement.claim.untrained


def test_numbers_of_the_paper_are_never_compared_with_small_networks(verdicts):
    for judgement in verdicts.values():
        if judgement.claim.scale == "paper" and judgement.scale != "paper":
            assert judgement.verdict == claims.NEEDS_SCALE
            assert not judgement.compared
        if judgement.scale not in ("paper", None):
            assert judgement.verdict != "holds"
        if judgement.claim.dataset == "cifar100" and judgement.verdict == claims.MISSING:
            assert "cifar100-" in judgement.reason


def test_no_claim_is_decided_by_one_pair_of_trainings(verdicts):
    alone = [judgement for judgement in verdicts.values() if len(judgement.seeds) == 1]
    assert alone
    for judgement in alone:
        (value,) = judgement.each
        if judgement.verdict in ("does not hold", "holds in direction", "holds"):
            inside = judgement.low < value < judgement.high
            assert inside or judgement.images == 0, judgement.claim.id


def test_surprise_comes_first(verdicts):
    order = [claims.VERDICTS.index(judgement.verdict) for judgement in verdicts.values()]
    assert order == sorted(order)
    clear = [v.clearness for v in verdicts.values() if v.verdict == "does not hold"]
    assert clear == sorted(clear, reverse=True)


def test_swapping_at_and_st_flips_the_verdicts(verdicts, copy):
    flipped = (
        "max-lower", "gap-lower", "at-mitigates", "at-hurts-natural", "gap-near-zero",
        "max-more-skewed", "overlap-tailored", "neighbours-at-class",
    )  # fmt: skip
    (copy / "images").mkdir()
    shutil.copy(next((STORED / "images").glob("*.png")), copy / "images")
    for seed in (0, 1):
        files = [copy / "logits" / f"cifar10-small-{name}-seed{seed}.nc" for name in TEACHERS]
        st, at = (store.open_dataset(file) for file in files)
        store.write(st.assign(at.data_vars), files[0])
        store.write(at.assign(st.data_vars), files[1])
    for name, each in judged(*flipped).items():
        assert verdicts[name].verdict == "holds in direction", name
        assert each.verdict == "does not hold", name


def test_deleted_data_cannot_be_tested(copy):
    assert judged("gap-lower")["gap-lower"].verdict == "holds in direction"
    for file in copy.glob("logits/*-at-*"):
        file.unlink()
    terms.forget()
    judgements = judged("gap-lower", "table1-at-natural", "labels-differ")
    for name, verdict in judgements.items():
        scale = verdict.claim.scale or "small"
        wanted = claims.NEEDS_SCALE if verdict.claim.scale else claims.MISSING
        assert verdict.verdict == wanted, name
        assert f"cifar10-{scale}-at-seed0.nc is missing" in verdict.reason
        assert f"'logitdist make logits/at --scale {scale}'" in verdict.reason


def test_one_seed_is_too_few_for_pairs(copy):
    (copy / "logits" / "cifar10-small-at-seed1.nc").unlink()
    judgement = judged("labels-differ")["labels-differ"]
    assert "cifar10-small-at-seed1.nc is missing" in judgement.reason


def test_a_renamed_dataset_is_refused(copy):
    run = copy / "logits" / "cifar10-small-at-seed0.nc"
    run.rename(copy / "logits" / "cifar10-small-normal-seed0.nc")
    with pytest.raises(ReproError, match="likely copied or renamed"):
        judged("distils")


def test_another_scale_is_taken_with_no_fewer_seeds_and_the_papers_always(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))

    def after_writing(scale, *seeds):
        for name in TEACHERS:
            for seed in seeds:
                made = toy_results.logits(recipes.recipe(name, scale), seed, 100)
                store.write(made, tmp_path / "logits" / f"{made.attrs['run']}.nc")
        terms.forget()
        return judged("gap-lower")["gap-lower"]

    assert after_writing("small", 0, 1).scale == "small"
    assert after_writing("medium", 0).scale == "small"
    verdict = after_writing("medium", 1)
    assert (verdict.scale, verdict.seeds) == ("medium", (0, 1))
    assert "the data are of the medium scale" in verdict.reason
    assert after_writing("paper", 0).scale == "paper"


def estimate(*values, spread=0.1, images=100):
    noise = np.linspace(-spread, spread, terms.RESAMPLES)
    units = {(seed,): np.concatenate([[v], v + noise]) for seed, v in enumerate(values)}
    return Estimate(units, images)


@pytest.mark.parametrize(
    ("values", "scale", "verdict"),
    [
        ((1, 1.1, 1.2), "paper", "holds"),
        ((1, 1.1), "paper", "holds in direction"),
        ((1, 1.1, 1.2), "small", "holds in direction"),
        ((0.3, 0.4, 0.3), "paper", "holds in direction"),
        ((-1, -1.1, -1.2), "small", "does not hold"),
        ((1, 1, -0.1), "paper", "undecided"),
        ((0.01, 0.01, 0.01), "paper", "undecided"),
        ((np.nan, 1, 1), "paper", "undecided"),
    ],
)
def test_rules_of_decision(values, scale, verdict):
    claim = claims.Claim("x", "", "", "", "figure1", "m", stated="> 0.5", direction="> 0")
    decided = claims._decide(claim, estimate(*values), scale)
    assert decided.verdict == verdict
    assert decided.short == (values == (0.3, 0.4, 0.3))


def test_one_training_that_nothing_repeats_is_undecided():
    claim = claims.Claim("x", "", "", "", "figure1", "m", stated="> 0.5")
    alone = dataclasses.replace(estimate(1), repeated=False)
    assert claims._decide(claim, alone, "paper").verdict == "undecided"


def test_the_smallest_effect_that_undecided_data_could_have_shown():
    claim = claims.Claim("x", "", "", "", "figure1", "m", stated="> 0")
    undecided = claims._decide(claim, estimate(-0.1, 0.5, 0.3), "small")
    value = (-0.1 + 0.5 + 0.3) / 3
    assert undecided.reach == pytest.approx(value + 0.1)
    shifted = [v + undecided.reach - value + 0.01 for v in (-0.1, 0.5, 0.3)]
    assert claims._decide(claim, estimate(*shifted), "small").verdict == "holds in direction"


@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        ({"medium": (2, None), "small": (2, None)}, "medium"),
        ({"medium": (1, None), "small": (2, None)}, "small"),
        ({"medium": (2, (4, 4)), "small": (2, (5, 6))}, "medium"),
        ({"medium": (2, (4, 7)), "small": (2, (7, 7))}, "small"),
        ({"paper": (1, (2, 7)), "medium": (3, None), "small": (3, None)}, "paper"),
    ],
)
def test_the_scale_that_decides(stored, taken, monkeypatch):
    def evaluate(formula, dataset, scale):
        if scale not in stored:
            raise store.Missing(STORED / scale, "command")
        seeds, points = stored[scale]
        return dataclasses.replace(estimate(*[1.0] * seeds), points=points)

    monkeypatch.setattr(claims, "evaluate", evaluate)
    claim = claims.Claim("x", "", "", "", "figure1", "m", stated="> 0.5")
    assert claims.judge(claim).scale == taken


def test_windows():
    inside = claims.Window.parse("-1 to 1")
    assert inside.holds(-1, 1)
    assert not inside.holds(-1.1, 0)
    assert inside.excludes(1.1, 2)
    above = claims.Window.parse("> 0")
    assert not above.holds(0, 1)
    assert above.excludes(-1, 0)
    assert claims.Window.parse("< 0.5").distance(0.2) == pytest.approx(0.3)
    with pytest.raises(ReproError, match="expected '> a'"):
        claims.Window.parse("about 3")


def test_terms_of_one_number_a_seed_are_paired_by_seed():
    first, second = estimate(5, 7, 9), estimate(1, 2)
    assert (first - second).values == {(0,): 4, (1,): 5}
    assert (first / second).mean == pytest.approx((5 + 3.5) / 2)
    pairs = Estimate({(0, 1): np.full(3, 2.0), (1, 1): np.full(3, 4.0)})
    assert (pairs - Estimate({(0, 1): np.full(3, 1.0), (0, 2): np.full(3, 3.0)})).values == {
        (0, 1): 0,
        (1, 1): 2,
    }
    with pytest.raises(terms.Unsuitable, match="no seed in common"):
        first - Estimate({(8,): np.zeros(3)})


def test_combinations():
    both = [estimate(1, 5), estimate(3, 2)]
    assert terms.COMBINATIONS["least"](both).values == {(0,): 1, (1,): 2}
    assert terms.COMBINATIONS["most"](both).values == {(0,): 3, (1,): 5}
    assert terms.COMBINATIONS["average"](both).values == {(0,): 2, (1,): 3.5}
    line = {k: estimate(2.0 + 0.5 * k) for k in (1, 2, 5, 8)}
    assert terms.COMBINATIONS["slope"](line).mean == pytest.approx(0.5)
    steps = terms.COMBINATIONS["steps"](line)
    assert [each.mean for each in steps] == pytest.approx([0.5, 1.5, 1.5])
    again = terms.COMBINATIONS["retrained"](estimate(1, 2, 4, spread=0.0))
    assert again.values == {(0,): 1, (1,): 2, (2,): 4}
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / np.sqrt(3)
    low, high = again.interval
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)  # of 500 quantiles
    alone = estimate(3)
    assert terms.COMBINATIONS["retrained"](alone) is alone
    lists = [[estimate(np.exp(x)) for x in xs] for xs in ((1, 2, 5), (1.1, 2.3, 4))]
    expected = np.corrcoef((1, 2, 5), (1.1, 2.3, 4))[0, 1]
    for more in ((), (np.nan,)):
        with_unknown = [[*some, *map(estimate, more)] for some in lists]
        correlation = terms.COMBINATIONS["log_correlation"](*with_unknown)
        assert correlation.mean == pytest.approx(expected)
        assert correlation.interval == pytest.approx((expected, expected))


def test_a_sweep_takes_the_points_and_seeds_that_are_there():
    stored = {1: estimate(1, 2), 3: estimate(3), 4: estimate(4, 5)}

    def measure(k):
        if k not in stored:
            raise store.Missing(STORED / "x", "y")
        return stored[k]

    swept = terms._sweep(measure, range(1, 6))
    assert list(swept) == [1, 3, 4]
    assert terms.COMBINATIONS["slope"](swept).values == {(0,): pytest.approx(1)}
    stored[7] = Estimate({(8,): np.zeros(1 + terms.RESAMPLES)})
    assert list(terms._sweep(measure, range(1, 8))) == [1, 3, 4]
    with pytest.raises(store.Missing):
        terms._sweep(measure, (4, 5))


def test_intervals_are_those_of_the_mean():
    draws = np.random.default_rng(1).normal(3, 2, 2000)
    estimate = Estimate({(0,): terms.resampled(draws)}, 2000)
    assert estimate.mean == pytest.approx(draws.mean())
    half = 1.96 * draws.std() / np.sqrt(2000)
    assert estimate.interval == pytest.approx((draws.mean() - half, draws.mean() + half), abs=0.02)
    share = Estimate({(0,): np.zeros(1 + terms.RESAMPLES)}, 2000, share=True)
    assert share.interval == pytest.approx((0, 100 * 1.96**2 / (2000 + 1.96**2)), abs=1e-3)


def test_terms_are_the_statistics_of_the_stored_networks():
    st, at = (
        store.open_dataset(STORED / "logits" / f"cifar10-small-{n}-seed0.nc") for n in TEACHERS
    )
    labels = at["label"].values.astype(int)

    def term(formula):
        return terms.evaluate(formula, "cifar10", "small").values

    gap = distribution.logit_gap(at["logits"].values)
    assert term('skewness("gap", "at")')[(0,)] == pytest.approx(distribution.skewness(gap))
    assert term('mean("gap", "at")')[(0,)] == pytest.approx(gap.mean(), rel=1e-5)
    assert term('above(2, "gap", "at")')[(0,)] == pytest.approx(100 * np.mean(gap > 2))
    confidence = [distribution.log_confidence(d["logits"].values) for d in (at, st)]
    apart = ranking.rank_disagreement(*confidence, labels)
    assert term('disagreement("at", "st")')[(0, 0)] == pytest.approx(100 * apart.mean())
    frog = at["class"].values.tolist().index("frog")
    assert term('disagreement("at", "st", label="frog")')[(0, 0)] == pytest.approx(
        100 * apart[frog]
    )
    means = ranking.mean_correct_logits(at["logits"].values, labels)
    natural = at["logits"].values.argmax(1)
    added = np.where(natural == labels, at["adversarial_logits"].values.argmax(1), labels)
    for attacked, predictions in ((False, natural), (True, added)):
        shares = ranking.errors_by_rank(means, labels, predictions)
        errors = term(f'errors_at((2, 4), "at", attacked={attacked})')[(0,)]
        assert errors == pytest.approx(100 * shares[1:4].sum())
    both = at["logits"].values, st["logits"].values
    assert term('overlap(3, "at", "st")')[(0, 0)] == pytest.approx(
        ranking.average_overlap(*both)[:, 2].mean()
    )
    robust = at["robust"].values[-1]
    upper = gap >= np.sort(gap)[7500]
    assert upper.sum() >= 2500
    assert term('robust_within(0.75, 1, "at")')[(0,)] == pytest.approx(100 * robust[upper].mean())
    hours = store.open_dataset(STORED / "log" / "cifar10-small-at-seed0.nc")["seconds"].values
    assert term('hours("at")')[(0,)] == pytest.approx(hours.sum() / 3600)


def test_students_by_epoch_and_their_distance_to_the_teacher(copy):
    """From made-up students: the epoch of the teacher is an offset of its logits."""
    at = store.open_dataset(copy / "logits" / "cifar10-small-at-seed0.nc").isel(sample=slice(300))
    draws = np.random.default_rng(0)
    (copy / "logits" / "cifar10-small-at-seed1.nc").unlink()
    robust, logits = {}, {}
    for loss, offset in (("logits", 0.5), ("softmax", 1.0)):
        for epoch in recipes.SCALES["small"].teacher_epochs:
            recipe = recipes.recipe(f"{loss}-epoch-{epoch}")
            noise = draws.normal(0, offset, at["logits"].shape).astype(np.float32)
            made = at.assign(logits=at["logits"] + noise, adversarial_logits=at["logits"] + noise)
            hits = distribution.is_correct(made["logits"].values, made["label"].values)
            hits &= draws.random(300) < 1 - 0.1 * epoch * offset
            wrong = np.where(hits[:, None], made["adversarial_logits"], 0.0).astype(np.float32)
            wrong[~hits, (made["label"].values[~hits] + 1) % 10] = 1
            made = made.assign(
                adversarial_logits=(("sample", "class"), wrong),
                robust=(("attack", "sample"), np.stack([hits, hits])),
            )
            made.attrs |= {"run": recipe.run(0), "recipe": recipe.to_json()}
            store.write(made, copy / "logits" / f"{recipe.run(0)}.nc")
            robust[loss, epoch] = 100 * hits.mean()
            logits[loss, epoch] = made["logits"].values
    judgements = judged(
        "logits-more-readily", "consistently-better", "teacher-epoch-matters", "a7-l1"
    )
    gains = [robust["logits", e] - robust["softmax", e] for e in range(1, 7)]
    assert judgements["logits-more-readily"].value == pytest.approx(np.mean(gains))
    assert judgements["consistently-better"].value == pytest.approx(min(gains))
    of_logits = [robust["logits", e] for e in range(1, 7)]
    assert judgements["teacher-epoch-matters"].value == pytest.approx(
        max(of_logits) - min(of_logits)
    )
    best = int(at.attrs["checkpoint_epoch"])
    apart = [
        np.abs(logits[loss, best] - at["logits"].values).mean() for loss in ("softmax", "logits")
    ]
    assert judgements["a7-l1"].value == pytest.approx(apart[0] - apart[1], rel=1e-4)
    assert judgements["a7-l1"].verdict == "undecided"  # one training of each, and none repeated
    assert judgements["logits-more-readily"].points == (6, 6)
    next((copy / "logits").glob("*-softmax-epoch-2-*")).unlink()
    terms.forget()
    fewer = judged("logits-more-readily")["logits-more-readily"]
    assert fewer.points == (5, 6)
    assert fewer.value == pytest.approx(np.mean(gains[:1] + gains[2:]))
    epochs = terms.evaluate('best_epoch(lambda e: robust(f"logits-epoch-{e}"))', "cifar10", "small")
    assert epochs.mean == 1 + np.argmax(of_logits)


def test_pictures_are_measured_as_described():
    at = store.open_dataset(STORED / "logits" / "cifar10-small-at-seed0.nc").isel(
        sample=slice(1000)
    )
    pictures = images.read_sheet(images.stored_sheet("cifar10")).astype(float)
    labels, logits = at["label"].values, at["logits"].values.astype(float)
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (softmax / softmax.sum(1, keepdims=True)).max(1)
    rough = []
    for label in range(10):
        members = np.flatnonzero(labels == label)
        for i in sorted(members, key=lambda i: -confidence[i])[: len(members) // 10]:
            border = [
                pictures[i][:, r, c] / 255
                for r in range(32)
                for c in range(32)
                if min(r, c, 31 - r, 31 - c) < 4
            ]
            rough.append(np.sqrt(np.var(border, axis=0).mean()))
    estimate = terms.evaluate('border_roughness("at")', "cifar10", "small")
    assert estimate.values[(0,)] == pytest.approx(np.mean(rough), rel=1e-3)
    assert estimate.images == 1000
    unit = logits / np.linalg.norm(logits, axis=1, keepdims=True)
    same, colour, means = [], [], pictures.mean((2, 3)) / 255
    for i in range(1000):
        near = [j for j in np.argsort(-(unit @ unit[i]), kind="stable") if j != i][:5]
        same += [labels[j] == labels[i] for j in near]
        colour += [np.linalg.norm(means[j] - means[i]) for j in near]
    estimate = terms.evaluate('neighbour_same_class("at")', "cifar10", "small")
    assert estimate.values[(0,)] == pytest.approx(100 * np.mean(same))
    estimate = terms.evaluate('neighbour_distance("colour", "at")', "cifar10", "small")
    assert estimate.values[(0,)] == pytest.approx(np.mean(colour), rel=1e-3)


def test_networks_attacked_on_fewer_images_are_compared_on_those(copy):
    few = copy / "logits" / "cifar10-small-st-seed0.nc"
    data = store.open_dataset(few)
    store.write(data.isel(sample=slice(500)), few)
    (copy / "logits" / "cifar10-small-st-seed1.nc").unlink()
    estimate = terms.evaluate('natural("st") - natural("at")', "cifar10", "small")
    at = store.open_dataset(copy / "logits" / "cifar10-small-at-seed0.nc")
    hits = [
        distribution.is_correct(d["logits"].values[:500], d["label"].values[:500]).mean()
        for d in (data, at)
    ]
    assert estimate.images == 500
    assert estimate.values == {(0,): pytest.approx(100 * (hits[0] - hits[1]))}


def test_the_command_prints_a_line_each(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["max-lower", "table1-st-natural", "C-minima"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  ") for line in lines) == 3
    assert all(len(line) <= 100 for line in lines)
    assert lines[0] == "DOES NOT HOLD: 1 of 3"
    monkeypatch.delenv("COLUMNS")
    assert main(["table1-st-natural"]) == 0
    assert "make it with 'logitdist make logits/st --scale paper'\n" in capsys.readouterr().out
    assert main(["--details", "max-lower"]) == 0
    out = capsys.readouterr().out
    for part in ("as stated if > 0", "seeds 0, 1", "see       figure1", "abstract"):
        assert part in out


def test_the_command_prints_json(capsys):
    assert main(["--json", "gap-lower"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["verdict"] == "holds in direction"
    assert entry["low"] < entry["value"] < entry["high"]


def test_an_unknown_claim_is_one_line(capsys):
    assert main(["nonsense"]) == 1
    assert capsys.readouterr().err == (
        "claims: no claim 'nonsense'; 'make claims' prints the ids of all\n"
    )
