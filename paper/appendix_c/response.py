"""What an attack does to the surrogate logits (C.2.5, eqs. 6 to 10, figures C.2 and C.3).

The attack of eq. (6), called FGSM in the paper, is a gradient step of L2 length ε, not the
sign step.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paper.appendix_c.surrogate import Array, Variant, correct_roots, wrong_roots

Equation10 = Literal["printed", "corrected"]

ERROR = 0.196
"""Training error of the paper's AT teacher (section 4.2); figures C.2 and C.3 do not say."""
SENSITIVITIES = (0.055, 0.26)
"""Two other training errors, to see what depends on the first."""


def label_direction(classes: int, label: int) -> Array:
    """Return q = 1 - N y, the direction of the loss gradient at a correct surrogate; (N,)."""
    q = np.ones(classes)
    q[label] -= classes
    return q


def linear_response(jacobian: ArrayLike, gradient: ArrayLike, eps: float) -> Array:
    """Return the first-order change of the logits under the step of eq. (6) (eqs. 7 and 12).

    Parameters
    ----------
    jacobian : array_like, shape (N, features)
        Of the logits by the input.
    gradient : array_like, shape (N,)
        Of the loss by the logits.
    eps : float
        L2 length of the step, in the unit of the input.

    Returns
    -------
    ndarray, shape (N,)
    """
    J = np.asarray(jacobian, dtype=np.float64)
    step = J.T @ np.asarray(gradient, dtype=np.float64)
    return np.asarray(eps * (J @ step) / np.linalg.norm(step))


def gap_change(jacobian: ArrayLike, label: int, eps: float) -> float:
    """Return the change of a correct surrogate's gap to the mean of the other logits.

    It is -(ε/(N-1)) ‖Jᵀq‖ for every Jacobian, so never positive. The gap to the largest of
    the others, which all are equal before the step, shrinks by at least as much.
    """
    J = np.asarray(jacobian, dtype=np.float64)
    q = label_direction(len(J), label)
    return -eps * float(np.linalg.norm(J.T @ q)) / (len(J) - 1)


def equation_8(omega: ArrayLike, logits: ArrayLike, label: int, eps: float) -> Array:
    """Return δz of one example as a single sum over the training examples (eq. 8).

    Parameters
    ----------
    omega : array_like, shape (n,)
        Ω_ν, which the paper leaves open but for its sign.
    logits : array_like, shape (n, N)
        Surrogate logits of the training examples.
    label : int
        Class of the attacked example.
    eps : float

    Returns
    -------
    ndarray, shape (N,)
    """
    z = np.asarray(logits, dtype=np.float64)
    weights = np.asarray(omega) * (z @ label_direction(z.shape[1], label))
    return np.asarray(eps * (weights @ z))


def equation_8_matrix(omega: ArrayLike, example: int) -> Array:
    """Return M = (I + e eᵀ) Ω (I + e eᵀ), of which eq. (8) keeps only the diagonal.

    With the printed Jacobian, δz = ε ζ Z̃ᵀ M Z̃ q without an approximation.

    Parameters
    ----------
    omega : array_like, shape (n, n)
        Ω(X, λ*) of section C.3.3.
    example : int
        Row μ of the attacked example; e is its unit vector.

    Returns
    -------
    ndarray, shape (n, n)
    """
    matrix = np.array(omega, dtype=np.float64)
    matrix[example] *= 2
    matrix[:, example] *= 2
    return matrix


def equation_9(omega: ArrayLike, logits: ArrayLike, eps: float) -> float:
    """Return the change of the gap by eq. (9): eq. (8) averaged uniformly over the label.

    Parameters
    ----------
    omega : array_like, shape (n,)
    logits : array_like, shape (n, N)
    eps : float

    Returns
    -------
    float
        (ε/(N-1)) Σ Ω_ν [(z·1)² - N z·z], never positive.
    """
    z = np.asarray(logits, dtype=np.float64)
    classes = z.shape[1]
    spread = classes * (z**2).sum(1) - z.sum(1) ** 2
    return float(-eps / (classes - 1) * (np.asarray(omega) @ spread))


def equation_9_for_label(omega: ArrayLike, logits: ArrayLike, label: int, eps: float) -> float:
    """Return what eq. (9) should say for one label: -(ε/(N-1)) Σ Ω_ν (z·1 - N z·y)²."""
    z = np.asarray(logits, dtype=np.float64)
    classes = z.shape[1]
    along = z @ label_direction(classes, label)
    return float(-eps / (classes - 1) * (np.asarray(omega) @ along**2))


def wrong_term(
    beta: ArrayLike, g: ArrayLike, psi: ArrayLike, classes: int, equation: Equation10
) -> Array:
    """Return the part of eq. (10) that a misclassified example adds to the squared gap.

    Printed: (β-g)² + 2(N-2)/(N-1) (β-g)(g-ψ). The last product should be (β-ψ)(g-ψ); only
    then is it the sum that eq. (9) gives.
    """
    b, g, psi = (np.asarray(x, dtype=np.float64) for x in (beta, g, psi))
    factor = b - (g if equation == "printed" else psi)
    return np.asarray((b - g) ** 2 + 2 * (classes - 2) / (classes - 1) * factor * (g - psi))


