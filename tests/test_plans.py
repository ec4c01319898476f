"""The order of making, and what it is said to take."""

import json
import tomllib

import pytest

from logit_distributions import cli, plans, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job, epoch_file, with_needs
from logit_distributions.recipes import SCALES, Scale, recipe
from logit_distributions.store import places
from tests import toy_results


def _runs(jobs):
    return list(dict.fromkeys(job.run for job in jobs))


@pytest.mark.parametrize("scale", SCALES.values(), ids=str)
def test_the_plan_of_the_paper_holds_every_recipe_and_seed_once(scale):
    jobs = plans.plan([plans.PAPER], scale)
    assert len(set(jobs)) == len(jobs)
    shown = {*plans.TABLE2, *plans.names("figures", scale)}
    cifar10 = {recipe(name, scale).run(seed) for name in shown for seed in (0, 1, 2)}
    cifar100 = {recipe(n, scale, "cifar100").run(s) for n in ("st", "at") for s in (0, 1, 2)}
    assert set(_runs(jobs)) == cifar10 | cifar100
    for stage in ("logits", "log"):
        assert {job.run for job in jobs if job.stage == stage} == cifar10 | cifar100
    epochs = {job.recipe.name for job in jobs if job.stage == "epochs"}
    assert epochs == {"st", "at"}


def test_finished_results_come_early():
    jobs = plans.plan([plans.PAPER], SCALES["paper"])
    order = [(job.words, job.seed) for job in jobs]
    assert order[:4] == [("log/st", 0), ("logits/st", 0), ("epochs/st", 0), ("logits/at", 0)]
    assert order.index(("logits/hybrid", 2)) < order.index(("log/at", 0))
    assert order.index(("log/at", 2)) < order.index(("logits/fix-4-permute", 0))
    assert jobs[-1].stage == "capacity"


def test_a_recipe_is_trained_to_its_end_and_attacked():
    for scale, words in (("small", ["log/at", "logits/at"]), ("paper", ["logits/at", "log/at"])):
        assert [job.words for job in plans.plan(["at"], SCALES[scale], seeds=[0])] == words
    assert [job.words for job in plans.plan(["epochs/at"], SCALES["small"], seeds=[1])] == [
        "epochs/at"
    ]


