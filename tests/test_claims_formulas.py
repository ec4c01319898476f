"""The register names nothing but its vocabulary, and a slip in it is one line."""

import pytest

from logit_distributions.errors import ReproError
from paper.claims import formulas, terms, verdicts

VOCABULARY = {"one": lambda at=1: at, "least": min, "epochs": (1, 2, 3)}


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("one() + 2 / -one(at=2)", 0),
        ("least(one(e) - 1 for e in epochs if e > 1)", 1),
        ("(lambda e: e * 2)(3)", 6),
        ('f"fix-{one()}"', "fix-1"),
    ],
)  # fmt: skip
def test_measures_are_arithmetic_of_the_vocabulary(formula, expected):
    assert formulas.value(formula, VOCABULARY) == expected


@pytest.mark.parametrize(
    ("formula", "problem"),
    [
        ("one(", "SyntaxError"),
        ("two()", "unknown name 'two'; expected one of one, least, epochs"),
        ("__import__('os')", "unknown name '__import__'"),
        ("one.__class__", "'one.__class__' is no part of a measure"),
        ('f"{one.__globals__}"', "'one.__globals__' is no part"),
        ("epochs[0]", r"'epochs\[0\]' is no part"),
        ("1 if epochs else 2", "is no part of a measure"),
        ("(x := 1)", "is no part of a measure"),
        ("one(1, 2)", "TypeError: .* takes from 0 to 1 positional"),
        ("one\0", "null bytes"),
        ("-" * 5000 + "1", "RecursionError|MemoryError|too many nested"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_wrong_measure_is_one_line(formula, problem):
    with pytest.raises(ReproError, match=problem) as error:
        formulas.value(formula, VOCABULARY)
    assert "\n" not in str(error.value)


def test_a_measure_of_what_is_not_there_is_one_line():
    for formula in ('robust("nosuch")', 'mean("nosuch", "st")', 'natural("st", 3)', "least(1)"):
        with pytest.raises(ReproError):
            terms.evaluate(formula, "cifar10", "small")


GOOD = '[[claim]]\nid = "a"\nplace = "1"\nquotation = "q"\nstatistic = "s"\nartefact = "figure1"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GOOD, None),
        ("[[claim]\n", "expected TOML"),
        ("", "expected TOML with .*claim"),
        (GOOD + 'measur = "x"\n', "claim 'a': unknown field 'measur'"),
        (GOOD.replace("statistic", "statistics"), "unknown field 'statistics'; no 'statistic'"),
        (GOOD + "measure = 3\n", "measure is no text"),
    ],
)
def test_a_wrong_register_is_one_line(text, problem, tmp_path):
    (tmp_path / "claims.toml").write_text(text)
    if problem is None:
        assert [claim.id for claim in verdicts.read(tmp_path / "claims.toml")] == ["a"]
    else:
        with pytest.raises(ReproError, match=problem) as error:
            verdicts.read(tmp_path / "claims.toml")
        assert "\n" not in str(error.value)
