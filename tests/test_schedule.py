"""The order of making, and that nothing is made twice or before what it needs."""

import pytest

from logit_distributions import recipes, schedule, store
from logit_distributions.schedule import Job, jobs, with_needs

SCALES = tuple(recipes.SCALES)


def runs(some):
    return list(dict.fromkeys(job.run for job in some))


@pytest.mark.parametrize("scale", SCALES)
def test_the_plan_of_the_paper_holds_every_recipe_and_seed_once(scale):
    found = jobs([schedule.PAPER], scale)
    assert len(set(found)) == len(found)
    cifar10 = {recipes.recipe(n, scale).run(s) for n in recipes.names(scale) for s in (0, 1, 2)}
    cifar100 = {
        recipes.recipe(n, scale, "cifar100").run(s) for n in ("st", "at") for s in (0, 1, 2)
    }
    assert set(runs(found)) == cifar10 | cifar100
    attacked = {job.run for job in found if job.kind == "attack"}
    assert attacked == cifar10 | cifar100


def test_finished_results_come_early():
    found = jobs([schedule.PAPER], "paper")
    order = [(job.kind, job.recipe.name, job.seed) for job in found]
    table2 = [("attack", name, 0) for name in recipes.plan("table2", "paper")]
    assert order[:2] == [("attack", "st", 0), ("epochs", "st", 0)]
    assert order[2 : 1 + len(table2)] == table2[1:]
    assert order.index(("attack", "hybrid", 2)) < order.index(("train", "at", 0))
    assert order.index(("train", "at", 2)) < order.index(("attack", "fix-4-permute", 0))
    assert found[-1].kind == "manifolds"


def test_needs_come_first_and_end_with_teachers_that_need_nothing():
    found = with_needs(jobs([schedule.PAPER], "paper"))
    place = {job: number for number, job in enumerate(found)}
    assert len(place) == len(found)
    for job in found:
        assert all(place[need] < place[job] for need in job.needs)
        if not job.needs:
            assert job.recipe.distillation is None
    hybrid = Job("train", recipes.recipe("hybrid"), 1)
    assert [need.run for need in hybrid.needs] == [
        "cifar10-small-at-seed1",
        "cifar10-small-st-seed1",
    ]


def test_sweeps_follow_tables_when_artefacts_are_named():
    found = jobs(["figure4", "table2"], "small", seeds=(0, 1))
    late = [recipes.is_sweep(job.recipe) for job in found]
    assert late == sorted(late)
    assert len(found) == 2 * len({job.recipe for job in found})


def test_a_job_names_its_file():
    job = Job("attack", recipes.recipe("at", "paper", "cifar100"), 2)
    assert job.path == store.path_of("logits", "cifar100-paper-at-seed2")
    assert [need.path.parent.name for need in job.needs] == ["log"]


@pytest.mark.parametrize(
    ("name", "scale", "dataset", "epoch"),
    [
        ("st", "paper", "cifar10", 200),
        ("at", "paper", "cifar100", 40),
        ("at", "small", "cifar100", 6),
        ("at", "small", "cifar10", None),
    ],
)
def test_the_epoch_that_stands_for_a_run(name, scale, dataset, epoch):
    assert schedule.known_epoch(recipes.recipe(name, scale, dataset)) == epoch