def test_controls_are_no_part_of_the_paper_and_attacked_on_all_images(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    medium = SCALES["medium"]
    jobs = plans.plan([plans.CONTROLS], medium)
    assert not set(jobs) & set(plans.plan([plans.PAPER], medium))
    seeds = {}
    for job in jobs:
        assert recipes.evaluated_images("logits", job.recipe) is None
        seeds.setdefault(job.recipe.name, set()).add(job.seed)
    assert all(seeds[name] == {0, 1, 2} for name in recipes.CONTROLS)
    strengths = [job for job in jobs if job.recipe.name not in (*recipes.CONTROLS, "at")]
    assert len(strengths) == 6
    assert all((job.stage, job.seed) == ("log", 0) for job in strengths)


def test_the_chosen_strengths_are_trained_thrice_and_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    for strength in recipes.REGULARIZERS["label-smoothing"]:
        recipe = recipes.recipe(f"label-smoothing-{strength}")
        log = toy_results.log(recipe, 0)
        store.write(log, store.path_of("log", recipe.run(0)))
    words = [(job.words, job.seed) for job in plans.plan([plans.CONTROLS], SCALES["small"])]
    assert ("logits/label-smoothing-0.1", 2) in words  # of equal ones the least strength
    assert ("logits/label-smoothing-0.1", 0) in words
    assert ("logits/label-smoothing-0.3", 0) not in words
    assert ("logits/autoattack-full/label-smoothing-0.1", 0) in words
    assert ("logits/autoattack-full/at", 0) in words


def test_sweeps_follow_tables_when_artefacts_are_named():
    jobs = plans.plan(["figure4", "table2"], SCALES["small"], seeds=(0, 1))
    late = [plans.is_sweep(job.recipe) for job in jobs]
    assert late == sorted(late)
    assert len(jobs) == 2 * 2 * len({job.recipe for job in jobs})


def test_a_plan_with_a_given_network_trains_all_but_it():
    scale = Scale.parse("small+given-mine")
    jobs = plans.plan([plans.PAPER], scale, seeds=[0])
    stages = {job.stage for job in jobs if job.recipe.method == "given"}
    assert stages == {"logits", "capacity"}
    assert not [job for job in jobs if "epoch" in job.recipe.name]
    assert recipe("normal", "paper+given-mine").distillation.epoch is None
    assert all(job.needs is not None for job in plans.missing_jobs(jobs))


def test_a_new_scale_is_one_entry(monkeypatch):
    tiny = Scale("tiny", 4, 3, (1, 3), sweep_images=50, schedule="linear")
    monkeypatch.setitem(recipes.SCALES, "tiny", tiny)
    assert str(Scale.parse("tiny+eps4")) == "tiny+eps4"
    names = {job.recipe.name for job in plans.plan(["figures"], tiny)}
    assert {"logits-epoch-1", "softmax-epoch-3", "fix-8-average"} <= names
    assert recipe("hybrid", "tiny").width == 4
    assert recipes.evaluated_images("logits", recipe("fix-2-average", "tiny")) == 50
    assert cli.build_parser().parse_args(["make", "at", "--scale", "tiny"]).scale == tiny


def test_the_papers_speed_gives_the_papers_hours():
    printed = tomllib.loads((places.ROOT / "paper" / "reported.toml").read_text())
    speed = plans.paper_speed()
    for name, method in (("st", "standard"), ("at", "adversarial"), ("normal", "distillation")):
        wanted = recipe(name, "paper")
        chain = [j for j in _chain(Job("train", wanted, 0, 200)) if j.recipe == wanted]
        assert sum(plans.hours(job, speed) for job in chain) == pytest.approx(
            printed["table3"][method]["hours"]
        )
    assert printed["runs"]["total"] == plans.RUNS_OF_THE_PAPER


def _chain(job):
    return [j for need in job.needs if need.kind == "train" for j in _chain(need)] + [job]


def test_a_list_of_a_plan_says_what_is_missing(capsys, tmp_path):
    assert cli.main(["list", "paper", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = [line for line in lines if line.startswith("cifar")]
    assert len(runs) == 129
    assert all("log" in line and "logits" in line for line in runs)
    assert "the paper counts 136, without listing them, we 129" in "\n".join(lines)
    assert cli.main(["list", "table2", "--seed", "0"]) == 0
    runs = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cifar")]
    assert len(runs) == 6
    assert all(line.endswith(" -") for line in runs)


def test_speeds_are_those_that_were_measured(tmp_path, capsys):
    file = tmp_path / "speeds.json"
    seconds = {"standard": 36, "adversarial": 360, "distillation": 72, "attack": 3600}
    measured = {name: {"seconds": [each] * 3} for name, each in seconds.items()}
    file.write_text(json.dumps(measured | {"device": "abacus", "precision": "wood", "width": 8}))
    speed = plans.read_speed(file)
    small = {name: recipe(name) for name in ("st", "at", "normal")}
    assert plans.hours(Job("train", small["st"], 0, 6), speed) == pytest.approx(6 * 0.01)
    assert plans.hours(Job("train", small["at"], 0, 4), speed) == pytest.approx(1 * 0.1)
    assert plans.hours(Job("train", small["normal"], 0, 6), speed) == pytest.approx(6 * 0.02)
    assert plans.hours(Job("logits", small["st"], 0), speed) == pytest.approx(1)
    wide = Job("logits", recipe("st", "medium"), 0)
    assert plans.hours(wide, speed) == pytest.approx(4)
    assert cli.main(["list", "st", "--speed", str(file)]) == 0
    assert "'logitdist bench' on abacus (wood, width 8)" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"standard": 1}', '{"device": {}}'])
def test_other_files_are_no_speeds(content, tmp_path):
    file = tmp_path / "speeds.json"
    file.write_text(content)
    with pytest.raises(ReproError, match="expected what 'logitdist bench --json FILE' writes"):
        plans.read_speed(file)


def test_what_is_taken_along_holds_every_epoch_that_is_read_later(tmp_path, monkeypatch):
    for name in ("data", "cache"):
        monkeypatch.setenv(f"REPRO_{name.upper()}", str(tmp_path / name))
    at, st = (recipe(name, "medium") for name in ("at", "st"))
    for wanted in (at, st):
        for epoch in (1, 2, 3):
            file = epoch_file(wanted, 0, epoch)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    best = [epoch_file(at, 0, epoch) for epoch in (1, 2, 3)]
    assert plans.files([Job("logits", at, 0)]) == best
    assert plans.files([Job("logits", st, 0)]) == []
    assert plans.files([Job("epochs", st, 0)]) == [epoch_file(st, 0, 2)]


def test_more_is_asked_for_more():
    small, paper = (Job("train", recipe("at", scale), 0, 6) for scale in ("small", "paper"))
    speed = plans.paper_speed()
    assert plans.minutes_to_ask_for(small, speed) < plans.minutes_to_ask_for(paper, speed)
    assert plans.megabytes_to_ask_for(small) < plans.megabytes_to_ask_for(paper)


def test_what_capacities_depend_on_is_measured_once_and_beside_the_paper():
    scale = recipes.SCALES["small"]
    wanted = plans.plan([plans.MANIFOLDS], scale)
    assert {job.seed for job in wanted} == {0}
    settings = [(job.recipe.name, recipes.manifolds(job.stage, job.recipe)) for job in wanted]
    plain = [
        (job.recipe.name, recipes.manifolds(job.stage, job.recipe))
        for job in plans.plan(["figure5"], scale)
    ]
    assert len(set(settings)) == len(settings)
    assert not set(settings) & set(plain)
    speed = plans.paper_speed()
    untrained = [job for job in wanted if job.recipe.name == recipes.UNTRAINED]
    assert [plans.hours(need, speed) for job in untrained for need in with_needs(job.needs)] == [
        0,
        0,
    ]


def test_checks_are_said_to_take_as_long_as_their_attacks():
    speed = plans.Speed(dict.fromkeys(plans.METHODS, 0.0), 1.0, 16, "made up")
    at = recipe("at", "medium")
    assert plans.hours(Job("logits", at, 0), speed) == 1
    steps = 2 * (7 * 100 + 10 + 20 + 50 + 500 + 5 * 100) + 5000 / 3
    assert plans.hours(Job("masking", at, 0), speed) == pytest.approx(steps * 500 / (200 * 10_000))
    assert plans.hours(Job("distances", at, 0), speed) == pytest.approx(9 * 200 * 1000 / 2e6)
