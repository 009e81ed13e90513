"""Derivatives of Captum's attributions, also for ReLU networks."""

from captum_robust.attr.check import (
    NotDifferentiableError,
    attribution_gradcheck,
    is_differentiable,
)
from captum_robust.attr.differentiable import differentiable_attribution
from captum_robust.attr.smooth import smooth_relu

__all__ = [
    "NotDifferentiableError",
    "attribution_gradcheck",
    "differentiable_attribution",
    "is_differentiable",
    "smooth_relu",
]
