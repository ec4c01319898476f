"""The random-matrix estimate of the Jacobian, and λ*; C.3."""

from __future__ import annotations

import numpy as np
import pytest

from logit_distributions.errors import ReproError
from paper.appendix_c import errata, resolvent


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
