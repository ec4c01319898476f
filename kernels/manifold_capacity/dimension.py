"""Linear dimension of all data: participation ratio, explained variance."""

from __future__ import annotations

import numpy as np

from manifold_capacity._input import Array, Manifolds, joined, real_number, vanishing
from manifold_capacity._parallel import one_blas_thread


def participation_ratio(manifolds: Manifolds) -> float:
    """Return (Σλ)² / Σλ² of the covariance of all points (Gao et al. 2017).

    Between 1 and min(N, ΣM - 1): as many as there are directions of equal variance.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)

    Raises
    ------
    ValueError
        For bad manifolds, or points that all coincide.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> round(mc.participation_ratio(manifolds), 1)
    6.9
    """
    covariance = _covariance(manifolds)
    return float(np.trace(covariance) ** 2 / np.einsum("ij,ij->", covariance, covariance))


def explained_variance_dimension(manifolds: Manifolds, share: float = 0.9) -> int:
    """Return the fewest principal components that explain `share` of the variance of all points.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
    share : float
        Over 0, up to 1.

    Raises
    ------
    ValueError
        For bad manifolds, a share outside its range, or points that all coincide.

    Examples
    --------
    >>> import numpy as np
    >>> import manifold_capacity as mc
    >>> rng = np.random.default_rng(0)
    >>> manifolds = rng.standard_normal((8, 40, 1)) + 0.3 * rng.standard_normal((8, 40, 6))
    >>> mc.explained_variance_dimension(manifolds, share=0.5)
    3
    """
    share = real_number("share", share, "share")
    if not 0 < share <= 1:
        raise ValueError(f"share: expected a number over 0, up to 1, got {share}")
    variances = np.maximum(np.linalg.eigvalsh(_covariance(manifolds))[::-1], 0.0)
    explained = np.cumsum(variances) / variances.sum()
    return int(np.searchsorted(explained, share * (1 - 1e-12))) + 1


@one_blas_thread
def _covariance(manifolds: Manifolds) -> Array:
    """Return the smaller of the two matrices of inner products of the centred points."""
    points, _ = joined(manifolds)
    rounding = vanishing(float(np.abs(points).max()), 1)
    points -= points.mean(axis=1, keepdims=True)
    if np.abs(points).max() <= rounding:
        raise ValueError("expected points that differ, got one point only, of no dimension")
    points /= np.abs(points).max()
    return np.asarray(points @ points.T if len(points) <= points.shape[1] else points.T @ points)
