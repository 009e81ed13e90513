"""Losses that train models whose explanations hold still."""

from captum_robust.loss.r2et import R2ETLoss

__all__ = ["R2ETLoss"]
