"""A slow, obvious twin of GLUE: cvxpy for the cones, pseudoinverses, loops over pairs."""

from itertools import permutations

import cvxpy
import numpy as np

TIGHT = {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}


def project(rows, t):
    """Return the multipliers of min |v - t|² with rows @ v <= 0, and t - v.

    The multipliers of the interior-point solver tell which points are active; among these
    they follow from a linear system, as v touches them all.
    """
    v = cvxpy.Variable(len(t))
    constraint = rows @ v <= 0
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(v - t) / 2), [constraint])
    problem.solve(solver="CLARABEL", **TIGHT)
    touching = np.flatnonzero(constraint.dual_value > -(rows @ v.value))
    exact = np.linalg.lstsq(rows[touching].T, t, rcond=None)[0]
    alpha = np.zeros(len(rows))
    alpha[touching] = exact
    assert alpha.min() > -1e-9
    assert (rows @ (t - alpha @ rows)).max() < 1e-9
    return alpha, alpha @ rows


def anchors(manifolds, labels, t, inactive):
    """Return the anchor of every manifold (N, M), and |Π(t)|²."""
    rows = np.concatenate([y * m.T for y, m in zip(labels, manifolds, strict=True)])
    alpha, projected = project(rows, t)
    result, start = [], 0
    for y, manifold in zip(labels, manifolds, strict=True):
        own = alpha[start : start + manifold.shape[1]]
        start += manifold.shape[1]
        if own.sum() > 0:
            result.append(manifold @ own / own.sum())
        elif inactive == "zero":
            result.append(np.zeros(len(t)))
        else:
            result.append(manifold[:, np.argmax(y * (t - projected) @ manifold)])
    return np.array(result), projected @ projected


def pinv(matrix):
    return np.linalg.pinv(matrix, hermitian=True, rcond=1e-12)


def cosine(a, b):
    """Return |cos|, NaN for a vector of length zero, which rounding makes 1e-16 long."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return abs(a @ b) / lengths if lengths > 1e-12 else np.nan


def known_mean(values):
    known = [value for value in values if not np.isnan(value)]
    return np.mean(known) if known else np.nan


def measures(all_anchors, vectors, sq_norms, centers=None):
    """Return the eight measures of draws with anchors (draws, P, N) and Gaussian vectors."""
    count = len(all_anchors[0])
    s0 = np.mean(all_anchors, axis=0) if centers is None else centers
    g0 = s0 @ s0.T
    pairs = list(permutations(range(count), 2))
    overlap, above, below, axis, mixed = [], [], [], [], []
    for s, t in zip(all_anchors, vectors, strict=True):
        s1 = s - s0
        g1, u = s1 @ s1.T, s1 @ t
        overlap.append(u @ pinv(g1) @ u)
        above.append(u @ pinv(g1 + g0) @ u)
        below.append(u @ pinv(g1 + g1 @ pinv(g0) @ g1) @ u)
        axis.append(known_mean([cosine(s1[p], s1[q]) for p, q in pairs]))
        mixed.append(known_mean([cosine(s0[p], s1[q]) for p, q in pairs]))
    capacity = count / np.mean(sq_norms)
    dimension = np.mean(overlap) / count
    radius = np.sqrt(np.mean(above) / np.mean(below))
    approximate = (1 + radius**-2) / dimension
    return {
        "capacity": capacity,
        "dimension": dimension,
        "radius": radius,
        "utility": capacity / approximate,
        "center_alignment": known_mean([cosine(s0[p], s0[q]) for p, q in pairs]),
        "axis_alignment": known_mean(axis),
        "center_axis_alignment": known_mean(mixed),
        "approximate_capacity": approximate,
    }


def standard_errors(all_anchors, vectors, sq_norms):
    """Leave out one draw at a time, centres and all."""
    count = len(vectors)
    left = []
    for draw in range(count):
        kept = [k for k in range(count) if k != draw]
        left.append(list(measures(all_anchors[kept], vectors[kept], sq_norms[kept]).values()))
    names = measures(all_anchors, vectors, sq_norms)
    spread = np.var(left, axis=0) * (count - 1)
    return dict(zip(names, np.sqrt(spread), strict=True))
