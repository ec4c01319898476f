"""The runner: everything once, in order, by one process at a time."""

import fcntl
import json
import os

import pytest

from logit_distributions import images, recipes, store
from logit_distributions.errors import ReproError
from logit_distributions.jobs import Job, epoch_file
from logit_distributions.make import run
from logit_distributions.make.checkpoint import Checkpoint
from logit_distributions.make.options import Budget, Machine, Options, OutOfTime
from logit_distributions.store import files, places
from tests import toy, warm


@pytest.fixture
def options(toy_world, toy_sheets):
    return Options(Machine("cpu", "float32"), toy_sheets)


def test_every_file_is_made_once_and_before_what_needs_it(options, monkeypatch):
    made = []

    def noted(kind, stage):
        def call(job, options):
            assert all(need.path.exists() for need in job.needs)
            made.append(job.words)
            return stage(job, options)

        return call

    stages = {kind: noted(kind, stage) for kind, stage in run.STAGES.items()}
    monkeypatch.setattr(run, "STAGES", stages)
    for name in ("logits", "log"):
        run.make(Job(name, recipes.recipe("normal"), 0), options)
    assert made == [
        "train/at@1", "train/at@2", "checkpoint/at", "targets/at", "train/normal@2",
        "checkpoint/normal", "logits/normal", "log/normal",
    ]  # fmt: skip
    monkeypatch.setattr(run, "STAGES", {})
    for name in ("logits", "log"):
        run.make(Job(name, recipes.recipe("normal"), 0), options)


def test_an_untrained_network_is_the_one_that_training_begins_with(options):
    job = Job("checkpoint", recipes.recipe("untrained"), 1)
    made = Checkpoint.load(run.make(job, options))
    assert (made.epoch, made.step, made.log) == (0, 0, [])
    other = Checkpoint.load(run.make(Job("checkpoint", job.recipe, 2), options))
    assert other.weights_sha256 != made.weights_sha256
    assert not made.tensors["model.stem.1.running_mean"].any()
    with pytest.raises(ReproError, match="is not trained, so it has no epochs"):
        run.make(Job("log", job.recipe, 1), options)
    run.make(Job("logits", job.recipe, 1), options)  # like any other network


def test_what_exists_is_not_made_whatever_has_become_of_its_needs(options, monkeypatch):
    job = Job("logits", recipes.recipe("st"), 0)
    run.make(job, options)
    for path in places.cache().rglob("*.safetensors"):
        path.unlink()
    monkeypatch.setattr(run, "STAGES", {})
    assert run.make(job, options) == job.path


def test_a_file_that_lost_its_entry_in_the_registry_gets_it_back(options):
    job = Job("logits", recipes.recipe("st"), 0)
    path = run.make(job, options)
    (places.data() / store.REGISTRY).unlink()
    assert run.is_done(job)
    assert store.registry(path) == files.sha256(path)


def test_a_stage_runs_under_its_lock(options, monkeypatch):
    def stage(job, options):
        handle = os.open(job.lock, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
        raise InterruptedError("as expected")

    monkeypatch.setattr(run, "STAGES", {"train": stage})
    with pytest.raises(InterruptedError, match="as expected"):
        run.make(Job("train", recipes.recipe("st"), 0, 2), options)


def test_who_waits_for_another_process_says_so_and_asks_the_budget(options, capsys):
    job = Job("train", recipes.recipe("st"), 0, 2)
    waiting = Options(options.machine, options.images, budget=Budget(1e-9))
    with files.locked(job.lock), pytest.raises(OutOfTime, match="next comes train of"):
        run.make(job, waiting)
    assert capsys.readouterr().err == (
        f"logitdist: waits for another process: train of {job.run}\n"
    )


def test_two_processes_that_want_one_student_train_each_step_once(toy_world, toy_sheets):
    command = [
        "tests.toy", "make", "normal", "--seed", "0", "--threads", "1", "--images",
        str(toy_sheets), "--device", "cpu", "--precision", "float32",
    ]  # fmt: skip
    steps = toy_world / "steps.txt"
    environment = {**os.environ, "TOY_STEPS": str(steps)}
    both = [warm.Begun(*command, env=environment) for _ in range(2)]
    ended = [process.ended() for process in both]
    assert [each.returncode for each in ended] == [0, 0], ended
    bars = [each.stderr.count("it/s") + each.stderr.count("img/s") for each in ended]
    assert bars == [0, 0]  # no terminal
    epochs = 2
    a_training = -(-toy.SHOWN // recipes.recipe("normal").batch_size)
    trained = sorted(steps.read_text().splitlines())
    assert trained == sorted(
        f"{recipes.recipe(name).run(0)} {epoch} {step}"
        for name in ("at", "normal")
        for epoch in range(epochs)
        for step in range(a_training)
    )
    for name in ("normal", "at"):
        assert epoch_file(recipes.recipe(name), 0, epochs).exists()
    assert store.open_dataset(store.path_of("log", recipes.recipe("normal").run(0)))


def test_what_is_left_of_an_attack_goes_with_its_dataset(options):
    job = Job("logits", recipes.recipe("st"), 0)
    run.make(job, options)
    assert not job.partial.exists()


def test_targets_of_other_weights_are_refused(options):
    run.make(Job("targets", recipes.recipe("at"), 0), options)
    teacher = Job("checkpoint", recipes.recipe("at"), 0)
    checkpoint = Checkpoint.of(teacher)
    checkpoint.tensors["model.logits.bias"] += 1
    store.save(checkpoint, teacher.path)
    with pytest.raises(ReproError, match="made from other weights than those of"):
        run.make(Job("train", recipes.recipe("normal"), 0, 2), options)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 2), (0, 1)])
def test_weights_of_another_seed_or_epoch_are_not_taken_as_done(seed, epoch, toy_world):
    wanted = Job("train", recipes.recipe("st"), 0, 2)
    plain = json.loads(wanted.recipe.to_json())
    Checkpoint({}, plain, wanted.recipe.hash, seed, epoch).save(wanted.path)
    with pytest.raises(
        ReproError, match=f"expected seed 0, epoch 2, got seed {seed}, epoch {epoch}"
    ):
        run.is_done(wanted)
    Checkpoint({}, plain, wanted.recipe.hash, 0, 2).save(wanted.path)
    assert run.is_done(wanted)


def test_the_toy_set_is_what_is_trained_on(options):
    assert len(images.load("cifar10", "train", options.images)) == toy.SHOWN
