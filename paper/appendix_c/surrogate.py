"""Surrogate logits: the stationary points of the expanded cross-entropy (C.2, eqs. 1 to 5).

A logit vector is z = β φ + v: the largest logit β at class φ, and v ⟂ φ. The paper expands
the cross-entropy to third order in v and solves for v. Its printed solutions do not solve
the printed expansion, so everything that differs takes a variant:

``printed``
    Equations (4) and (5) letter by letter.
``flip``
    Printed, without the leading minus sign of g₊. This gives the threshold β > 3.5 of figure
    C.1, which the printed formula does not. The paper does not say so, and another misreading
    gives 3.5 too (`other_threshold`).
``corrected``
    What solves equation (3).

Throughout, N is the number of classes, a = exp(-β), A = 1 - a(N-1), B = 1 + a(N-1),
D = 1 - a(N-3) and Z = exp(β) + N - 1. Logits have no unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

from logit_distributions.errors import ReproError

Variant = Literal["printed", "flip", "corrected"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)

CLASSES = 10
"""N of CIFAR-10, for which the paper's 3.5 and its figures are read."""

Array = NDArray[np.float64]


class CorrectRoots(NamedTuple):
    """f₊ and f₋: the common logit of the other classes of a correctly classified example."""

    f_plus: Array
    f_minus: Array


class WrongRoots(NamedTuple):
    """Logits of a misclassified example: g of its label, ψ of the N - 2 remaining classes."""

    g_plus: Array
    psi_plus: Array
    g_minus: Array
    psi_minus: Array


class _Weights(NamedTuple):
    a: Array
    A: Array
    B: Array
    D: Array
    Z: Array


def _weights(beta: ArrayLike, classes: int) -> _Weights:
    if classes < 3:
        raise ReproError(
            f"expected at least 3 classes, got {classes}; a misclassified example needs a "
            "label, a prediction and a class that is neither"
        )
    b = np.asarray(beta, dtype=np.float64)
    a = np.exp(-b)
    # expm1 keeps A and D exact near their zeros, β = ln(N-1) and β = ln(N-3).
    A = -np.expm1(np.log(classes - 1) - b)
    D = -np.expm1(np.log(classes - 3) - b) if classes > 3 else np.ones_like(b)
    return _Weights(a, A, 1 + a * (classes - 1), D, np.exp(b) + classes - 1)


def _check(variant: str) -> None:
    if variant not in VARIANTS:
        raise ReproError(f"unknown variant {variant!r}: expected one of {', '.join(VARIANTS)}")


