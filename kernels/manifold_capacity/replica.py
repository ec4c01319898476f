"""The public Python package's function, on these kernels: change one import.

``from mftma.manifold_analysis_correlation import manifold_analysis_corr`` becomes
``from manifold_capacity.replica import manifold_analysis_corr``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from numpy.typing import ArrayLike

from manifold_capacity._input import Array, Manifolds
from manifold_capacity.capacity import _analyse


def manifold_analysis_corr(
    XtotT: Manifolds,
    kappa: float,
    n_t: int,
    t_vecs: Sequence[ArrayLike] | None = None,
    n_reps: int = 10,
    seed: int = 0,
) -> tuple[Array, Array, Array, float, int]:
    """Carry out the analysis on multiple manifolds, by the public package's definitions.

    Given `t_vecs` mean the same thing as there, so that results agree to the accuracy of the
    package's own solver once the same low-rank structure is removed. Differences:

    - Deterministic by `seed` (there: numpy's global state), whatever the number of threads.
    - The low-rank structure is the one of lowest cost (there: of highest "stability" among
      `n_reps` unfinished searches); its rank is capped at P - 2, so any P >= 2 works (there:
      P >= 7), and nothing is removed for P = 2.
    - A manifold whose centre coincides with the global mean gives NaN and a warning (there:
      a radius of 1e15).
    - Bad input raises a ValueError that names the manifold.

    Parameters
    ----------
    XtotT : sequence of array_like, shapes (N, P_i)
        Features by points.
    kappa : float
        Margin.
    n_t : int
        Gaussian vectors per manifold.
    t_vecs : sequence of array_like, shapes (min(N, P_i) + 1, n_t), optional
    n_reps : int
        Starts of the low-rank search per rank, the first one deterministic.
    seed : int

    Returns
    -------
    a_Mfull_vec : ndarray, shape (P,)
        Capacity of each manifold.
    R_M_vec : ndarray, shape (P,)
        Radius of each.
    D_M_vec : ndarray, shape (P,)
        Dimension of each.
    res_coeff0 : float
        Mean absolute correlation of the centres.
    KK : int
        Dimension of the low-rank structure.
    """
    result, degenerate = _analyse(
        XtotT, kappa, n_t, t_vecs, True, "package", seed, n_reps, threads=None, strict=False
    )
    if degenerate:
        warnings.warn(
            f"manifolds {degenerate}: centre on the global mean, so capacity, radius and "
            "dimension are undefined (NaN)",
            RuntimeWarning,
            stacklevel=2,
        )
    return (
        result["capacity"],
        result["radius"],
        result["dimension"],
        result["center_correlation"],
        result["low_rank_dimension"],
    )