def equation_10(
    beta_correct: ArrayLike,
    f: ArrayLike,
    beta_wrong: ArrayLike,
    g: ArrayLike,
    psi: ArrayLike,
    *,
    error: float,
    classes: int,
    omega_correct: float,
    omega_wrong: float,
    equation: Equation10 = "corrected",
) -> Array:
    """Return the change of the gap of a correctly classified example (eq. 10).

    Parameters
    ----------
    beta_correct, f : array_like
        Largest and other logits of the correctly classified examples.
    beta_wrong, g, psi : array_like
        Largest logit, the label's and the others' of the misclassified ones.
    error : float
        Training error rate, in [0, 1].
    classes : int
        N.
    omega_correct, omega_wrong : float
        Ω✓(ε) and Ω✗(ε); they carry the factor ε.
    equation : {"printed", "corrected"}

    Returns
    -------
    ndarray
        Of the broadcast shape.
    """
    gap = np.asarray(beta_correct) - np.asarray(f)
    wrong = wrong_term(beta_wrong, g, psi, classes, equation)
    return np.asarray(-((1 - error) * omega_correct * gap**2 + error * omega_wrong * wrong))


def mean_field_loss(
    beta_correct: ArrayLike,
    beta_wrong: ArrayLike,
    *,
    error: float,
    classes: int = 10,
    variant: Variant,
) -> Array:
    """Return the exact loss at the positive-root surrogates, as in figure C.2.

    (1-e) ln(1 + (N-1) exp(f₊-β✓)) + e [ln(exp β✗ + exp g₊ + (N-2) exp ψ₊) - g₊].

    Parameters
    ----------
    beta_correct, beta_wrong : array_like
        β✓ and β✗; they broadcast.
    error : float
        Training error rate e, in [0, 1].
    classes : int
    variant : {"printed", "flip", "corrected"}

    Returns
    -------
    ndarray
        Nats; nan where a surrogate does not exist.
    """
    b1, b2 = np.asarray(beta_correct, dtype=float), np.asarray(beta_wrong, dtype=float)
    f = correct_roots(b1, classes, variant).f_plus
    g, psi, *_ = wrong_roots(b2, classes, variant)
    correct = np.log1p((classes - 1) * np.exp(f - b1))
    wrong = np.logaddexp(np.logaddexp(b2, g), np.log(classes - 2) + psi) - g
    return np.asarray((1 - error) * correct + error * wrong)


def relative_gap_change(
    beta_correct: ArrayLike,
    beta_wrong: ArrayLike,
    *,
    error: float,
    eps: float = 0.1,
    classes: int = 10,
    variant: Variant,
    equation: Equation10,
    normalised: bool = False,
) -> Array:
    """Return |Δgap| / gap, as in figure C.3, with Ω✓(ε) = Ω✗(ε) = ε for want of a value.

    Parameters
    ----------
    beta_correct, beta_wrong : array_like
        β✓ and β✗; they broadcast.
    error : float
        Training error rate, in [0, 1].
    eps : float
        Size of the attack.
    classes : int
    variant : {"printed", "flip", "corrected"}
        Of the surrogates.
    equation : {"printed", "corrected"}
        Of eq. (10).
    normalised : bool
        Put the square root of the sum in place of the sum. That is how the response scales
        when Ω keeps the factor ζ = 1/‖∇L‖ of eq. (12): linear in the logits, not quadratic.

    Returns
    -------
    ndarray
        nan where a surrogate does not exist or the root is not real.
    """
    b1 = np.asarray(beta_correct, dtype=float)
    f = correct_roots(b1, classes, variant).f_plus
    g, psi, *_ = wrong_roots(beta_wrong, classes, variant)
    unit = {"omega_correct": 1.0, "omega_wrong": 1.0, "error": error, "classes": classes}
    size = -equation_10(b1, f, beta_wrong, g, psi, equation=equation, **unit)  # type: ignore[arg-type]
    if normalised:
        with np.errstate(invalid="ignore"):
            size = np.sqrt(size)
    return np.asarray(eps * np.abs(size) / (b1 - f))


def shielding_gap(
    beta_wrong: ArrayLike, *, classes: int = 10, variant: Variant, equation: Equation10
) -> NDArray[np.float64]:
    """Return the correct gap above which misclassified examples lower the response of eq. (10).

    Where the squared gap of the correct examples exceeds `wrong_term`, replacing some of
    them by errors shields the network. Zero where errors always shield.

    Parameters
    ----------
    beta_wrong : array_like
        β✗, largest logit of the misclassified examples.
    classes : int
    variant : {"printed", "flip", "corrected"}
    equation : {"printed", "corrected"}

    Returns
    -------
    ndarray
    """
    g, psi, *_ = wrong_roots(beta_wrong, classes, variant)
    return np.asarray(np.sqrt(np.maximum(wrong_term(beta_wrong, g, psi, classes, equation), 0)))
