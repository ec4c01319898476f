"""``python -m paper.appendix_c``, and the page and figures of Appendix C."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from logit_distributions.errors import ReproError
from paper import figureC1, figureC2, figureC3, style
from paper.appendix_c import drawing, errata, page, surrogate, verdicts
from paper.appendix_c.__main__ import COLUMNS, main, parse_range
from paper.claims.verdicts import register
from tests import naive_appendix_c


@pytest.mark.parametrize("variant", surrogate.VARIANTS)
@pytest.mark.parametrize("branch", [1, 2])
def test_table_prints_every_digit(capsys, variant, branch):
    arguments = ("--classes", "10", "--variant", variant, "--beta", "0.25:12:0.25")
    assert main(["table", *arguments, "--branch", str(branch)]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert tuple(header) == COLUMNS
    assert len(rows) == 48
    for row in rows:
        beta, *values = map(float, row)
        wanted = naive_appendix_c.row(beta, 10, variant, branch)
        np.testing.assert_allclose(values, wanted, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_not_real_is_nan(capsys):
    main(["table", "--beta", "3:3:1"])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("3.0,nan,nan,")


def test_range_includes_both_ends_exactly():
    assert parse_range("0.1:0.5:0.1") == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert parse_range("2:2:1") == [2.0]


@pytest.mark.parametrize(
    "text", ["1:2", "1:2:0.3", "2:1:0.5", "1:2:0", "a:b:c", "1:2:nan", "0:inf:1"]
)
def test_a_bad_range_is_refused(text):
    with pytest.raises(ReproError, match="START:STOP:STEP"):
        parse_range(text)


def test_audit_names_everything_and_succeeds(capsys, monkeypatch, tmp_path):
    pytest.importorskip("sympy")
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    assert main([]) == 0
    out = capsys.readouterr().out
    for erratum in errata.errata():
        assert f"{erratum.place}: " in out
    for claim in verdicts.JUDGES:
        assert f"{claim}: " in out
    assert "NOT BORNE OUT" not in out


@pytest.mark.parametrize("outcome", ["failed: x", "not run: needs sympy"])
def test_audit_fails_unless_every_proof_ran(capsys, monkeypatch, tmp_path, outcome):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path))
    monkeypatch.setattr(errata, "run_proofs", lambda: {"one": "proved", "two": outcome})
    assert main([]) == 1
    assert outcome in capsys.readouterr().out


def test_page_in_the_repository_has_every_erratum_and_claim():
    committed = page.PAGE.read_text(encoding="utf-8")
    for erratum in errata.errata():
        assert f"| {erratum.place} | {erratum.printed} |" in committed
    for claim in register():
        if claim.id in verdicts.JUDGES:
            assert f"| {claim.id} | {claim.place} | “{claim.quotation}” |" in committed


@pytest.mark.parametrize("module", [figureC1, figureC2, figureC3])
def test_figure_is_written_twice(module, monkeypatch, tmp_path):
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path))
    name = module.__name__.split(".")[-1]
    assert style.main(name, module.make) == 0
    assert (tmp_path / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_marked_thresholds():
    marks = drawing.thresholds()
    assert marks["printed g₋"] == pytest.approx(2.779, abs=5e-4)
    assert marks["flip g₊"] == pytest.approx(3.496, abs=5e-4)
    assert f"{np.log(18):.3f}" in figureC1.make().get_label()
    assert f"{surrogate.other_threshold(10):.3f}" in figureC1.make().get_label()
