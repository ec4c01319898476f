"""Capacities in closed form: points, balls."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.special import chdtri, gammaln, ndtr


def _gauss(x: float) -> float:
    return float(np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi))


def point_capacity(kappa: float = 0.0) -> float:
    """Capacity of random points at margin κ (Gardner 1988; paper, A.4.2).

    ``1/α = ∫_{-∞}^{κ} Dt (t - κ)² = (1 + κ²) Φ(κ) + κ φ(κ)``; 2 at κ = 0.

    Parameters
    ----------
    kappa : float
        Margin, in units of the norm of the points.

    Returns
    -------
    float
        Points per feature.
    """
    if not np.isfinite(kappa):
        raise ValueError(f"kappa: expected a finite margin, got {kappa}")
    if kappa < -5:  # Mills' ratio, where the closed form is a difference of nearly equal numbers
        from scipy.integrate import quad

        inverse, _ = quad(lambda t: (t - kappa) ** 2 * _gauss(t), -np.inf, kappa, epsrel=1e-12)
        return 1 / float(inverse)
    return 1 / ((1 + kappa**2) * float(ndtr(kappa)) + kappa * _gauss(kappa))


def ball_capacity(
    radius: float,
    dimension: float,
    kappa: float = 0.0,
    approximation: Literal["exact", "paper"] = "exact",
) -> float:
    """Capacity of balls with centres in random directions (Chung, Lee, Sompolinsky 2018).

    Parameters
    ----------
    radius : float
        Relative to the norm of the centre.
    dimension : float
        Of the subspace that each ball fills; centres are orthogonal to it. A whole number
        for ``"exact"`` to mean a ball, though any positive one is accepted.
    kappa : float
        Margin, in units of the norm of the centre.
    approximation : {"exact", "paper"}
        ``"exact"`` averages over the norm r ~ χ_D of the Gaussian vector: the anchor is on
        the sphere for -t₀ > κ - r/R and v = 0 below. ``"paper"`` is α_Ball of A.4.2 for
        large D, ``(1 + R²) α_point(κ + R√D)``; as R → ∞ it gives 1/D, the truth 1/(D + ½).

    Returns
    -------
    float
        Balls per feature.
    """
    if not (0 <= radius < np.inf and 0 < dimension < np.inf and np.isfinite(kappa)):
        raise ValueError(
            f"expected radius >= 0, dimension > 0 and a margin, all finite, got {radius}, "
            f"{dimension} and {kappa}"
        )
    if approximation == "paper":
        return (1 + radius**2) * point_capacity(kappa + radius * float(np.sqrt(dimension)))
    if approximation != "exact":
        raise ValueError(f"approximation: expected 'exact' or 'paper', got {approximation!r}")
    if radius == 0:
        return point_capacity(kappa)
    from scipy.integrate import quad  # slow to import, and needed here only

    def mean_over_t0(r: float) -> float:
        # With h = κ + Rr and l = κ - r/R: ∫_l^h Dt (h - t)²/(1+R²) + ∫_-∞^l Dt ((t-κ)² + r²)
        high, low = kappa + radius * r, kappa - r / radius

        def moment(c: float, x: float) -> float:  # ∫_{-∞}^{x} Dt (c - t)²
            return (1 + c * c) * float(ndtr(x)) + (2 * c - x) * _gauss(x)

        sphere = (moment(high, high) - moment(high, low)) / (1 + radius**2)
        inside = moment(kappa, low) + r * r * float(ndtr(low))
        return sphere + inside

    log_norm = (dimension / 2 - 1) * np.log(2) + gammaln(dimension / 2)

    def integrand(r: float) -> float:
        return float(np.exp((dimension - 1) * np.log(r) - r * r / 2 - log_norm)) * mean_over_t0(r)

    inverse, _ = quad(
        integrand,
        0,
        float(np.sqrt(chdtri(dimension, 1e-18))),
        points=[float(np.sqrt(chdtri(dimension, share))) for share in (0.999, 0.5, 0.001)],
        epsabs=0,
        epsrel=1e-11,
        limit=500,
    )
    return 1 / float(inverse)
