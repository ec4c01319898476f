"""What a plan is said to take."""

import json

import pytest

from logit_distributions import cli, estimate, recipes, schedule
from logit_distributions.errors import ReproError

SPEEDS = estimate.Speeds(
    {"standard": 1e12, "adversarial": 2e12, "distillation": 4e12, "attack": 8e12}, "made up"
)


def training(name: str, scale: str) -> schedule.Job:
    return schedule.Job("train", recipes.recipe(name, scale), 0)


def test_the_papers_speeds_give_the_papers_hours():
    speeds = estimate.paper_speeds()
    hours = [estimate.hours(training(name, "paper"), speeds) for name in ("st", "at", "normal")]
    assert hours == pytest.approx([1.66, 18.0, 3.83])


def test_a_plan_lists_every_run_once_and_adds_up(capsys, tmp_path):
    arguments = ["plan", "--json", "--price", "2", "--data", str(tmp_path)]
    assert cli.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    names = [run["run"] for run in found["runs"]]
    assert len(names) == len(set(names)) == 129
    position = {name: i for i, name in enumerate(names)}
    for run in found["runs"]:
        assert all(position[need] < position[run["run"]] for need in run["needs"])
        assert run["cost"] == pytest.approx(2 * (run["train_hours"] + run["attack_hours"]))
        assert {"log", "logits"} <= set(run["missing"])
    everything = found["totals"]["total"]
    assert everything["hours"] == everything["hours_to_do"]
    assert everything["hours"] == pytest.approx(sum(run["cost"] / 2 for run in found["runs"]))


def test_what_is_stored_is_done(capsys):
    assert cli.main(["plan", "table2", "--seed", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    runs = [line for line in lines if line.startswith("cifar10-small-")]
    assert len(runs) == 6
    assert all(line.endswith("done") for line in runs)
    assert "An estimate" in lines[-2]


def test_speeds_are_those_that_were_measured(tmp_path, capsys):
    file = tmp_path / "speeds.json"
    measured = {name: {"flops_per_second": speed} for name, speed in SPEEDS.of.items()}
    file.write_text(json.dumps(measured | {"device": "abacus", "precision": "wood", "width": 8}))
    speeds = estimate.read_speeds(file)
    assert speeds.of == SPEEDS.of
    attack = schedule.Job("attack", recipes.recipe("st"), 0)
    student = training("normal", "small")
    for job, speed in ((training("at", "small"), 2e12), (student, 4e12), (attack, 8e12)):
        assert estimate.hours(job, speeds) == estimate.flops(job) / speed / 3600
    assert cli.main(["plan", "st", "--speed", str(file)]) == 0
    assert "'logitdist bench' on abacus (wood, width 8)" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"standard": 1}', '{"device": {}}'])
def test_other_files_are_no_speeds(content, tmp_path):
    file = tmp_path / "speeds.json"
    file.write_text(content)
    with pytest.raises(ReproError, match="expected what 'logitdist bench --json FILE' writes"):
        estimate.read_speeds(file)


def test_more_is_asked_for_more():
    small, paper = training("at", "small"), training("at", "paper")
    speeds = estimate.paper_speeds()
    assert estimate.minutes_to_ask_for(small, speeds) < estimate.minutes_to_ask_for(paper, speeds)
    assert estimate.minutes_to_ask_for(paper, speeds) == 60 + 2 * 18 * 60
    assert estimate.megabytes_to_ask_for(small) < estimate.megabytes_to_ask_for(paper)


def test_other_networks_are_estimated_by_their_own_layers(capsys):
    ours, other = training("st", "paper"), training("st", "paper+resnet34")
    assert 1.9 < estimate.flops(other) / estimate.flops(ours) < 2.3  # 2.09 by the multiply-adds
    assert estimate.megabytes_to_ask_for(other) > estimate.megabytes_to_ask_for(ours)
    assert cli.main(["plan", "st", "--scale", "paper+resnet34"]) == 0
    assert cli.main(["plan", "st", "--scale", "paper+nonsense"]) == 1
    assert "network 'nonsense': expected resnet18 or another" in capsys.readouterr().err
