"""The README's examples run as printed."""

import re

from logit_distributions import cli, store
from logit_distributions.store import places
from paper import table2, tables
from paper.beyond import controls, questions

README = (places.ROOT / "README.md").read_text()


def _example(word: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (block,) = (block for block in blocks if word in block)
    return block


def test_table_2_is_shown_as_printed():
    assert table2.make().text().strip() in README


def test_the_controls_are_as_measured():
    section = README.split("## Beyond the paper")[1].split("\n## ")[0]
    robustness = {}
    for name in (*controls.CELLS, "random-errors", "drop-errors"):
        some = store.find("logits", name, scale="medium")
        ours = tables.accuracies(name, some)
        robust, natural = ours.adversarial.mean(), ours.natural.mean()
        printed = name.removesuffix("-permute")
        cell = re.search(rf"{printed}(?:: |, )([\d.]+)(?: \(([\d.]+)\))?", section)
        assert cell[1] == f"{robust:.2f}", name
        assert cell[2] in (None, f"{natural:.2f}"), name
        assert len(some) == 3
        robustness[name] = robust
    one_of_two = min(robustness["correct"], robustness["fix-1-permute"])
    assert one_of_two > robustness["normal"] / 2 > 100 * robustness["correct-fix-1"]


def test_what_is_said_of_the_controls_was_judged_so():
    judged = {each.claim.id: each for each in questions.verdicts()}
    assert judged["either-suffices"].verdict == "holds in direction"
    assert judged["which-class-matters"].verdict == "holds in direction"
    assert judged["any-error-helps"].verdict == "does not hold"
    missed = judged["erring-images-matter"]
    assert missed.verdict == "undecided"
    assert missed.low < 0 < missed.high


def test_the_example_on_stored_datasets(capsys, monkeypatch):
    monkeypatch.chdir(places.ROOT)
    exec(_example("robust.sel"), {})
    first, *lines = capsys.readouterr().out.splitlines()
    robust, everything = map(float, first.split())
    assert robust > everything > 0
    assert "combined_capacity" in lines[0]
    assert len(lines) == 2 + 12


def test_the_example_on_manifolds(capsys):
    exec(_example("mc.mean_field_capacity"), {})
    lines = capsys.readouterr().out.splitlines()
    theory = float(re.search(r"capacity\D*([\d.]+)", "\n".join(lines))[1])
    for line in lines[-2:]:
        value, low, high = map(float, re.findall(r"[\d.]+", line))
        assert low <= value <= high
    assert theory > 0


def test_commands_of_the_readme_exist():
    parser = cli.build_parser()
    commands = re.findall(r"^(?:\S*/)?logitdist (?!.*…)([^#&\n]*)", README, flags=re.M)
    assert len(commands) >= 6
    for command in commands:
        parser.parse_args(command.split())
