"""Manifold capacity by mean-field theory, conic geometry and simulation: fast and certified.

Imports numpy, scipy and numba (cvxpy only to certify); arrays from any framework will do.
"""

from manifold_capacity.analytic import ball_capacity, point_capacity
from manifold_capacity.anchors import Anchors, Certificate, anchor_points, certify
from manifold_capacity.capacity import mean_field_capacity
from manifold_capacity.centers import center_correlation, low_rank
from manifold_capacity.conic import conic_capacity
from manifold_capacity.dimension import explained_variance_dimension, participation_ratio
from manifold_capacity.glue import glue
from manifold_capacity.labelled import from_labels
from manifold_capacity.resampling import by_size, resampled, resampled_difference
from manifold_capacity.separability import Separation, separable
from manifold_capacity.simulated import simulated_capacity

__all__ = [
    "Anchors",
    "Certificate",
    "Separation",
    "anchor_points",
    "ball_capacity",
    "by_size",
    "center_correlation",
    "certify",
    "conic_capacity",
    "explained_variance_dimension",
    "from_labels",
    "glue",
    "low_rank",
    "mean_field_capacity",
    "participation_ratio",
    "point_capacity",
    "resampled",
    "resampled_difference",
    "separable",
    "simulated_capacity",
]
