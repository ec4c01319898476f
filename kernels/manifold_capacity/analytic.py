"""Capacities in closed form: points, balls."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, hypot, inf, log, pi, sqrt
from typing import Literal

import numpy as np
from scipy.special import chdtri, gammaln, ndtr

from manifold_capacity._input import choice, real_number

FAR = 50.0
"""Standard deviations beyond which a Gaussian has no mass in float64."""

LARGE = 1e8
"""Margins from which α_point(κ) is κ⁻², right to 1 part in 10¹⁵."""

MANY = 1e4
"""Dimensions from which the norm of a Gaussian vector varies so little that fixed nodes do."""


def _gauss(x: float) -> float:
    return exp(-0.5 * x * x) / sqrt(2 * pi)


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
        Points per feature; where that is beyond float64, below κ = -37, infinite.

    Examples
    --------
    >>> import manifold_capacity as mc
    >>> mc.point_capacity(0.0)
    2.0
    """
    kappa = real_number("kappa", kappa, "margin")
    if kappa >= -5:
        return 1 / ((1 + kappa * kappa) * float(ndtr(kappa)) + kappa * _gauss(kappa))
    # There the closed form is a difference of nearly equal numbers. With t = κ - v/z, z = -κ:
    # 1/α = φ(z) z⁻³ ∫₀^∞ v² exp(-v - v²/2z²) dv.
    from scipy.integrate import quad

    z = -kappa
    moment = quad(lambda v: v * v * exp(-v - (v / z) ** 2 / 2), 0, inf, epsabs=0, epsrel=1e-12)[0]
    exponent = z * z / 2 + log(2 * pi) / 2 + 3 * log(z) - log(float(moment))
    return exp(exponent) if exponent < 709 else inf


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
        Balls per feature; infinite or zero where that is beyond float64.

    Examples
    --------
    >>> import manifold_capacity as mc
    >>> round(mc.ball_capacity(radius=1.0, dimension=10), 3)
    0.182
    """
    radius = real_number("radius", radius)
    dimension = real_number("dimension", dimension)
    kappa = real_number("kappa", kappa, "margin")
    choice("approximation", approximation, ("exact", "paper"))
    if radius < 0 or dimension <= 0:
        raise ValueError(f"expected radius >= 0 and dimension > 0, got {radius} and {dimension}")
    length = hypot(1, radius)  # of the point on the sphere farthest from the origin
    if approximation == "paper":
        margin = kappa / length + radius / length * sqrt(dimension)
        if margin * length < LARGE:
            return length * length * point_capacity(margin * length)
        return 1 / (1 / length / length + margin * margin)
    if radius == 0:
        return point_capacity(kappa)
    if kappa > 1e150:
        return 0.0

    def mean_over_t0(r: float) -> float:
        """∫_l^h Dt (ar + b(κ - t))² + ∫_-∞^l Dt ((t-κ)² + r²); l = κ - r/R, h = κ + Rr."""
        low = min(max(kappa - r / radius, -FAR), FAR)
        high = min(max(kappa + radius * r, -FAR), FAR)
        along, scale = radius / length * r + kappa / length, 1 / length
        mass = float(ndtr(high) - ndtr(low) if high < 0 else ndtr(-low) - ndtr(-high))
        first = _gauss(low) - _gauss(high)
        second = mass + low * _gauss(low) - high * _gauss(high)
        sphere = 0.0
        if high > -FAR and low < FAR:
            sphere = along * along * mass - 2 * along * scale * first + scale * scale * second
        inside = 0.0
        if low > -FAR:
            inside = (1 + kappa * kappa + r * r) * float(ndtr(low))
            inside += (2 * kappa - low) * _gauss(low)
        return max(sphere, 0.0) + inside

    inverse = _mean_over_norm(mean_over_t0, dimension)
    return 1 / inverse if inverse > 1e-308 else inf


def _mean_over_norm(function: Callable[[float], float], dimension: float) -> float:
    """Return the mean of a function of r ~ χ_D."""
    if dimension > MANY:  # nodes around the mode m: (D-1) log(r/m) - (r² - m²)/2 = (D-1) (...)
        mode = sqrt(dimension - 1)
        nodes, weights = np.polynomial.legendre.leggauss(100)
        nodes = 10 * nodes
        u = nodes / mode
        weights = weights * np.exp((dimension - 1) * (np.log1p(u) - u - u * u / 2))
        return float(weights @ [function(mode + z) for z in nodes.tolist()] / weights.sum())
    from scipy.integrate import quad  # slow to import, and needed here only

    log_norm = (dimension / 2 - 1) * log(2) + float(gammaln(dimension / 2))
    start = function(0.0)  # which takes the pole of the density at 0 out for D < 1

    def integrand(r: float) -> float:
        return exp((dimension - 1) * log(r) - r * r / 2 - log_norm) * (function(r) - start)

    mean = quad(
        integrand,
        0,
        sqrt(chdtri(max(dimension, 1.0), 1e-18)),
        points=[sqrt(chdtri(max(dimension, 1.0), share)) for share in (0.999, 0.5, 0.001)],
        epsabs=0,
        epsrel=1e-11,
        limit=500,
        full_output=1,  # no warning where rounding ends it
    )[0]
    return start + float(mean)
