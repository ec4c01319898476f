"""Which scale and which seeds an artefact uses, from made-up results."""

from __future__ import annotations

import pytest

from logit_distributions import recipes, store
from paper import selection, table2
from tests import toy_results

TEACHERS = recipes.TEACHERS


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write logits, or logs, of recipes at a scale and of seeds."""
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))

    def write(scale, seeds, stage="logits", **options):
        for name, some in seeds.items():
            for seed in some:
                recipe = recipes.recipe(name, scale, **options)
                made = (
                    toy_results.log(recipe, seed)
                    if stage == "log"
                    else toy_results.logits(recipe, seed, toy_results.SAMPLES)
                )
                store.write(made, store.path_of(stage, recipe.run(seed)))

    return write


def seeds_of(runs):
    return {name: [d.attrs["seed"] for d in datasets] for name, datasets in runs.by_name.items()}


def test_the_preferred_scale_is_taken_where_it_has_every_row_and_no_fewer_seeds(write):
    write("small", {"st": (0, 1), "at": (0, 1)})
    assert selection.select("logits", TEACHERS).scale == "small"
    write("medium", {"st": (0, 1), "at": (0,)})
    assert selection.select("logits", TEACHERS).scale == "small"
    assert [each.scale for each in selection.printed("logits", TEACHERS)] == ["small"]
    write("medium", {"at": (1,)})
    assert selection.select("logits", TEACHERS).scale == "medium"
    assert [each.scale for each in selection.printed("logits", TEACHERS)] == ["medium", "small"]
    write("paper", {"st": (0,)})
    assert selection.select("logits", TEACHERS).scale == "medium"
    write("paper", {"at": (0,)})
    assert selection.select("logits", TEACHERS).scale == "medium"
    write("paper", {"st": (2,), "at": (2,)})
    runs = selection.select("logits", TEACHERS)
    assert (runs.scale, runs.is_of_the_paper, runs.ends_early) == ("paper", True, False)
    assert [each.scale for each in selection.selections("logits", TEACHERS)] == [
        "paper", "medium", "small",
    ]  # fmt: skip


def test_a_sweep_takes_a_scale_with_all_its_points(write):
    def sweep():
        points = ["fix-3-permute", "fix-7-permute"]
        return selection.select("logits", ["normal"], optional=lambda _: points, paired=False)

    write("small", {"normal": (0, 1), "fix-3-permute": (0,)})
    assert sweep().absent == ("fix-7-permute",)
    write("medium", {"normal": (0, 1), "fix-3-permute": (0,)})
    assert sweep().scale == "small"
    write("medium", {"fix-7-permute": (0,)})
    assert (sweep().scale, sweep().absent) == ("medium", ())


def test_a_sweep_takes_the_seed_that_most_students_have(write):
    write("small", {"fix-3-permute": (0,), "fix-5-permute": (0, 1), "fix-7-permute": (1,)})
    write("small", {"fix-4-permute": (1,), "at": (0, 1)})
    points = [f"fix-{k}-permute" for k in (3, 4, 5, 7)]
    runs = selection.select("logits", ["at"], optional=lambda _: points, paired=False)
    accuracies, about = selection.sweep(runs)
    assert sorted(accuracies) == ["fix-4-permute", "fix-5-permute", "fix-7-permute"]
    assert about.endswith("Not stored yet: fix-3-permute.")
    write("small", {"normal": (0,)})
    runs = selection.select("logits", ["normal"], optional=lambda _: points, paired=False)
    assert sorted(selection.sweep(runs)[0]) == ["fix-3-permute", "fix-5-permute", "normal"]


def test_scales_of_few_images_are_never_taken(write):
    write("miniature", {"st": (0,), "at": (0,)})
    with pytest.raises(store.Missing, match="cifar10-small-st-seed0"):
        selection.select("logits", TEACHERS)


def test_only_common_seeds_are_compared(write):
    write("small", {"st": (0, 1, 2), "at": (1, 2)})
    runs = selection.select("logits", TEACHERS)
    assert seeds_of(runs) == {"st": [1, 2], "at": [1, 2]}
    assert runs.about().endswith("seeds 1, 2. Not stored yet: AT seed 0.")
    runs = selection.select("logits", TEACHERS, paired=False)
    assert seeds_of(runs) == {"st": [0, 1, 2], "at": [1, 2]}
    assert runs.about().endswith("seeds ST 0, 1, 2; AT 1, 2. Not stored yet: AT seed 0.")


def test_without_a_common_seed_the_missing_one_is_named(write):
    write("small", {"st": (1,), "at": (0, 2)})
    with pytest.raises(store.Missing, match=r"at-seed1\.nc.*'logitdist make logits/at --scale sm"):
        selection.select("logits", TEACHERS)


def test_what_is_missing_is_named_at_a_scale_that_was_begun(write):
    write("paper", {"st": (0,)}, dataset="cifar100")
    with pytest.raises(store.Missing, match="cifar100-paper-at-seed0"):
        selection.select("logits", TEACHERS, "cifar100")


def test_table_2_is_printed_while_a_run_goes_on(write):
    seeds = {"normal": (0, 1, 2), "fix-1-permute": (0, 1), "correct-fix-1": (0, 1), "hybrid": (0,)}
    write("small", seeds)
    logs = {"normal": (0, 1)}
    write("small", logs, stage="log")
    for seed in logs["normal"]:
        path = store.path_of("log", f"cifar10-small-normal-seed{seed}")
        log = store.open_dataset(path).assign_attrs(teacher_training_error=0.25 + 0.5 * seed)
        store.write(log, path)
    made = table2.make()
    assert len(made.rows) == 4
    assert not any("±" in row[3] for row in made.rows)
    assert "seed 0; 120 test images" in made.notes[1]
    assert "targets get 25.00 % of the training images wrong" in made.notes[2]
    assert made.notes[3].startswith("Scale small, adversarial: the paper Normal > Fix-1 (perm) >")
    assert made.notes[4].endswith("of 1 seeds.")
    assert made.notes[5].startswith("Fix-1 (perm) minus Normal, with standard errors: natural ")
    assert "trainings" not in made.notes[5]
    write("medium", {name: (0, 1) for name in seeds if name != "hybrid"})
    assert len(table2.make().rows) == 4
