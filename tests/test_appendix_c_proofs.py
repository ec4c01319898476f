"""The derivations of Appendix C, and that they fail where they should."""

from __future__ import annotations

import pytest

pytest.importorskip("sympy")

from paper.appendix_c import proofs
from paper.appendix_c.errata import errata


@pytest.mark.parametrize("name", proofs.PROOFS)
def test_proof(name):
    proofs.PROOFS[name]()


def test_errata_name_proofs_that_exist():
    named = {name for erratum in errata() for name in erratum.proofs}
    assert named <= set(proofs.PROOFS)
    assert len(named) >= 9


@pytest.mark.parametrize(
    ("symbol", "value", "broken"),
    [
        ("A", 1 - proofs.a * (proofs.N - 2), "correct-points"),
        ("D", 1 - proofs.a * (proofs.N - 1), "wrong-points"),
        ("B", 1 + proofs.a * (proofs.N - 2), "wrong-points"),
        ("Z", 1 / proofs.a + proofs.N, "wrong-points"),
        ("B", 1 + proofs.a * (proofs.N - 2), "kinds"),
    ],
)
def test_a_false_formula_is_not_proved(monkeypatch, symbol, value, broken):
    monkeypatch.setattr(proofs, symbol, value)
    with pytest.raises(proofs.ProofError):
        proofs.PROOFS[broken]()
