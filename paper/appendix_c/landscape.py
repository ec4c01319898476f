"""All stationary points of the expanded loss, eq. (3), and which of them are minima.

The paper says that eqs. (4) and (5) "fully characterize the local minima". Every component
of a stationary v other than the label's solves one quadratic, so it takes one of two values;
eqs. (4) and (5) are the case in which all take the same. This module has the other cases.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial import Polynomial

from paper.appendix_c.surrogate import Array, expansion_gradient, expansion_hessian

TOP = 0
LABEL_IF_WRONG = 1


class Point(NamedTuple):
    """A stationary point of eq. (3), up to a permutation of the classes.

    Attributes
    ----------
    v : ndarray, shape (N,)
        Deviation from β φ. The prediction is class 0; of a misclassified example the label
        is class 1.
    lower : int
        How many of the classes that are neither take the lower of the two values.
    falling : int
        Directions in which the loss falls: 0 at a local minimum, N - 1 at a maximum.
    admissible : bool
        Whether β exceeds every component of v, so that v is in S (eq. 1).
    """

    v: Array
    lower: int
    falling: int
    admissible: bool


def stationary_points(beta: float, classes: int, *, wrong: bool) -> list[Point]:
    """Return every stationary point of eq. (3), one per orbit under permuted classes.

    With u = 1 - m₁ the components are -u ± d, and the label's -u ± √(d² + 2Z). Writing
    d = (t - 2Z/t)/2 makes the root rational and the last equation a quartic in t.

    Parameters
    ----------
    beta : float
        Largest logit.
    classes : int
        N, at least 3.
    wrong : bool
        Misclassified example; else the label is the prediction.

    Returns
    -------
    list of Point
    """
    exp_beta = np.exp(beta)
    Z = exp_beta + classes - 1
    rest = classes - 2 if wrong else classes - 1
    # d, and the label's root, both times `scale`
    if wrong:
        scale = Polynomial([0, 2])
        d, root = Polynomial([-2 * Z, 0, 1]), Polynomial([2 * Z, 0, 1])
    else:
        scale, d, root = Polynomial([1]), Polynomial([0, 1]), Polynomial([0])
    points = []
    for lower in range(rest + 1):
        m1 = (-(classes - 1) * scale + (rest - 2 * lower) * d + root) / exp_beta
        u = scale - m1
        m2 = (rest - lower) * (d - u) ** 2 + lower * (d + u) ** 2 + int(wrong) * (root - u) ** 2
        equation = (u**2 - d**2) / 2 - u * scale + m2 / (2 * Z) - m1**2
        for t in equation.roots():
            if abs(t.imag) > 1e-9 * abs(t) or t == 0:
                continue
            step, mean, label = (p(t.real) / scale(t.real) for p in (d, u, root))
            if step < 0 or (step == 0 and lower):
                continue  # the same point with `lower` counted from the other side
            v = np.concatenate(
                [
                    [0.0],
                    [label - mean] if wrong else [],
                    np.full(rest - lower, step - mean),
                    np.full(lower, -step - mean),
                ]
            )
            points.append(Point(v, lower, falling_directions(v, beta), bool(beta > v[1:].max())))
    return points


def falling_directions(v: Array, beta: float) -> int:
    """Count the directions in which eq. (3) falls from v, with the prediction as class 0."""
    return int((np.linalg.eigvalsh(expansion_hessian(v, beta, TOP)) < 0).sum())


def residual(v: Array, beta: float, *, wrong: bool) -> float:
    """Return the largest component of the gradient of eq. (3) at v: zero where stationary."""
    label = LABEL_IF_WRONG if wrong else TOP
    return float(np.abs(expansion_gradient(v, beta, TOP, label)).max())
