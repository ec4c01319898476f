"""The errata: every one stands; without sympy no proof counts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np

from paper.appendix_c import errata


def test_every_erratum_stands_and_none_by_the_corrected_formula():
    for erratum in errata.errata():
        assert erratum.stands, erratum
        assert erratum.residual > 1e-3
        assert np.isnan(erratum.corrected) or erratum.corrected < erratum.tolerance


def test_theory_needs_neither_torch_nor_sympy():
    names = ("surrogate", "landscape", "response", "resolvent", "networks", "errata", "verdicts")
    code = "import sys, paper.appendix_c.__main__\n" + "\n".join(
        f"import paper.appendix_c.{n}" for n in names
    )
    code += "\nsys.exit(any(m in sys.modules for m in ('torch', 'sympy', 'mpmath')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_sympy_no_proof_counts(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "proved" not in errata.run_proofs().values()
