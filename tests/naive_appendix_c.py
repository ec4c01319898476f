"""Equations (4) and (5) in 30 digits, letter by letter, without a stable form."""

from __future__ import annotations

from mpmath import exp, mp, mpf, sqrt

DIGITS = 30


def _root(x):
    return sqrt(x) if x >= 0 else mp.nan


def row(beta: float, classes: int, variant: str, branch: int = 1) -> list[float]:
    """Return f₊, f₋, g₊, ψ₊, g₋, ψ₋."""
    with mp.workdps(DIGITS):
        b, n = mpf(beta), classes
        a = exp(-b)
        A, B, D, Z = 1 - a * (n - 1), 1 + a * (n - 1), 1 - a * (n - 3), exp(b) + n - 1
        if variant == "corrected":
            f_root = _root(2 * a * (n - 1) - 1)
            g_root = _root(1 + 2 * exp(b) * A * D / B)
            g = [-(B / A) * (1 + g_root), -(B / A) * (1 - g_root)]
            psi = [2 * (a * x - B) / D for x in g]
        else:
            f_root = _root(1 + 2 * a**2 * A / B**2)
            kappa = (B / D) * _root(1 + 2 * A * D / B)
            g = [-(D / A) * (1 + kappa), -(D / A) * (1 - kappa)]
            if variant == "flip":
                g[0] = +(D / A) * (1 + kappa)
            psi = [2 * (a / A * x - B / D) for x in g]
        f = [(B / A) * (-1 + f_root), (B / A) * (-1 - f_root)]
        if branch == 2:
            g = [Z * (-1 + s * sqrt(2 * Z - 3)) / (Z - 2) for s in (1, -1)]
            psi = [mpf(0), mpf(0)]
        return [float(x) for x in (*f, g[0], psi[0], g[1], psi[1])]


def expansion(v: list[float], beta: float, top: int, label: int):
    """Return the third-order Taylor polynomial of the exact loss, by numerical derivatives."""
    with mp.workdps(60):
        z0 = [mpf(beta) if i == top else mpf(0) for i in range(len(v))]

        def loss(t):
            z = [x + t * mpf(w) for x, w in zip(z0, v, strict=True)]
            return mp.log(sum(exp(x) for x in z)) - z[label]

        return sum(mp.diff(loss, 0, k) / mp.factorial(k) for k in range(4))
