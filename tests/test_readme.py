"""The README's examples run as printed."""

import re

from logit_distributions import cli
from logit_distributions.store import places
from paper import table2

README = (places.ROOT / "README.md").read_text()


def _example(word: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (block,) = (block for block in blocks if word in block)
    return block


def test_table_2_is_shown_as_printed():
    assert table2.make().text().strip() in README


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
