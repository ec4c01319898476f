"""Manifold capacity by mean-field theory, conic geometry and simulation: fast and certified.

Imports numpy, scipy and numba (cvxpy only to certify); arrays from any framework will do.
"""

from kernels.analytic import ball_capacity, point_capacity
from kernels.anchors import Anchors, Certificate, anchor_points, certify
from kernels.capacity import manifold_capacity
from kernels.centers import center_correlation, low_rank
from kernels.conic import conic_capacity
from kernels.separability import Separation, separable
from kernels.simulated import simulated_capacity

__all__ = [
    "Anchors",
    "Certificate",
    "Separation",
    "anchor_points",
    "ball_capacity",
    "center_correlation",
    "certify",
    "conic_capacity",
    "low_rank",
    "manifold_capacity",
    "point_capacity",
    "separable",
    "simulated_capacity",
]
