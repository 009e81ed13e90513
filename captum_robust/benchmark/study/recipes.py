"""Functions that make the losses of the training methods, with the weights of a setting."""

from typing import Any

from torch import nn

from captum_robust.loss import (
    AdversarialRankingLoss,
    CrossLipschitzLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
)
from captum_robust.ranking import Gap, Pairs

__all__ = ["adversarial", "cross_lipschitz", "curvature", "plain", "ranking", "surface"]

#: Sharpness of the softplus along whose gradients a loss attacks a LeakyReLU network.
_BETA = 5.0


def plain(model: nn.Module, k: int) -> R2ETLoss:
    """Make the classification loss alone."""
    return R2ETLoss(model, k, lambda1=0, lambda2=0)


def curvature(model: nn.Module, k: int, **options: Any) -> HessianNormLoss:
    """Make the loss of Est-H and Exact-H."""
    return HessianNormLoss(model, **options)


def surface(model: nn.Module, k: int, **options: Any) -> SSRLoss:
    """Make the loss of SSR."""
    return SSRLoss(model, **options)


def adversarial(model: nn.Module, k: int, **options: Any) -> AdversarialRankingLoss:
    """Make the loss of adversarial training (AT)."""
    return AdversarialRankingLoss(model, k, smooth_relu=_BETA, **options)


def cross_lipschitz(model: nn.Module, k: int, **options: Any) -> CrossLipschitzLoss:
    """Make the loss of cross-Lipschitz regularisation (CL)."""
    return CrossLipschitzLoss(model, k, **options)


def ranking(
    model: nn.Module,
    k: int,
    weight: float,
    gap: Gap = "linear",
    pairs: Pairs = "anchor",
    curvature: bool = True,
    k_prime: int | None = None,
    **options: Any,
) -> R2ETLoss:
    """Make the loss of R2ET; both weights are equal, as in the tables of the paper.

    R2ET-mm takes half the pairs of linear gaps: with as many it would be R2ET.
    """
    if pairs == "mm" and gap == "linear":
        k_prime = max(1, k // 2)
    return R2ETLoss(
        model, k, lambda1=weight, lambda2=weight * curvature, gap=gap, pairs=pairs,
        k_prime=k_prime, **options,
    )  # fmt: skip
