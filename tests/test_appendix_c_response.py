"""What an attack does to the surrogates, eqs. (7) to (10)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper.appendix_c import errata, resolvent, response, surrogate


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
        loss = response.mean_field_loss(b1, b2, error=e, variant=variant)
        assert loss == pytest.approx((1 - e) * right + e * wrong, rel=1e-12)
