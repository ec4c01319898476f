"""Capacity from conic geometry: neither random centres nor replica theory are assumed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr
from scipy.special import stdtrit

from manifold_capacity._input import Array, Manifolds, generator, joined
from manifold_capacity._parallel import for_each, one_blas_thread
from manifold_capacity._result import Result
from manifold_capacity.anchors import solve
from manifold_capacity.simulated import LEVEL, Labels, labeller


@one_blas_thread
def conic_capacity(
    manifolds: Manifolds,
    draws: int = 100,
    labels: Labels | ArrayLike = "balanced",
    seed: int = 0,
    threads: int | None = None,
) -> Result:
    """Return P / ⟨δ(C_y)⟩, the capacity without bias, by the statistical dimension of cones.

    A labelling y is separable through the origin after a random projection to n features if
    the projection leaves the cone C_y = cone{y_p x : x in manifold p} within a half-space. The
    transition lies at n = δ(C_y) = E |Π_{C_y}(t)|², t ~ N(0, 1_N), within O(√N) (Amelunxen,
    Lotz, McCoy, Tropp 2014). Every draw takes one labelling and one t; the projection is one
    non-negative least-squares problem over all points.

    Parameters
    ----------
    manifolds : sequence of array_like, shapes (N, M_i), or array_like, shape (P, N, M)
        Features by points, in the frame whose origin the hyperplanes contain. Memory: the
        Gram matrix of all points, (ΣM)².
    draws : int
        At least 2.
    labels
        As in `simulated_capacity`.
    seed : int
    threads : int, optional
        Default: all processors. Results do not depend on it.

    Returns
    -------
    Result
        ``capacity`` with ``capacity_low`` and ``capacity_high`` (95 %, Student's t over the
        draws), ``statistical_dimension`` = ⟨δ⟩ with its standard error, ``sq_projection``
        per draw, ``kkt_residual`` (the worst), ``unsolved``.
    """
    if draws < 2:
        raise ValueError(f"draws: expected at least 2, for an interval, got {draws}")
    points, owner = joined(manifolds)
    count = int(owner[-1]) + 1
    label_of = labeller(labels, count, draws, seed)
    data = frame(points)
    gram = data.T @ data

    def one(draw: int) -> tuple[float, float, bool]:
        signs = label_of(draw)[owner]
        t = generator(seed, 4, draw).standard_normal(len(data))
        found = solve(data, t[:, None], signs, gram)
        value = float((t @ data) @ found.multipliers[0])
        return value, float(found.kkt_residual[0]), bool(found.solved[0])

    values, residuals, solved = (
        np.array(column) for column in zip(*for_each(one, range(draws), threads), strict=True)
    )
    mean, se = float(values.mean()), float(values.std(ddof=1) / np.sqrt(draws))
    reach = float(stdtrit(draws - 1, 0.5 + LEVEL / 2)) * se
    return Result(
        {
            "capacity": ((), count / mean if mean > 0 else np.inf),
            "capacity_low": ((), count / (mean + reach) if mean > 0 else 0.0),
            "capacity_high": ((), count / (mean - reach) if mean > reach else np.inf),
            "statistical_dimension": ((), mean),
            "statistical_dimension_se": ((), se),
            "sq_projection": (("draw",), values),
            "kkt_residual": ((), float(residuals.max())),
            "unsolved": ((), int((~solved).sum())),
        },
        {"draws": draws, "labels": labels if isinstance(labels, str) else "given", "seed": seed},
    )


def frame(data: Array) -> Array:
    """Return the points, shape (N, m), scaled to mean square one in at most m dimensions.

    Cones do not change by scaling, and only inner products matter.
    """
    length = np.sqrt(np.einsum("ij,ij->", data, data) / data.shape[1])
    if length == 0.0:
        raise ValueError("expected points off the origin, got zeros only, whose cones are points")
    data = data / length
    if len(data) > data.shape[1]:
        data = qr(data, mode="r", check_finite=False)[0][: data.shape[1]]
    return data
