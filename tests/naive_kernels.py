"""Slow, obvious twins of the kernels."""

from itertools import combinations

import cvxpy
import numpy as np
from scipy.integrate import quad
from scipy.optimize import linprog, minimize, nnls


def nonnegative_least_squares(gram, q, sign):
    """Try every set of active variables; keep the feasible one of lowest cost."""
    size = len(q)
    best, lowest = np.zeros(size), 0.0
    for count in range(1, size + 1):
        for active in map(list, combinations(range(size), count)):
            x = np.zeros(size)
            x[active] = np.linalg.lstsq(gram[np.ix_(active, active)], q[active], rcond=None)[0]
            cost = 0.5 * x @ gram @ x - q @ x
            if (sign * x >= 0).all() and cost < lowest:
                best, lowest = x, cost
    return best


def anchor(points, t, kappa):
    """Return s̃ and F of one t by least squares with non-negative multipliers."""
    target = t.copy()
    target[-1] += kappa
    alpha, _ = nnls(points, target)
    if alpha.sum() == 0:
        return points[:, np.argmax(points.T @ t)], 0.0
    away = points @ alpha
    return away / alpha.sum(), away @ away


def moments(points, kappa, vectors, definition):
    """Return capacity, radius and dimension of one centred and scaled manifold (N, M)."""
    if points.shape[0] > points.shape[1]:
        q, _ = np.linalg.qr(points)
        points = q.T @ points
    lifted = np.vstack([points, np.ones(points.shape[1])])
    anchors, values = [], []
    for t in vectors.T:
        s, f = anchor(lifted, t, kappa)
        anchors.append(s[:-1])
        values.append(f)
    anchors = np.array(anchors)
    t = vectors[:-1].T
    if definition == "paper":
        radius = np.sqrt(np.mean([s @ s for s in anchors]))
        dimension = np.mean([(x @ s) ** 2 / (s @ s) for x, s in zip(t, anchors, strict=True)])
    else:
        middle = anchors.mean(axis=0)
        radius = np.sqrt(np.mean([(s - middle) @ (s - middle) for s in anchors]))
        cosines = [
            x @ s / np.sqrt(x @ x) / np.sqrt(s @ s + 1e-12) for x, s in zip(t, anchors, strict=True)
        ]
        dimension = len(points) * np.mean(cosines) ** 2
    return 1 / np.mean(values), radius, dimension


def normalised(manifolds):
    """Return manifolds minus the global mean, centred, over the norm of their centre."""
    origin = np.concatenate(manifolds, axis=1).mean(axis=1)
    result = []
    for manifold in manifolds:
        center = manifold.mean(axis=1)
        result.append((manifold - center[:, None]) / np.linalg.norm(center - origin))
    return result


def center_correlation(centers):
    """Return the mean absolute cosine over pairs of centres minus their mean."""
    x = (centers - centers.mean(axis=1, keepdims=True)).T
    values = [abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(x, 2)]
    return np.mean(values)


def low_rank_cost(x, v, evenness=0.0):
    """Return ½ Σ_mn of the squared correlations left after removing the subspace v.

    And `evenness` times Σ of log(mean share kept) minus log(share kept).
    """
    left = x - x @ v @ v.T
    total = 0.0
    for a in left:
        for b in left:
            total += (a @ b) ** 2 / (a @ a) / (b @ b) / 2
    kept = np.array([(a @ a) / (c @ c) for a, c in zip(left, x, strict=True)])
    return total + evenness * np.sum(np.log(kept.mean()) - np.log(kept))


def lowest_cost(x, rank, evenness, starts, seed):
    """Minimise `low_rank_cost` from random subspaces, by a general solver without gradient."""
    rng = np.random.default_rng(seed)

    def cost(flat):
        return low_rank_cost(x, np.linalg.qr(flat.reshape(-1, rank))[0], evenness)

    return min(
        minimize(cost, rng.standard_normal(x.shape[1] * rank), method="L-BFGS-B").fun
        for _ in range(starts)
    )


def is_separable(points, labels, bias):
    """Ask a linear program for a hyperplane at functional margin one."""
    z = (labels * np.vstack([points, np.ones(points.shape[1])]) if bias else labels * points).T
    done = linprog(np.zeros(z.shape[1]), A_ub=-z, b_ub=-np.ones(len(z)), bounds=(None, None))
    assert done.status in (0, 2)
    return done.status == 0


def sq_projection_on_cone(generators, t):
    """Return the squared norm of the projection of t on the cone of the generators."""
    alpha, _ = nnls(generators, t)
    return np.sum((generators @ alpha) ** 2)


def sq_distance_with_margin(rows, needed, t):
    """Return min |v - t|² over rows @ v <= -needed."""
    v = cvxpy.Variable(len(t))
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(v - t)), [rows @ v <= -needed])
    return problem.solve(solver="CLARABEL")


def gauss(x):
    return np.exp(-x * x / 2) / np.sqrt(2 * np.pi)


def point_capacity(kappa):
    """Integrate the definition."""
    return 1 / quad(lambda t: gauss(t) * (t - kappa) ** 2, -np.inf, kappa)[0]


def ball_capacity(radius, dimension, kappa, samples, seed):
    """Average F over Gaussian vectors; the nearest ball anchor by its case. With standard error."""
    rng = np.random.default_rng(seed)
    r = np.linalg.norm(rng.standard_normal((dimension, samples)), axis=0)
    t0 = rng.standard_normal(samples) + kappa
    sphere = np.maximum(radius * r + t0, 0) ** 2 / (1 + radius**2)
    apex = t0**2 + r**2  # v = 0
    values = np.where(r < radius * t0, apex, sphere)
    return values.mean(), values.std() / np.sqrt(samples)


def explained_variances(points):
    """Return the variances along the principal axes of points (N, m), falling."""
    deviations = points - points.mean(axis=1, keepdims=True)
    return np.linalg.svd(deviations, compute_uv=False) ** 2


def package_dimensions(points, perc):
    """Return what the public package's alldata_dimension_analysis says of points (N, m).

    Its participation ratio leaves the last singular value out. Its explained variance takes
    features for samples, so that every point loses its mean over features, and counts the
    components up to `perc`, not those that reach it.
    """
    deviations = points - points.mean(axis=1, keepdims=True)
    squares = np.linalg.svd(deviations, compute_uv=False)[:-1] ** 2
    again = deviations - deviations.mean(axis=0, keepdims=True)
    variances = np.linalg.svd(again, compute_uv=False) ** 2
    ratio = squares.sum() ** 2 / (squares**2).sum()
    cumulative = np.cumsum(variances / variances.sum())
    return ratio, sum(c <= perc for c in cumulative), len(points)
