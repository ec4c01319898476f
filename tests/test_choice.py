"""Which epoch of a training counts."""

import pytest

from logit_distributions import choice, recipes, store
from logit_distributions.errors import ReproError
from tests import toy_results


def test_kept_and_recorded_epochs():
    paper, medium, small = (recipes.recipe("at", scale) for scale in ("paper", "medium", "small"))
    assert choice.kept_epochs(paper) == choice.recorded_epochs(paper) == list(range(10, 201, 10))
    assert choice.kept_epochs(medium) == list(range(1, 21))
    assert choice.recorded_epochs(medium) == list(range(2, 21, 2))
    assert choice.kept_epochs(small) == choice.recorded_epochs(small) == list(range(1, 7))


def test_a_teacher_is_asked_for_the_epochs_that_students_learn_from():
    assert choice.asked_epochs(recipes.recipe("at", "medium")) == [5, 10, 15, 20]
    assert choice.asked_epochs(recipes.recipe("st", "medium")) == [20]
    assert 40 in choice.asked_epochs(recipes.recipe("at", "paper"))
    assert choice.asked_epochs(recipes.recipe("normal", "paper")) == [200]


@pytest.mark.parametrize(
    ("name", "scale", "dataset", "epoch"),
    [
        ("st", "paper", "cifar10", 200),
        ("at", "paper", "cifar100", 40),
        ("at", "small", "cifar100", 6),
        ("at", "small", "cifar10", None),
        ("at", "medium", "cifar10", None),
    ],
)
def test_the_epoch_that_stands_for_a_run(name, scale, dataset, epoch):
    assert choice.known_epoch(recipes.recipe(name, scale, dataset)) == epoch


def test_best_epoch_is_the_best_trade_off():
    def entry(epoch, natural, robust):
        shared = {"epoch": epoch, "validation_accuracy": natural}
        return shared | ({} if robust is None else {"validation_robust_accuracy": robust})

    log = [entry(1.0, 0.9, 0.0), entry(2.0, 0.7, 0.4), entry(3.0, 0.8, 0.2), entry(4.0, 1.0, None)]
    assert choice.best_epoch(log) == 2
    with pytest.raises(ReproError, match="no epoch was validated"):
        choice.best_epoch(log[3:])


def test_validation_under_pgd_chooses_the_strength(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    strengths = {0.1: (0.2, 0.9), 0.3: (0.3, 0.5), 0.6: (0.3, 0.7)}
    for seed, order in ((0, strengths), (1, dict(zip(strengths, [(0.9, 0.9)] * 3, strict=True)))):
        for strength, (robust, natural) in order.items():
            recipe = recipes.recipe(f"label-smoothing-{strength}")
            log = toy_results.log(recipe, seed)
            log["validation_robust_accuracy"][:] = [0.9, 0.9, robust]  # the last epoch counts
            log["validation_accuracy"][:] = [0.9, 0.9, natural]
            store.write(log, store.path_of("log", recipe.run(seed)))
    assert choice.best_strength("label-smoothing", "small") == "label-smoothing-0.6"
    with pytest.raises(store.Missing, match="make log/logit-squeezing-0"):
        choice.best_strength("logit-squeezing", "small")
