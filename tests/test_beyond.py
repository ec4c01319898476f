"""What the paper does not have, from made-up results."""

from __future__ import annotations

import re

import numpy as np
import pytest

from logit_distributions import recipes, store
from logit_distributions.read import distribution
from paper.beyond import (
    calibration,
    controls,
    distances,
    masking,
    questions,
    robustness,
    targets,
)
from paper.beyond.__main__ import main
from paper.beyond.robustness import Network
from paper.claims import terms, verdicts
from tests import naive, toy_results


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    return tmp_path


def test_statistics_are_those_of_each_network(results):
    toy_results.write(results / "data")
    everyone = robustness.networks()
    assert len(everyone) == len(store.find("logits"))
    st = store.find("logits", "st", scale="small")[0]
    network = next(n for n in everyone if n.kind == "standard")
    at = store.find("logits", "at", scale="small")[0]
    overlaps = [
        naive.average_overlap(first, second, robustness.DEPTH)
        for first, second in zip(st["logits"].values, at["logits"].values, strict=True)
    ]
    assert network.kind == "standard"
    assert network.robust == pytest.approx(100 * st["robust"].values[-1].mean())
    assert network.statistics["overlap"] == pytest.approx(np.mean(overlaps))
    assert network.statistics["gap"] == pytest.approx(
        distribution.logit_gap(st["logits"].values).mean()
    )
    assert {n.kind for n in everyone} == {"standard", "adversarial", "student of AT"}
    assert main(["robustness"]) == 0
    text = (results / "build" / "figures" / "beyond.robustness.txt").read_text()
    assert "no interval is given" in text
    assert "nan" not in text


def test_the_closest_statistic_is_named():
    draws = np.random.default_rng(3).normal(size=(20, 2))
    some = [Network("student of AT", "small", a, {"gap": -(a**3), "largest": b}) for a, b in draws]
    value, count = robustness.correlation(some, "gap")
    assert (value, count) == (pytest.approx(-1), 20)
    assert robustness.correlation(some, "largest")[0] == pytest.approx(
        naive.rank_correlation(draws[:, 0], draws[:, 1])
    )
    assert "small, students of AT: mean logit gap (-1.00)" in robustness.best(some)
    assert np.isnan(robustness.correlation(some[:4], "gap")[0])
    rows = {row[0]: row[1:] for row in robustness.correlations(some).rows}
    assert rows["mean logit gap"] == ("-1.00 (20)", "-1.00 (20)")
    assert rows[robustness.STATISTICS["radius"]] == ("– (0)", "– (0)")


def test_without_results_one_line_says_what_makes_them(results):
    with pytest.raises(store.Missing, match="make it with 'logitdist make logits/st --scale small"):
        robustness.networks()
    assert recipes.TEACHERS[0] == "st"


def test_questions_are_no_claims_of_the_paper_and_ask_for_controls():
    asked = questions.register()
    assert len({claim.id for claim in asked}) == len(asked)
    assert not {claim.id for claim in asked} & {claim.id for claim in verdicts.register()}
    controls = (*recipes.CONTROLS, *recipes.REGULARIZERS)
    for claim in asked:
        assert claim.measure.startswith("retrained(")
        assert any(f'"{name}"' in claim.measure for name in controls), claim.id
        assert bool(claim.because) == (claim.fixed == "after")
        stated, direction = (
            verdicts.Window.parse(text) for text in (claim.stated, claim.direction or claim.stated)
        )
        assert direction.low <= stated.low < stated.high <= direction.high


def test_questions_wait_in_one_line_for_networks_that_are_not_trained(results):
    toy_results.write(results / "data")
    waiting = questions.table()
    assert all("a file is missing" in row for row in waiting.rows)
    assert waiting.notes[-1].endswith("make them with 'logitdist make controls --scale small'.")


def write_controls(folder, accuracies, seeds=(0, 1, 2), natural=100):
    """Write made-up students with these adversarial accuracies, one number a seed."""
    for name, values in accuracies.items():
        for seed, value in zip(seeds, values, strict=False):
            recipe = recipes.recipe(name)
            data = toy_results.logits(recipe, seed, toy_results.SAMPLES)
            label = data["label"].values
            robust = np.arange(len(label)) < round(value / 100 * len(label))
            hits = np.arange(len(label)) < natural / 100 * len(label)
            right = np.eye(10, dtype=np.float32)[np.where(hits, label, (label + 2) % 10)]
            wrong = np.eye(10, dtype=np.float32)[(label + 1) % 10]
            data["logits"] = (("sample", "class"), right)
            data["adversarial_logits"] = (
                ("sample", "class"), np.where(robust[:, None], right, wrong),
            )  # fmt: skip
            data["robust"] = (("attack", "sample"), np.stack([robust, robust]))
            store.write(data, folder / "logits" / f"{recipe.run(seed)}.nc")
            store.write(toy_results.log(recipe, seed), folder / "log" / f"{recipe.run(seed)}.nc")


