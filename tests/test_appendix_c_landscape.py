"""All stationary points of eq. (3), and their kinds."""

from __future__ import annotations

import numpy as np
import pytest

from paper.appendix_c import errata, landscape, surrogate


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
        reached = 0
        for _ in range(60):
            v = np.append(0, draws.normal(scale=4, size=9))
            for _ in range(60):
                gradient = surrogate.expansion_gradient(v, beta, 0, int(wrong))
                v[1:] -= np.linalg.solve(surrogate.expansion_hessian(v, beta, 0), gradient)
            if landscape.residual(v, beta, wrong=wrong) < 1e-12:
                reached += 1
                distance = np.abs(known - np.sort(v[1 + wrong :])).max(1).min()
                assert distance < 1e-6
        assert reached > 10


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