def correct_roots(beta: ArrayLike, classes: int, variant: Variant = "corrected") -> CorrectRoots:
    """Return f± of correctly classified examples (eq. 4).

    The corrected roots solve 1 + f/B + f²A/(2B²) = 0, which is f± = (B/A)[-1 ± r] with
    r² = 2a(N-1) - 1, so they are real for β <= ln 2(N-1) only. The printed ones have
    r² = 1 + 2a²A/B² instead. ``flip`` equals ``printed``.

    Parameters
    ----------
    beta : array_like
        Largest logit.
    classes : int
        N, at least 3.
    variant : {"printed", "flip", "corrected"}

    Returns
    -------
    CorrectRoots
        Arrays of the shape of `beta`; nan where not real, infinite at a pole.

    Raises
    ------
    ReproError
        For an unknown variant or too few classes.
    """
    _check(variant)
    a, A, B, _, _ = _weights(beta, classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        if variant == "corrected":
            # A = (1 - r²)/2 cancels one factor, and with it the pole of f₊ at A = 0.
            r = np.sqrt(-A + a * (classes - 1))
            return CorrectRoots(-2 * B / (1 + r), -B * (1 + r) / A)
        r = np.sqrt(1 + 2 * a**2 * A / B**2)
        return CorrectRoots(2 * a**2 / (B * (1 + r)), -B * (1 + r) / A)


def wrong_roots(beta: ArrayLike, classes: int, variant: Variant = "corrected") -> WrongRoots:
    """Return g± and ψ± of misclassified examples (eq. 5).

    Corrected: g± = -(B/A)[1 ± √(1 + 2 exp(β) A D / B)] and ψ± = 2[a g± - B]/D.
    Printed: g± = -(D/A)[1 ± κ] with κ = (B/D) √(1 + 2 A D / B), ψ± = 2[a g±/A - B/D].
    Flip: printed, except g₊ = +(D/A)[1 + κ] and the ψ₊ that follows from it.

    Parameters
    ----------
    beta : array_like
        Largest logit, that of the wrong prediction.
    classes : int
        N, at least 3.
    variant : {"printed", "flip", "corrected"}

    Returns
    -------
    WrongRoots
        Arrays of the shape of `beta`; nan where not real, infinite at a pole.

    Raises
    ------
    ReproError
        For an unknown variant or too few classes.
    """
    _check(variant)
    a, A, B, D, _ = _weights(beta, classes)
    with np.errstate(invalid="ignore", divide="ignore"):
        if variant == "corrected":
            s = np.sqrt(1 + 2 * A * D / (a * B))
            g_plus = -B * (1 + s) / A
            g_minus = 2 * D / (a * (1 + s))
            # ψ₊ = -2B(as + a + A)/(AD); where a + A < 0 that is a ratio of two small
            # numbers, and multiplying by the conjugate of the sum removes both.
            lead = a + A
            direct = -2 * B * (a * s + lead) / (A * D)
            conjugate = 2 * (B - 2 * a) / (a * s - lead)
            psi_plus = np.where(lead < 0, conjugate, direct)
            return WrongRoots(g_plus, psi_plus, g_minus, 4 / (1 + s) - 2 * B / D)
        root = B * np.sqrt(1 + 2 * A * D / B)  # D κ
        g_plus = -(D + root) / A
        if variant == "flip":
            g_plus = -g_plus
        g_minus = -(D - root) / A
        psi_plus, psi_minus = (2 * (a * g / A - B / D) for g in (g_plus, g_minus))
        return WrongRoots(g_plus, psi_plus, g_minus, psi_minus)


def second_branch(beta: ArrayLike, classes: int) -> WrongRoots:
    """Return the symmetric stationary points of eq. (3) that eq. (5) leaves out.

    ψ = 0 and g± = Z(-1 ± √(2Z-3))/(Z-2); they are real for every β. With the corrected
    `wrong_roots` they are all four symmetric solutions. g₊ exceeds β everywhere, so that point,
    a minimum of eq. (3), is never in S; g₋ is negative and its point a saddle.

    Parameters
    ----------
    beta : array_like
    classes : int
        N, at least 3.

    Returns
    -------
    WrongRoots
        Arrays of the shape of `beta`.
    """
    Z = _weights(beta, classes).Z
    r = np.sqrt(2 * Z - 3)
    zero = np.zeros_like(Z)
    return WrongRoots(2 * Z / (1 + r), zero, -2 * Z / (r - 1), zero)


def kappa(beta: ArrayLike, classes: int, variant: Variant = "corrected") -> Array:
    """Return κ of eq. (5), or the κ' = (B/D) √(1 + 2 exp(β) A D / B) that belongs there.

    The corrected root is g± = -(D/A)[B/D ± κ'], the printed one -(D/A)[1 ± κ].
    """
    _check(variant)
    a, A, B, D, _ = _weights(beta, classes)
    factor = 1 / a if variant == "corrected" else 1.0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(B / D * np.sqrt(1 + 2 * factor * A * D / B))


def admissible(beta: ArrayLike, *others: ArrayLike) -> NDArray[np.bool_]:
    """Tell where β exceeds every other logit, as the set S of eq. (1) demands.

    ``admissible(beta, f)`` is the condition of eq. (4), ``admissible(beta, g, psi)`` that of
    eq. (5). Logits that are not real are not admissible.
    """
    b = np.asarray(beta, dtype=np.float64)
    return np.asarray(np.logical_and.reduce([b > np.asarray(other) for other in others]))


def threshold(classes: int, variant: Variant = "flip", sign: Literal["+", "-"] = "+") -> float:
    """Return the β above ln(N-1) at which g reaches β, the bound of figure C.1.

    For ten classes 3.496 for ``flip``; 2.779 for g₋ as printed.

    Raises
    ------
    ReproError
        If β - g has no zero between ln(N-1) and 20.
    """

    def excess(beta: float) -> float:
        roots = wrong_roots(beta, classes, variant)
        return beta - float(roots.g_plus if sign == "+" else roots.g_minus)

    low = float(np.log(classes - 1)) + 1e-6
    if excess(low) * excess(20.0) > 0:
        raise ReproError(
            f"β - g{sign} ({variant}, {classes} classes) has no zero above ln(N-1) = {low:.3f}; "
            "expected one for flip with +, printed with -"
        )
    return _zero(excess, low)


def other_threshold(classes: int) -> float:
    """Return the β above ln(N-1) at which (B/A)[1 + √(1 + 2 exp(-β) A D / B)] reaches β.

    The corrected g₊ with two signs wrong, and for ten classes 3.505: what the authors plotted
    cannot be told from "3.5".
    """

    def excess(beta: float) -> float:
        a, A, B, D, _ = _weights(beta, classes)
        return float(beta - B / A * (1 + np.sqrt(1 + 2 * a * A * D / B)))

    return _zero(excess, float(np.log(classes - 1)) + 1e-6)


def _zero(excess: Callable[[float], float], low: float) -> float:
    """Return where `excess` changes sign between `low` and 20."""
    from scipy.optimize import brentq  # a third of the start-up time of every command

    return float(brentq(excess, low, 20.0, xtol=1e-13))


def correct_logits(beta: float, f: float, classes: int) -> Array:
    """Return the surrogate of a correctly classified example, the label first; shape (N,)."""
    return np.array([beta] + [f] * (classes - 1))


def wrong_logits(beta: float, g: float, psi: float, classes: int) -> Array:
    """Return a misclassified surrogate: prediction first, label second; shape (N,)."""
    return np.array([beta, g] + [psi] * (classes - 2))


def cross_entropy(logits: ArrayLike, label: int) -> float:
    """Return the exact cross-entropy in nats of one logit vector, shape (N,)."""
    z = np.asarray(logits, dtype=np.float64)
    return float(logsumexp(z) - z[label])


def expansion(v: ArrayLike, beta: float, top: int, label: int) -> float:
    """Return the loss of eq. (3), expanded to third order around β φ.

    Parameters
    ----------
    v : array_like, shape (N,)
        Deviation from β φ, zero at `top`.
    beta : float
        Largest logit.
    top : int
        The predicted class φ.
    label : int
        The true class y; equals `top` for a correctly classified example.

    Returns
    -------
    float
        Nats.
    """
    v = np.asarray(v, dtype=np.float64)
    h = field(beta, len(v), top)
    log_z = beta + np.log1p(np.exp(-beta) * (len(v) - 1))
    Qv = h * v - h * (h @ v)
    cubic = (v * v) @ Qv / 6 - (v @ h) * (v @ Qv) / 3
    return float(log_z - beta * (top == label) + v @ h - v[label] + v @ Qv / 2 + cubic)


def expansion_gradient(v: ArrayLike, beta: float, top: int, label: int) -> Array:
    """Return the derivative of `expansion` by the components of v other than `top`.

    Component i is h_i (1 + v_i - m₁ + v_i²/2 - v_i m₁ - m₂/2 + m₁²) - y_i with
    m_k = Σ_j h_j v_j^k.

    Returns
    -------
    ndarray, shape (N - 1,)
        Zero at a stationary point.
    """
    v = np.asarray(v, dtype=np.float64)
    h = field(beta, len(v), top)
    m1, m2 = h @ v, h @ v**2
    gradient = h * (1 + v - m1 + v**2 / 2 - v * m1 - m2 / 2 + m1**2)
    gradient[label] -= 1
    return np.delete(gradient, top)


def expansion_hessian(v: ArrayLike, beta: float, top: int) -> Array:
    """Return the second derivatives of `expansion` by the components other than `top`.

    Its negative eigenvalues tell minima (none) from saddles and maxima (all N - 1).

    Returns
    -------
    ndarray, shape (N - 1, N - 1)
    """
    v = np.asarray(v, dtype=np.float64)
    h = field(beta, len(v), top)
    m1 = h @ v
    coupling = np.outer(h, h) * (1 + v[:, None] + v[None, :] - 2 * m1)
    hessian = np.diag(h * (1 + v - m1)) - coupling
    return np.delete(np.delete(hessian, top, 0), top, 1)


def field(beta: float, classes: int, top: int) -> Array:
    """Return h of eq. (3), the softmax of β φ; shape (N,)."""
    h = np.full(classes, 1 / (np.exp(beta) + classes - 1))
    h[top] = 1 / (1 + np.exp(-beta) * (classes - 1))
    return h
