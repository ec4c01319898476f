"""Appendix C: values against 30 digits, equations by their own residual, every erratum."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logit_distributions.errors import ReproError
from paper.appendix_c import errata, landscape, resolvent, response, surrogate
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
    found = surrogate.expansion(full, beta, 0, int(wrong))
    assert found == pytest.approx(
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


# All stationary points, and their kinds


@pytest.mark.parametrize("beta", [0.5, 2.0, 2.5, 3.5, 5.0, 8.0])
@pytest.mark.parametrize("wrong", [False, True])
def test_listed_points_are_stationary_and_include_the_symmetric(beta, wrong):
    points = landscape.stationary_points(beta, 10, wrong=wrong)
    for point in points:
        size = max(1.0, np.abs(point.v).max())
        assert landscape.residual(point.v, beta, wrong=wrong) < 1e-12 * size
    if wrong:
        assert len(points) == 18
        first = surrogate.wrong_roots(beta, 10)
        second = surrogate.second_branch(beta, 10)
        for g, psi in ((first[:2]), (first[2:]), (second[:2]), (second[2:])):
            wanted = surrogate.wrong_logits(0.0, float(g), float(psi), 10)
            assert any(np.allclose(p.v, wanted, atol=1e-8) for p in points)
    else:
        for f in surrogate.correct_roots(beta, 10):
            wanted = surrogate.correct_logits(0.0, float(f), 10)
            assert np.isnan(f) or any(np.allclose(p.v, wanted, atol=1e-8) for p in points)
        assert (len(points) == 0) == (beta > np.log(18))


def test_no_other_point_is_found_by_newton():
    draws = np.random.default_rng(3)
    for wrong in (False, True):
        beta = 2.5
        known = np.array(
            [np.sort(p.v[1 + wrong :]) for p in landscape.stationary_points(beta, 10, wrong=wrong)]
        )
        found = 0
        for _ in range(60):
            v = np.append(0, draws.normal(scale=4, size=9))
            for _ in range(60):
                gradient = surrogate.expansion_gradient(v, beta, 0, int(wrong))
                v[1:] -= np.linalg.solve(surrogate.expansion_hessian(v, beta, 0), gradient)
            if landscape.residual(v, beta, wrong=wrong) < 1e-12:
                found += 1
                distance = np.abs(known - np.sort(v[1 + wrong :])).max(1).min()
                assert distance < 1e-6
        assert found > 10


def test_no_misclassified_minimum_lies_in_s():
    for classes in (4, 10, 40):
        for beta in np.linspace(0.2, 12, 30):
            points = landscape.stationary_points(float(beta), classes, wrong=True)
            minima = [p for p in points if p.falling == 0]
            assert len(minima) == 1
            assert not minima[0].admissible
            g = float(surrogate.second_branch(beta, classes).g_plus)
            assert minima[0].v[1] == pytest.approx(g, rel=1e-9)
            assert any(p.admissible for p in points)


def test_kinds_of_the_corrected_points():
    def falling(v, beta):
        return landscape.falling_directions(v, beta)

    for beta in (0.5, 2.0, 2.25, 2.8):
        f = float(surrogate.correct_roots(beta, 10).f_plus)
        expected = 0 if beta < np.log(9) else 8
        assert falling(surrogate.correct_logits(0.0, f, 10), beta) == expected
    for beta in (2.3, 3.5, 8.0):
        g, psi, *_ = surrogate.wrong_roots(beta, 10)
        assert falling(surrogate.wrong_logits(0.0, float(g), float(psi), 10), beta) == 9


def test_exact_loss_falls_at_every_surrogate():
    for beta in (1.0, 3.5, 8.0):
        assert errata.exact_slope(beta) > 0.01
    t = np.array([5.0, 10.0, 40.0])
    right = [surrogate.cross_entropy([3.0, *[-x] * 9], 0) for x in t]
    wrong = [surrogate.cross_entropy([3.0, 3.0, *[-x] * 8], 1) for x in t]
    assert (np.diff(right) < 0).all()
    assert (np.diff(wrong) < 0).all()
    assert right[-1] == pytest.approx(0, abs=1e-12)
    assert wrong[-1] == pytest.approx(np.log(2), abs=1e-12)
    assert min(wrong) >= np.log(2)


# Responses, eqs. (7) to (10)


def test_gap_theorem_for_any_jacobian():
    draws = np.random.default_rng(4)
    for _ in range(20):
        J = draws.normal(size=(10, 30))
        z = surrogate.correct_logits(draws.uniform(0.5, 6), draws.uniform(-3, 0), 10)
        softmax = np.exp(z) / np.exp(z).sum()
        dz = response.linear_response(J, softmax - np.eye(10)[0], 0.1)
        to_mean = dz[0] - dz[1:].mean()
        assert to_mean == pytest.approx(response.gap_change(J, 0, 0.1), rel=1e-9)
        assert dz[0] - dz[1:].max() <= to_mean < 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(3, 12))
def test_eight_nine_and_ten(seed, classes):
    draws = np.random.default_rng(seed)
    z, omega = draws.normal(size=(8, classes)), draws.uniform(size=8)
    changes = []
    for label in range(classes):
        dz = response.equation_8(omega, z, label, 0.1)
        changes.append(dz[label] - np.delete(dz, label).mean())
        assert changes[-1] == pytest.approx(
            response.equation_9_for_label(omega, z, label, 0.1), rel=1e-9
        )
    nine = response.equation_9(omega, z, 0.1)
    assert np.mean(changes) == pytest.approx(nine, rel=1e-9)
    assert nine <= 0
    b1, f, b2, g, psi = draws.normal(size=5)
    rows = np.stack(
        [surrogate.correct_logits(b1, f, classes), surrogate.wrong_logits(b2, g, psi, classes)]
    )
    exact = response.equation_9(np.array([0.7 * 2.0, 0.3 * 5.0]), rows, 1.0)
    settings_10 = {"error": 0.3, "classes": classes, "omega_correct": 2.0, "omega_wrong": 5.0}
    corrected = response.equation_10(b1, f, b2, g, psi, **settings_10)
    assert corrected == pytest.approx(exact, rel=1e-9)
    printed = response.equation_10(b1, f, b2, g, psi, **settings_10, equation="printed")
    missing = 2 * (classes - 2) / (classes - 1) * 1.5 * (g - psi) ** 2
    assert printed - corrected == pytest.approx(missing, rel=1e-9)


def test_single_sum_of_eq_8_drops_terms():
    sample = errata.ensemble()
    omega = resolvent.omega_matrix(sample.features, sample.multiplier)
    M = response.equation_8_matrix(omega, 3)
    J = resolvent.printed_jacobian(sample.features, sample.surrogates, sample.multiplier, 3)
    np.testing.assert_allclose(J @ J.T, sample.surrogates.T @ M @ sample.surrogates, rtol=1e-8)
    assert errata.off_diagonal_share(sample, 3) > 0.01


def test_shielding_depends_on_the_misprint():
    beta = np.linspace(3.5, 10, 200)
    printed = response.shielding_gap(beta, variant="flip", equation="printed").min()
    corrected = response.shielding_gap(beta, variant="flip", equation="corrected").min()
    assert printed < 0.5
    assert corrected == pytest.approx(8.117, abs=5e-3)


def test_relative_gap_change_against_its_definition():
    b1, b2, e = 4.0, 5.0, 0.196
    f = float(surrogate.correct_roots(b1, 10, "flip").f_plus)
    g, psi, *_ = surrogate.wrong_roots(b2, 10, "flip")
    gap = b1 - f
    Q = (1 - e) * gap**2 + e * ((b2 - g) ** 2 + 16 / 9 * (b2 - psi) * (g - psi))
    common = {"error": e, "variant": "flip", "equation": "corrected"}
    assert response.relative_gap_change(b1, b2, **common) == pytest.approx(0.1 * Q / gap)
    normalised = response.relative_gap_change(b1, b2, **common, normalised=True)
    assert normalised == pytest.approx(0.1 * np.sqrt(Q) / gap)
    assert np.isnan(
        response.relative_gap_change(b1, b2, error=e, variant="corrected", equation="printed")
    )


def test_mean_field_loss_is_the_exact_loss_of_the_surrogates():
    b1, b2, e = 2.0, 4.0, 0.196
    for variant in surrogate.VARIANTS:
        f = float(surrogate.correct_roots(b1, 10, variant).f_plus)
        g, psi, *_ = surrogate.wrong_roots(b2, 10, variant)
        right = surrogate.cross_entropy(surrogate.correct_logits(b1, f, 10), 0)
        wrong = surrogate.cross_entropy(surrogate.wrong_logits(b2, float(g), float(psi), 10), 1)
        found = response.mean_field_loss(b1, b2, error=e, variant=variant)
        assert found == pytest.approx((1 - e) * right + e * wrong, rel=1e-12)


# The Jacobian and λ*, C.3


@pytest.fixture
def problem():
    draws = np.random.default_rng(5)
    X = draws.normal(size=(30, 8))
    return X / np.linalg.norm(X, axis=1, keepdims=True), draws.normal(scale=3, size=(30, 5))


@pytest.mark.parametrize("bound", [1.0, 20.0, 60.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_jacobians_by_differences(problem, bound, noise):
    X, Z = problem
    fixed = resolvent.multiplier(X, Z, bound, noise)
    assert resolvent.squared_norm(fixed, X, Z, noise) == pytest.approx(bound, rel=1e-9)

    def numeric(multiplier):
        columns = []
        for e in 1e-5 * np.eye(8):
            sides = []
            for sign in (1, -1):
                moved = X.copy()
                moved[3] += sign * e
                sides.append(resolvent.estimated_logits(moved, Z, multiplier(moved))[3])
            columns.append((sides[0] - sides[1]) / 2e-5)
        return np.stack(columns, 1)

    at_fixed = numeric(lambda moved: fixed)
    following = numeric(lambda moved: resolvent.multiplier(moved, Z, bound, noise))
    exact = resolvent.jacobian(X, Z, fixed, 3)
    varying = resolvent.jacobian(X, Z, fixed, 3, noise=noise)
    np.testing.assert_allclose(exact, at_fixed, atol=1e-8)
    np.testing.assert_allclose(varying, following, atol=1e-7)
    printed = resolvent.printed_jacobian(X, Z, fixed, 3)
    size = np.linalg.norm(exact)
    assert np.linalg.norm(printed - exact) > 0.01 * size
    assert np.linalg.norm(varying - exact) > 1e-3 * size


def test_jacobian_by_autodiff(problem):
    torch = pytest.importorskip("torch")
    X, Z = problem
    features, surrogates = torch.tensor(X), torch.tensor(Z)

    def logits(x, frozen):
        moved = torch.cat([features[:3], x[None], features[4:]])
        held = features if frozen else moved
        R = torch.linalg.inv(held.T @ held + 2.0 * torch.eye(8, dtype=torch.float64))
        return x @ R @ moved.T @ surrogates

    for frozen, ours in ((True, resolvent.printed_jacobian), (False, resolvent.jacobian)):
        J = torch.autograd.functional.jacobian(
            lambda x, frozen=frozen: logits(x, frozen), features[3]
        )
        np.testing.assert_allclose(ours(X, Z, -2.0, 3), J.numpy(), atol=1e-10)


def test_noise_enters_the_multiplier_equation_n_times():
    mean, error, printed, corrected = errata.noise_norm()
    assert abs(mean - corrected) < 4 * error
    assert abs(mean - printed) > 20 * error


def test_squared_norm_rises_below_the_spectrum(problem):
    X, Z = problem
    smallest = np.linalg.eigvalsh(X.T @ X)[0]
    values = [resolvent.squared_norm(m, X, Z, 0.2) for m in np.linspace(-50, smallest - 1e-3, 200)]
    assert (np.diff(values) > 0).all()


def test_a_bound_that_does_not_bind_is_refused():
    draws = np.random.default_rng(6)
    X, Z = draws.normal(size=(5, 9)), draws.normal(size=(5, 3))
    interpolating = float((np.linalg.pinv(X) @ Z).ravel() @ (np.linalg.pinv(X) @ Z).ravel())
    tight = resolvent.multiplier(X, Z, 0.5 * interpolating)
    assert tight < 0
    assert resolvent.squared_norm(tight, X, Z) == pytest.approx(0.5 * interpolating, rel=1e-9)
    with pytest.raises(ReproError, match="too loose"):
        resolvent.multiplier(X, Z, 2 * interpolating)


# The audit


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