CELLS = {
    "normal": (80, 81, 80), "correct": (70, 71, 70),
    "fix-1-permute": (75, 76, 75), "correct-fix-1": (10, 11, 10),
}  # fmt: skip


def test_questions_are_judged_by_both_kinds_of_noise(results):
    write_controls(results / "data", CELLS)
    terms.forget()
    judged = {each.claim.id: each for each in questions.verdicts()}
    value = judged["either-suffices"]
    cells = {name: np.mean(values) for name, values in CELLS.items()}
    interaction = (
        cells["correct"] - cells["correct-fix-1"] - (cells["normal"] - cells["fix-1-permute"])
    )
    assert value.value == pytest.approx(interaction, abs=1.5)  # 120 images
    assert value.verdict == "holds in direction"
    assert judged["effects-add-up"].verdict == "does not hold"
    assert judged["which-class-matters"].verdict == "a file is missing"
    write_controls(results / "data", {"correct": (70, 71, 20)})  # one training is far away
    terms.forget()
    noisy = {each.claim.id: each for each in questions.verdicts()}["either-suffices"]
    assert noisy.verdict == "undecided"
    assert noisy.high - noisy.low > 2 * (value.high - value.low)
    rows = {row[0]: row for row in questions.table().rows}
    assert rows[value.claim.quotation][-1] == "small, 3 seeds"


def test_the_2_by_2_has_main_effects_interaction_and_both_kinds_of_noise(results):
    write_controls(results / "data", CELLS)
    terms.forget()
    rows = {row[0]: row[2:] for row in controls.table().rows}
    exact = {
        name: np.array([
            100 * round(value / 100 * toy_results.SAMPLES) / toy_results.SAMPLES
            for value in values
        ]) for name, values in CELLS.items()
    }  # fmt: skip
    normal, correct, permuted, both = (exact[name] for name in controls.CELLS)
    correcting = ((normal - correct) + (permuted - both)) / 2
    assert float(rows["cost of correcting errors"][3]) == pytest.approx(correcting.mean(), abs=0.01)
    interaction = (correct - both) - (normal - permuted)
    assert float(rows["interaction"][3]) == pytest.approx(interaction.mean(), abs=0.01)
    assert rows["interaction"][0] == "0, 1, 2"
    notes = " ".join(controls.table().notes)
    trainings = interaction.std(ddof=1) / np.sqrt(3)
    assert f"{trainings:.2f} from trainings" in notes
    assert "Not stored yet: st, at, hybrid, random-errors" in notes


@pytest.mark.parametrize("cells", [("normal",), ("normal", "correct", "hybrid-reversed"), CELLS])
def test_controls_are_drawn_from_whatever_is_there(results, cells):
    names = [*cells, "st", *(f"label-smoothing-{each}" for each in (0.1, 0.3, 0.6))]
    write_controls(results / "data", {name: CELLS.get(name, (5, 6, 7)) for name in names})
    terms.forget()
    assert main(["controls"]) == 0
    text = (results / "build" / "figures" / "beyond.controls.txt").read_text()
    assert ("B: the 2 × 2" in text) == (cells == CELLS)
    assert "logit-squeezing" in text
    table = (results / "build" / "tables" / "beyond.controls.txt").read_text()
    assert "labels; label smoothing, strength 0.1" in table  # of equal ones the least
    assert "strength 0.3" not in table
    assert re.search(r"Strengths of label smoothing, .*: 0.1: .*%\), 0.3: .*%\), 0.6: .*%", table)
    assert ("The 2 × 2 waits" in table) == (cells != CELLS)


def save(stage, name, made):
    store.write(made, store.path_of(stage, recipes.recipe(name).run(0)))


