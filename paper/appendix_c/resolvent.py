"""The random-matrix estimate of the Jacobian (C.3, eqs. 11 to 13).

The logits of n training examples with features X (n, p) are estimated by ridge regression on
the surrogate logits Z̃ (n, N): Z = X R Xᵀ Z̃ with the resolvent R = (XᵀX - λ*)⁻¹.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from logit_distributions.errors import ReproError
from paper.appendix_c.surrogate import Array


def resolvent(features: ArrayLike, multiplier: float) -> Array:
    """Return R = (XᵀX - λ)⁻¹, shape (p, p), of features X, shape (n, p)."""
    X = np.asarray(features, dtype=np.float64)
    return np.asarray(np.linalg.inv(X.T @ X - multiplier * np.eye(X.shape[1])), np.float64)


def squared_norm(
    multiplier: float,
    features: ArrayLike,
    surrogates: ArrayLike,
    noise: float = 0.0,
    *,
    printed: bool = False,
) -> float:
    """Return ⟨‖ω‖²⟩ of eq. (13), the right side of the equation for λ*.

    Tr(X R² Xᵀ (Z̃Z̃ᵀ + N σ₀² 1)). The paper prints σ₀² 1; the noise W has N columns, so
    ⟨WWᵀ⟩ = N 1.

    Parameters
    ----------
    multiplier : float
        λ.
    features : array_like, shape (n, p)
    surrogates : array_like, shape (n, N)
    noise : float
        σ₀.
    printed : bool
        Leave out the factor N, as printed.

    Returns
    -------
    float
    """
    s, b = _spectrum(features, surrogates, noise, printed)
    return float((s * b / (s - multiplier) ** 2).sum())


def _spectrum(
    features: ArrayLike, surrogates: ArrayLike, noise: float, printed: bool
) -> tuple[Array, Array]:
    X, Z = (np.asarray(m, dtype=np.float64) for m in (features, surrogates))
    U, singular, _ = np.linalg.svd(X, full_matrices=False)
    b = ((U.T @ Z) ** 2).sum(1) + noise**2 * (1 if printed else Z.shape[1])
    return singular**2, b


def multiplier(
    features: ArrayLike,
    surrogates: ArrayLike,
    squared_bound: float,
    noise: float = 0.0,
    *,
    printed: bool = False,
) -> float:
    """Return λ*: the multiplier for which ⟨‖ω‖²⟩ is `squared_bound` (after eq. 13).

    F(λ) = Σ s_i b_i / (s_i - λ)² rises strictly below the smallest eigenvalue of XᵀX, and
    only there is ω a minimum of the functional; so the root is unique.

    Parameters
    ----------
    features : array_like, shape (n, p)
    surrogates : array_like, shape (n, N)
    squared_bound : float
        c² p N of the paper.
    noise : float
        σ₀.
    printed : bool
        See `squared_norm`.

    Returns
    -------
    float

    Raises
    ------
    ReproError
        If no λ below the spectrum reaches the bound: XᵀX is singular and even the
        interpolating solution is shorter.
    """
    X = np.asarray(features, dtype=np.float64)
    s, b = _spectrum(features, surrogates, noise, printed)
    positive = s > s.max() * max(X.shape) * np.finfo(float).eps
    singular = X.shape[0] < X.shape[1] or not positive.all()
    s, b = s[positive], b[positive]
    total = float((s * b).sum())
    top = 0.0 if singular else float(s.min())

    def excess(value: float) -> float:
        return float((s * b / (s - value) ** 2).sum()) - squared_bound

    high = top if singular else top - float(np.sqrt(s[s.argmin()] * b[s.argmin()] / squared_bound))
    if singular and excess(high) <= 0:
        raise ReproError(
            f"expected ‖ω‖² = {squared_bound:.4g} at some λ < 0, got at most "
            f"{excess(high) + squared_bound:.4g}; XᵀX is singular and the bound c² is too "
            "loose to bind"
        )
    # Every term is at most s b / (s_min - λ)², so the sum is below the bound at `low`.
    low = float(s.min()) - float(np.sqrt(total / squared_bound))
    if not low < high:
        return high
    return float(brentq(excess, low, high, xtol=1e-14 * max(1.0, abs(low)), rtol=1e-14))


def estimated_logits(features: ArrayLike, surrogates: ArrayLike, multiplier: float) -> Array:
    """Return Z = X R Xᵀ Z̃, shape (n, N), as σ₀ → 0 (first display of C.3.3)."""
    X, Z = (np.asarray(m, dtype=np.float64) for m in (features, surrogates))
    return np.asarray(X @ (resolvent(X, multiplier) @ (X.T @ Z)))


def omega_matrix(features: ArrayLike, multiplier: float) -> Array:
    """Return Ω = X R² Xᵀ, shape (n, n) (last display of C.3.3)."""
    X = np.asarray(features, dtype=np.float64)
    XR = X @ resolvent(X, multiplier)
    return np.asarray(XR @ XR.T)


def printed_jacobian(
    features: ArrayLike, surrogates: ArrayLike, multiplier: float, example: int
) -> Array:
    """Return the Jacobian of C.3.3: z̃ ⊗ R x + (R Xᵀ Z̃)ᵀ, shape (N, p).

    It is the derivative of z by x with the resolvent held fixed.
    """
    X, Z = (np.asarray(m, dtype=np.float64) for m in (features, surrogates))
    R = resolvent(X, multiplier)
    return np.asarray(np.outer(Z[example], R @ X[example]) + (R @ X.T @ Z).T)


def jacobian(
    features: ArrayLike,
    surrogates: ArrayLike,
    multiplier: float,
    example: int,
    *,
    noise: float | None = None,
) -> Array:
    """Return the derivative of the logits of one example by its features, shape (N, p).

    At fixed λ it is J = (z̃ - z) ⊗ R x + (1 - H_μμ)(R Xᵀ Z̃)ᵀ with H = X R Xᵀ.

    Parameters
    ----------
    features : array_like, shape (n, p)
    surrogates : array_like, shape (n, N)
        Held fixed, as in the paper.
    multiplier : float
        λ*.
    example : int
        Row μ.
    noise : float, optional
        σ₀. Where given, λ* follows the features so that ⟨‖ω‖²⟩ stays what it is.

    Returns
    -------
    ndarray
    """
    X, Zs = (np.asarray(m, dtype=np.float64) for m in (features, surrogates))
    R = resolvent(X, multiplier)
    x = X[example]
    Rx = R @ x
    weights = R @ X.T @ Zs  # p, N
    fixed: Array = np.outer(Zs[example] - x @ weights, Rx) + (1 - x @ Rx) * weights.T
    if noise is None:
        return fixed
    S = Zs @ Zs.T + noise**2 * Zs.shape[1] * np.eye(len(X))
    T = R @ X.T @ S @ X @ R
    by_features = 2 * (R @ (R @ (X.T @ S[example])) - (T @ Rx + R @ (T @ x)))
    by_multiplier = 2 * float(np.trace(T @ R))
    return np.asarray(fixed - np.outer((R @ weights).T @ x, by_features / by_multiplier))
