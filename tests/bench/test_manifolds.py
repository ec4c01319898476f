"""One layer of a stored network against cvxpy, and against the public package's procedure.

The procedure is the public package's (schung039/neural_manifolds_replicaMFT) without its low-rank
step: global mean removed, manifolds centred, divided by the norm of the centre, rotated by QR, a
row of ones, and a quadratic program for each Gaussian vector; once by cvxopt, as there, once by
scipy's non-negative least squares.
"""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest
from scipy.linalg import qr
from scipy.optimize import nnls

import manifold_capacity as mc
import manifold_capacity.replica
from logit_distributions import images, recipes
from logit_distributions.make import capacity as manifolds
from logit_distributions.make.checkpoint import Checkpoint
from tests.bench.test_kernels import by_cvxopt
from tests.conftest import STORED

LAYERS = ("layer1.1", "layer4.0")


@pytest.fixture(scope="module")
def activations():
    """Activations of ST, adversarial manifolds, P = M = 50."""
    weights = STORED / "checkpoints" / "cifar10-medium-st-seed0.safetensors"
    model, settings = Checkpoint.load(weights).model(10), recipes.Manifolds()
    data = images.stored("cifar10")
    points = (each for _, each in manifolds.manifolds(copy.deepcopy(model), data, settings))
    return manifolds.activations(model, points, LAYERS, settings)[0]


def lifted(points):
    """Return every manifold in its own frame, with a last row of ones."""
    points = points.astype(np.float64)
    origin = np.concatenate(list(points), axis=1).mean(axis=1, keepdims=True)
    result = []
    for manifold in points:
        middle = manifold.mean(axis=1, keepdims=True)
        scaled = (manifold - middle) / np.linalg.norm(middle - origin)
        q, _ = qr(scaled, mode="economic")
        result.append(np.vstack([q.T @ scaled, np.ones(scaled.shape[1])]))
    return result


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_by_three_solvers(layer, activations):
    points, n_t = activations[layer], 40
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal((51, n_t)) for _ in points]
    began = time.perf_counter()
    ours = mc.mean_field_capacity(points, t_vecs=vectors, n_t=n_t, low_rank=False, threads=1)
    seconds = time.perf_counter() - began
    frames = lifted(points)
    began = time.perf_counter()
    by_nnls = np.array(
        [
            [np.sum((s @ nnls(s, t)[0]) ** 2) for t in ts.T]
            for s, ts in zip(frames, vectors, strict=True)
        ]
    ).mean(axis=1)
    nnls_seconds = time.perf_counter() - began
    began = time.perf_counter()
    by_qp = by_cvxopt(frames[:8], vectors[:8]).mean(axis=1)
    qp_seconds = (time.perf_counter() - began) * len(frames) / 8
    certificates = [
        mc.certify(s, t, subset=range(5)) for s, t in zip(frames[::10], vectors[::10], strict=True)
    ]
    apart = {
        "scipy nnls": np.abs(ours.capacity * by_nnls - 1).max(),
        "cvxopt": np.abs(ours.capacity[:8] * by_qp - 1).max(),
        "cvxpy": max(np.nanmax(each.difference) for each in certificates),
    }
    print(
        f"\n{layer}: capacity {ours.combined_capacity:.6f} (kernels {seconds:.2f} s); scipy nnls "
        f"{1 / by_nnls.mean():.6f} ({nnls_seconds:.1f} s), cvxopt about {qp_seconds:.0f} s; "
        "largest relative difference: " + ", ".join(f"{k} {v:.1e}" for k, v in apart.items())
    )
    assert apart["scipy nnls"] < 1e-9
    assert apart["cvxopt"] < 1e-5
    assert apart["cvxpy"] < 1e-6
