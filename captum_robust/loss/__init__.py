"""Losses for training models with stable explanations."""

from captum_robust.loss.adversarial import AdversarialRankingLoss
from captum_robust.loss.cross_lipschitz import CrossLipschitzLoss
from captum_robust.loss.curvature import HessianNormLoss
from captum_robust.loss.r2et import R2ETLoss
from captum_robust.loss.relu import replace_relu
from captum_robust.loss.ssr import SSRLoss

__all__ = [
    "AdversarialRankingLoss",
    "CrossLipschitzLoss",
    "HessianNormLoss",
    "R2ETLoss",
    "SSRLoss",
    "replace_relu",
]
