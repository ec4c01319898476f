"""Surrogate logits: values against 30 digits, equations by their own residual."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logit_distributions.errors import ReproError
from paper.appendix_c import landscape, surrogate
from tests import naive_appendix_c

BETA = np.arange(0.25, 12.01, 0.25)
PRINTED_ONLY = ("printed", "flip")


def table(classes, variant, branch=1):
    f = surrogate.correct_roots(BETA, classes, variant)
    g = (
        surrogate.second_branch(BETA, classes)
        if branch == 2
        else surrogate.wrong_roots(BETA, classes, variant)
    )
    return np.stack([*f, *g], 1)


@pytest.mark.parametrize("classes", [3, 4, 10, 100])
@pytest.mark.parametrize("variant", surrogate.VARIANTS)
@pytest.mark.parametrize("branch", [1, 2])
def test_table_agrees_with_30_digits(classes, variant, branch):
    wanted = [naive_appendix_c.row(b, classes, variant, branch) for b in BETA]
    np.testing.assert_allclose(
        table(classes, variant, branch), wanted, rtol=1e-12, atol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("classes", [10, 100])
def test_near_the_poles_digits_are_kept(classes):
    for pole in (np.log(classes - 1), np.log(classes - 3)):
        for beta in (pole - 1e-7, pole + 1e-7):
            for variant in surrogate.VARIANTS:
                f = surrogate.correct_roots(beta, classes, variant)
                g = surrogate.wrong_roots(beta, classes, variant)
                wanted = naive_appendix_c.row(float(beta), classes, variant)
                # β itself is rounded; a simple pole magnifies that by 1e7.
                np.testing.assert_allclose([*f, *g], wanted, rtol=1e-7)


def test_flip_differs_from_printed_in_two_columns_only():
    difference = table(10, "flip") - table(10, "printed")
    assert (difference[:, [0, 1, 4, 5]] == 0).all()
    assert (difference[:, [2, 3]] != 0).all()


def test_where_the_roots_are_real():
    for classes, end in ((10, 2.890), (100, 5.288)):
        end_exact = np.log(2 * (classes - 1))
        assert end_exact == pytest.approx(end, abs=5e-4)
        for root in surrogate.correct_roots([end_exact - 1e-9, end_exact + 1e-9], classes):
            assert np.isfinite(root[0])
            assert np.isnan(root[1])
    printed = surrogate.correct_roots(BETA, 10, "printed")
    assert np.isfinite(printed).all()


def test_thresholds():
    assert surrogate.threshold(10, "flip") == pytest.approx(3.4962, abs=5e-5)
    assert surrogate.threshold(100, "flip") == pytest.approx(5.15, abs=5e-3)
    assert surrogate.threshold(10, "printed", "-") == pytest.approx(2.779, abs=5e-4)
    with pytest.raises(ReproError, match="no zero"):
        surrogate.threshold(10, "printed")
    with pytest.raises(ReproError, match="no zero"):
        surrogate.threshold(10, "corrected")


def test_flip_is_not_the_only_reading_with_a_threshold_of_3_5():
    assert abs(surrogate.other_threshold(10) - 3.5) < 0.006
    assert surrogate.other_threshold(10) > surrogate.threshold(10)


def test_errors_say_what_was_expected():
    with pytest.raises(ReproError, match="unknown variant 'other'"):
        surrogate.correct_roots(1.0, 10, "other")
    with pytest.raises(ReproError, match="at least 3 classes, got 2"):
        surrogate.wrong_roots(1.0, 2)


# The expansion, eq. (3)


@settings(max_examples=25, deadline=None)
@given(
    v=st.lists(st.floats(-3, 3), min_size=2, max_size=6),
    beta=st.floats(0.1, 8),
    wrong=st.booleans(),
)
def test_expansion_is_the_taylor_polynomial(v, beta, wrong):
    full = [0.0, *v]
    expansion = surrogate.expansion(full, beta, 0, int(wrong))
    assert expansion == pytest.approx(
        float(naive_appendix_c.expansion(full, beta, 0, int(wrong))), abs=1e-9
    )


def test_gradient_and_hessian_by_differences():
    draws = np.random.default_rng(0)
    v, step = draws.normal(size=7), 1e-5
    v[2] = 0
    axes = np.delete(np.eye(7), 2, 0) * step

    def slope(x):
        return surrogate.expansion_gradient(x, 1.7, 2, 4)

    loss = [
        surrogate.expansion(v + e, 1.7, 2, 4) - surrogate.expansion(v - e, 1.7, 2, 4) for e in axes
    ]
    np.testing.assert_allclose(slope(v), np.array(loss) / (2 * step), atol=1e-9)
    numeric = np.array([slope(v + e) - slope(v - e) for e in axes]) / (2 * step)
    np.testing.assert_allclose(surrogate.expansion_hessian(v, 1.7, 2), numeric, atol=1e-9)


def test_expansion_error_is_of_fourth_order():
    draws = np.random.default_rng(1)
    v = draws.normal(size=10)
    v[0] = 0
    z = np.zeros(10)
    z[0] = 3.0
    errors = [
        abs(surrogate.expansion(t * v, 3.0, 0, 4) - surrogate.cross_entropy(z + t * v, 4))
        for t in (0.1, 0.05)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.1)


# Errata of eqs. (4) and (5). Whoever "fixes" the printed variant breaks these.


@pytest.mark.parametrize("classes", [4, 10, 100])
def test_only_the_corrected_f_is_stationary(classes):
    for share in (0.2, 0.6, 0.95):
        beta = share * np.log(2 * (classes - 1))
        for sign in (0, 1):
            for variant in surrogate.VARIANTS:
                f = float(surrogate.correct_roots(beta, classes, variant)[sign])
                v = surrogate.correct_logits(0.0, f, classes)
                left = landscape.residual(v, beta, wrong=False)
                scale = max(1.0, f**2) / (np.exp(beta) + classes - 1)
                assert (left < 1e-12 * scale) == (variant == "corrected")


def test_the_printed_f_leaves_the_stated_residual():
    for beta in (0.5, 2.0, 3.5, 8.0):
        a = np.exp(-beta)
        B, Z = 1 + 9 * a, np.exp(beta) + 9
        for f in surrogate.correct_roots(beta, 10, "printed"):
            v = surrogate.correct_logits(0.0, float(f), 10)
            left = surrogate.expansion_gradient(v, beta, 0, 0) * Z
            np.testing.assert_allclose(left, 1 + a**2 / B**2, rtol=1e-9)


@pytest.mark.parametrize("classes", [4, 10, 100])
def test_only_the_corrected_g_and_psi_are_stationary(classes):
    for beta in (0.5, 2.1, 3.5, 6.0, 11.0):
        for variant in surrogate.VARIANTS:
            g_plus, psi_plus, g_minus, psi_minus = surrogate.wrong_roots(beta, classes, variant)
            for g, psi in ((g_plus, psi_plus), (g_minus, psi_minus)):
                v = surrogate.wrong_logits(0.0, float(g), float(psi), classes)
                left = landscape.residual(v, beta, wrong=True)
                assert (left < 1e-9) == (variant == "corrected"), (beta, variant, g)


def test_mending_one_misprint_does_not_help():
    beta, n = 3.5, 10
    a = np.exp(-beta)
    A, B, D = 1 - 9 * a, 1 + 9 * a, 1 - 7 * a
    with_exp = np.sqrt(1 + 2 * np.exp(beta) * A * D / B)
    exact = -(B / A) * (1 + with_exp)
    assert exact == pytest.approx(float(surrogate.wrong_roots(beta, n).g_plus), rel=1e-13)
    kappa = float(surrogate.kappa(beta, n))
    assert exact == pytest.approx(-(D / A) * (B / D + kappa), rel=1e-13)
    only_exp = -(D / A) * (1 + kappa)
    only_lead = -(B / A) * (1 + np.sqrt(1 + 2 * A * D / B))
    for g in (only_exp, only_lead):
        for psi in (2 * (a * g - B) / D, 2 * (a * g / A - B / D)):
            v = surrogate.wrong_logits(0.0, g, psi, n)
            assert landscape.residual(v, beta, wrong=True) > 1e-3
    v = surrogate.wrong_logits(0.0, exact, 2 * (a * exact / A - B / D), n)
    assert landscape.residual(v, beta, wrong=True) > 1e-3


def test_printed_kappa():
    g = surrogate.wrong_roots(BETA, 10, "printed").g_plus
    a = np.exp(-BETA)
    A, D = 1 - 9 * a, 1 - 7 * a
    np.testing.assert_allclose(-(D / A) * (1 + surrogate.kappa(BETA, 10, "printed")), g, rtol=1e-12)


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_second_branch_is_stationary(classes):
    for beta in (0.5, 3.5, 9.0):
        g_plus, psi_plus, g_minus, psi_minus = surrogate.second_branch(beta, classes)
        for g, psi in ((g_plus, psi_plus), (g_minus, psi_minus)):
            assert psi == 0
            v = surrogate.wrong_logits(0.0, float(g), 0.0, classes)
            assert landscape.residual(v, beta, wrong=True) < 1e-12
