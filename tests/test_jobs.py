"""What a job is: its file, its needs, its words."""

import pytest

from logit_distributions import jobs, plans, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job, with_needs
from logit_distributions.recipes import SCALES, recipe


def test_a_job_names_its_file(monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    at = recipe("at", "paper", "cifar100")
    files = {
        Job("logits", at, 2): "data/logits/cifar100-paper-at-seed2.nc",
        Job("logits/odi", at, 2): "data/logits/odi/cifar100-paper-at-seed2.nc",
        Job("train", at, 2, 40): "cache/runs/cifar100-paper-at-seed2/epoch-040.safetensors",
        Job("targets", at, 2): "cache/targets/cifar100-paper-at-seed2-passes5.nc",
        Job(
            "targets/passes1", at, 2, 40
        ): "cache/targets/cifar100-paper-at-seed2-epoch40-passes1.nc",
        Job("checkpoint", at, 2): "cache/checkpoints/cifar100-paper-at-seed2.safetensors",
        Job("checkpoint", recipe("at"), 0): "data/checkpoints/cifar10-small-at-seed0.safetensors",
        Job("checkpoint", recipe("at"), 1): "cache/checkpoints/cifar10-small-at-seed1.safetensors",
        Job("checkpoint", recipe("at", "small+given-a"), 0): "cache/given/a.safetensors",
    }
    assert {job: str(job.path.relative_to(tmp_path)) for job in files} == files
    assert Job("logits", at, 2).path == store.path_of("logits", at.run(2))


def test_a_training_is_a_chain_of_the_epochs_that_others_ask_for():
    at = recipe("at", "medium")
    chain = with_needs([Job("train", at, 0, 20)])
    assert [job.epoch for job in chain] == [5, 10, 15, 20]
    assert len({job.lock for job in chain}) == 1
    student = recipe("logits-epoch-10", "medium")
    assert Job("train", student, 0, 20).needs == (Job("targets", at, 0, 10),)
    assert Job("targets", at, 0, 10).needs == (Job("train", at, 0, 10),)
    assert Job("checkpoint", at, 0).needs == (Job("train", at, 0, 20),)


def test_students_need_their_teachers_targets():
    hybrid = Job("train", recipe("hybrid"), 1, 6)
    assert [need.words for need in hybrid.needs] == ["targets/at", "targets/st"]
    assert Job("log", recipe("hybrid"), 1).needs == (hybrid, *hybrid.needs)
    paper = Job("train", recipe("normal", "paper"), 0, 200)
    assert [need.words for need in paper.needs] == ["targets/at@40"]
    assert Job("checkpoint", recipe("at", "paper"), 0).needs[0].epoch == 40


def test_masking_needs_the_networks_that_its_images_are_tried_on():
    job = Job("masking", recipe("normal"), 0)
    assert [need.words for need in job.needs] == [
        f"checkpoint/{name}" for name in ("normal", *(n for n in recipes.TABLE2 if n != "normal"))
    ]
    assert [need.words for need in Job("distances", recipe("st"), 1).needs] == ["checkpoint/st"]


def test_needs_come_first_and_end_with_teachers_that_need_nothing():
    ordered = with_needs(plans.plan([plans.PAPER], SCALES["paper"]))
    place = {job: number for number, job in enumerate(ordered)}
    assert len(place) == len(ordered)
    for job in ordered:
        assert all(place[need] < place[job] for need in job.needs)
        if not job.needs:
            assert job.recipe.distillation is None


def test_no_two_jobs_share_a_file_or_a_lock_with_another_training():
    every = with_needs(
        plans.plan(["figures", "tableV", "figure5", *plans.CHECKS], SCALES["medium"])
    )
    assert len({job.path for job in every}) == len(every)
    others = [job for job in every if job.kind != "train"]
    assert len({job.lock for job in others}) == len(others)


@pytest.mark.parametrize("scale", ["small", "medium", "paper", "small+resnet34+eps4"])
def test_words_name_the_job(scale):
    scale = recipes.Scale.parse(scale)
    words = ["figures", "tableV", "figure5", *plans.CHECKS]
    for job in with_needs(plans.plan(words, scale, seeds=[3])):
        (again,) = jobs.parse(job.words, scale, seeds=[3])
        assert again == job
        assert job.words in job.command


def test_a_given_network_is_not_trained(monkeypatch):
    given = recipe("at", "small+given-mine")
    assert Job("checkpoint", given, 0).needs == ()
    assert [need.words for need in Job("logits", given, 0).needs] == ["checkpoint/at"]
    with pytest.raises(ReproError, match="is given, so it is not trained and has no epochs"):
        _ = Job("log", given, 0).needs


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nosuch/at", "unknown stage 'nosuch' in 'nosuch/at'"),
        ("logitsodi/at", "unknown stage 'logitsodi'"),
        ("epochs/odi/at", "unknown stage 'epochs/odi'"),
        ("logits/nosuch", "unknown recipe 'nosuch'"),
        ("train/at@7", "one of which a checkpoint is kept: 1, 2, 3, 4, 5, 6"),
        ("logits/at@3", "expected an epoch only after train or targets"),
        ("train/at@x", "expected an epoch only after train or targets"),
    ],
)
def test_what_names_no_job_is_one_line(text, problem):
    with pytest.raises(ReproError, match=problem):
        jobs.parse(text, SCALES["small"])


@pytest.mark.parametrize("stage", ["capacity/foo", "logits/foo"])
def test_a_variant_that_is_none_is_refused_before_anything_is_trained(stage):
    with pytest.raises(ReproError, match=r"unknown .*foo.*: expected one of "):
        jobs.parse(f"{stage}/at", SCALES["small"])