def test_masking_is_drawn_from_whatever_is_there(results, capsys):
    st, at = (recipes.recipe(name) for name in recipes.TEACHERS)
    save("masking", "at", toy_results.masking(at, 0, ["st", "normal"]))
    masked = toy_results.masking(st, 0, ["at"])
    masked["survives_square"][:] = False
    save("masking", "st", masked)
    assert main(["masking"]) == 0
    printed = capsys.readouterr().out
    assert "AT: no sign of masked gradients: 0.0 % survive in a ball of 64/255" in printed
    assert "ST: signs of masked gradients: Square, which needs no gradient, fools 59" in printed
    assert "Not stored yet: normal, fix-1-permute, correct-fix-1, hybrid" in printed
    text = (results / "build" / "figures" / "beyond.masking.txt").read_text()
    assert "Signs of masked gradients: ST. Not stored yet: normal, fix-1-permute, " in text
    _, read = masking.readings()
    assert read["st"].only_others == {"at": 0}
    assert read["at"].only_others == {"st": 0}


def test_distances_are_drawn_and_go_with_robustness(results, capsys):
    recipe = recipes.recipe("at")
    data = toy_results.distances(recipe, 0)
    save("distances", "at", data)
    store.write(toy_results.logits(recipe, 0, 120), store.path_of("logits", recipe.run(0)))
    assert main(["distances", "robustness"]) == 0
    (row,) = distances.table().rows
    right = data["natural"].values
    slopes = [
        255 * data["gap"].values[i] / data["gradient_l1"].values[i] for i in np.flatnonzero(right)
    ]
    radii = [data["radius"].values[i] * 255 for i in np.flatnonzero(right)]
    radii = [np.inf if np.isnan(each) else each for each in radii]
    assert float(row[4]) == pytest.approx(np.median(slopes), abs=0.01)
    assert float(row[5]) == pytest.approx(np.median(radii), abs=0.01)
    assert row[0] == "AT"
    assert "nan" not in capsys.readouterr().out
    (network,) = robustness.networks()
    everything = 255 * data["gap"].values / data["gradient_l1"].values
    assert network.statistics["ratio"] == pytest.approx(np.median(everything))


@pytest.mark.parametrize("name", ["masking", "distances", "targets"])
def test_what_is_not_measured_is_one_line(name, results, capsys):
    assert main([name]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    stage = {"targets": "targets/published/at"}.get(name, f"{name}/st")
    assert f"make it with 'logitdist make {stage} --scale small" in error


def test_calibration_is_drawn_of_natural_and_attacked_images(results, capsys):
    toy_results.write(results / "data")
    assert main(["calibration"]) == 0
    rows = {row[:2]: row for row in calibration.table().rows}
    assert rows.keys() >= {("ST", "natural"), ("AT", "attacked"), ("normal", "attacked")}
    st = store.find("logits", "st", scale="small")[0]
    errors = 100 * (st["adversarial_logits"].values.argmax(1) != st["label"].values).mean()
    assert float(rows["ST", "attacked"][-1]) == pytest.approx(errors, abs=0.1)
    text = (results / "build" / "figures" / "beyond.calibration.txt").read_text()
    assert "ST, attacked: " in text
    assert "nan" not in text + capsys.readouterr().out


def test_the_teachers_errors_are_counted(results, capsys):
    recipe = recipes.recipe("at")
    draws = np.random.default_rng(2)
    label = np.repeat(np.arange(10), 5)
    logits = (
        draws.normal(size=(50, 10)).astype(np.float32) + 2 * np.eye(10, dtype=np.float32)[label]
    )
    made = toy_results.logits(recipe, 0, 50)[["label", "index"]].assign(
        label=("sample", label.astype(np.int16)), logits=(("sample", "class"), logits)
    )
    made = made.assign_coords({"class": list(toy_results.CLASSES)})
    save("targets", "at", made.assign_attrs(toy_results.attributes("targets", recipe, 0)))
    assert main(["targets"]) == 0
    shares = targets.confusion(made)
    for true in range(10):
        for predicted in range(10):
            count = sum(label[i] == true and logits[i].argmax() == predicted for i in range(50))
            assert shares[true, predicted] == pytest.approx(100 * count / 5)
    rows = targets.table().rows
    assert rows[3][:3] == ("AT", "cat", f"{100 - shares[3, 3]:.1f}")
    wrong = float((logits.argmax(1) != label).mean())
    assert (
        f"AT errs on {100 * wrong:.1f}"
        in (results / "build" / "figures" / "beyond.targets.txt").read_text()
    )
