"""Metrics of the stability of explanations: one value per example, in Captum's call shapes."""

from captum_robust.metrics.bounds import pairwise_thickness_bounds, thickness_bounds
from captum_robust.metrics.certified_precision import certified_precision_at_k
from captum_robust.metrics.certified_radius import certified_top_k_radius
from captum_robust.metrics.curvature import hessian_norm
from captum_robust.metrics.faithfulness import (
    comprehensiveness,
    decision_flip_fraction,
    sufficiency,
)
from captum_robust.metrics.gap import ranking_gap
from captum_robust.metrics.location import center_of_mass_shift
from captum_robust.metrics.precision import precision_at_k, precision_at_k_min
from captum_robust.metrics.prediction import prediction_change_rate
from captum_robust.metrics.similarity import (
    attribution_mse,
    pearson_correlation,
    spearman_correlation,
)
from captum_robust.metrics.thickness import (
    default_perturb_func,
    pairwise_ranking_thickness,
    ranking_thickness,
)

__all__ = [
    "attribution_mse",
    "center_of_mass_shift",
    "certified_precision_at_k",
    "certified_top_k_radius",
    "comprehensiveness",
    "decision_flip_fraction",
    "default_perturb_func",
    "hessian_norm",
    "pairwise_ranking_thickness",
    "pairwise_thickness_bounds",
    "pearson_correlation",
    "precision_at_k",
    "precision_at_k_min",
    "prediction_change_rate",
    "ranking_gap",
    "ranking_thickness",
    "spearman_correlation",
    "sufficiency",
    "thickness_bounds",
]
