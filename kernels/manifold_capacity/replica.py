"""The public Python package's function, on these kernels: change one import.

``from mftma.manifold_analysis_correlation import manifold_analysis_corr`` becomes
``from manifold_capacity.replica import manifold_analysis_corr``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from manifold_capacity._input import Array, Manifolds
from manifold_capacity.capacity import analyse, warn_of_flagged


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
    package's own solver once the same low-rank structure is removed. That is found by the
    package's rule: K >= 1, and of `n_reps` starts at every rank the one in which the centre
    that keeps least keeps most ("stability"). `manifold_capacity.mean_field_capacity` differs
    by default: it guards every centre, may remove nothing, and needs no starts
    (`centers.low_rank`); its definitions of radius and dimension are the paper's.

    Differences from the package:

    - Deterministic by `seed` (there: numpy's global state), whatever the number of threads.
    - Every search is finished (there: many end unfinished after 1,000 steps), and the first of the
      `n_reps` starts is not random; the rank is capped at P - 2, so any P >= 2 works (there:
      P >= 7), and nothing is removed for P = 2.
    - A manifold that keeps less than 1e-3 of its centre is named in a warning; its numbers are
      returned as there, though they say little. One whose centre coincides with the global
      mean gives NaN and a warning (there: a radius of 1e15).
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
    result = analyse(
        XtotT, kappa, n_t, t_vecs, "package", "package", seed, n_reps, None,
        choose="stability", strict=False,
    )  # fmt: skip
    undefined = np.flatnonzero(np.isnan(result["capacity"])).tolist()
    if undefined:
        warnings.warn(
            f"manifolds {undefined}: centre on the global mean, so capacity, radius and "
            "dimension are undefined (NaN)",
            RuntimeWarning,
            stacklevel=2,
        )
    warn_of_flagged(result)
    return (
        result["capacity"],
        result["radius"],
        result["dimension"],
        result["center_correlation"],
        result["low_rank_dimension"],
    )
