"""How a network is trained: its activation, the loss, and the grid of their settings."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from captum_robust.loss import (
    AdversarialRankingLoss,
    CrossLipschitzLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
)
from captum_robust.models import TabularMLP
from captum_robust.ranking import Gap, Pairs

__all__ = [
    "Criterion",
    "Method",
    "Setting",
    "adversarial",
    "cross_lipschitz",
    "curvature",
    "grid",
    "plain",
    "ranking",
    "surface",
]

Setting = Mapping[str, Any]
Criterion = Callable[[Tensor, Tensor], Tensor]

#: Sharpness of the softplus by whose gradients a loss attacks a LeakyReLU network.
_BETA = 5.0
#: What of a setting does not go to the loss.
_ELSEWHERE = ("beta", "weight_decay", "times")


@dataclass(frozen=True)
class Method:
    """How a network is trained.

    Attributes:
        loss: makes the loss of a model, for the k of the study.
        grid: the settings among which one is selected, by name. ``weight_decay`` goes to Adam,
            ``beta`` to the softplus, ``times`` multiplies the epochs, the others go to the loss.
        activation: of the network: ``"leaky_relu"``, ``"softplus"``, or ``"none"``, which makes it
            linear.
    """

    loss: Callable[..., Criterion]
    grid: Mapping[str, Setting]
    activation: Literal["leaky_relu", "softplus", "none"] = "leaky_relu"

    def network(
        self, n_features: int, setting: Setting, make: Callable[..., nn.Module] = TabularMLP
    ) -> nn.Module:
        """The network with new weights; ``make`` takes the features and the activation."""
        if self.activation == "softplus":
            return make(n_features, activation=lambda: nn.Softplus(beta=setting["beta"]))
        activation = nn.LeakyReLU if self.activation == "leaky_relu" else nn.Identity
        return make(n_features, activation=activation)

    def criterion(self, model: nn.Module, k: int, setting: Setting) -> Criterion:
        """The loss of the network."""
        return self.loss(model, k, **{n: v for n, v in setting.items() if n not in _ELSEWHERE})


def grid(**choices: tuple[Any, ...]) -> dict[str, Setting]:
    """Every combination, by a name such as ``"weight=0.1 gap=exp"``."""
    points = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    return {" ".join(f"{name}={value}" for name, value in p.items()): p for p in points}


def plain(model: nn.Module, k: int) -> R2ETLoss:
    """The classification loss."""
    return R2ETLoss(model, k, lambda1=0, lambda2=0)


def curvature(model: nn.Module, k: int, **options: Any) -> HessianNormLoss:
    """Est-H and Exact-H."""
    return HessianNormLoss(model, **options)


def surface(model: nn.Module, k: int, **options: Any) -> SSRLoss:
    """SSR."""
    return SSRLoss(model, **options)


def adversarial(model: nn.Module, k: int, **options: Any) -> AdversarialRankingLoss:
    """AT."""
    return AdversarialRankingLoss(model, k, smooth_relu=_BETA, **options)


def cross_lipschitz(model: nn.Module, k: int, **options: Any) -> CrossLipschitzLoss:
    """CL."""
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
    """R2ET; both weights are equal, as for the tables of the paper.

    R2ET-mm takes half the pairs of linear gaps: with as many it would be R2ET.
    """
    if pairs == "mm" and gap == "linear":
        k_prime = max(1, k // 2)
    return R2ETLoss(
        model, k, lambda1=weight, lambda2=weight * curvature, gap=gap, pairs=pairs,
        k_prime=k_prime, **options,
    )  # fmt: skip
