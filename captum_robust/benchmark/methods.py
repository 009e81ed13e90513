"""The training methods that are compared: a network, a loss, and the grid of their settings."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from captum_robust.loss import (
    AdversarialRankingLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
)
from captum_robust.models import TabularMLP
from captum_robust.ranking import Gap, Pairs

__all__ = ["BASELINES", "DEFAULT", "K_PRIMES", "METHODS", "RIVALS", "Method", "Setting"]

Setting = Mapping[str, Any]
Criterion = Callable[[Tensor, Tensor], Tensor]

#: Sharpness of the softplus by whose gradients a loss attacks a LeakyReLU network.
_BETA = 5.0


@dataclass(frozen=True)
class Method:
    """How a network is trained.

    Attributes:
        loss: makes the loss of a model, for the k of the study.
        grid: the settings among which one is selected, by name. ``weight_decay`` goes to Adam,
            ``beta`` to the softplus, the others to the loss.
        activation: of the network: ``"leaky_relu"``, ``"softplus"``, or ``"none"``, which makes it
            linear.
    """

    loss: Callable[..., Criterion]
    grid: Mapping[str, Setting]
    activation: Literal["leaky_relu", "softplus", "none"] = "leaky_relu"

    def network(self, n_features: int, setting: Setting) -> TabularMLP:
        """The network with new weights."""
        if self.activation == "softplus":
            return TabularMLP(n_features, activation=lambda: nn.Softplus(beta=setting["beta"]))
        activation = nn.LeakyReLU if self.activation == "leaky_relu" else nn.Identity
        return TabularMLP(n_features, activation=activation)

    def criterion(self, model: nn.Module, k: int, setting: Setting) -> Criterion:
        """The loss of the network."""
        options = {n: v for n, v in setting.items() if n not in ("beta", "weight_decay")}
        return self.loss(model, k, **options)


def _plain(model: nn.Module, k: int) -> R2ETLoss:
    return R2ETLoss(model, k, lambda1=0, lambda2=0)


def _curvature(model: nn.Module, k: int, **options: Any) -> HessianNormLoss:
    return HessianNormLoss(model, **options)


def _surface(model: nn.Module, k: int, **options: Any) -> SSRLoss:
    return SSRLoss(model, **options)


def _adversarial(model: nn.Module, k: int, **options: Any) -> AdversarialRankingLoss:
    return AdversarialRankingLoss(model, k, smooth_relu=_BETA, **options)


def _ranking(
    model: nn.Module,
    k: int,
    weight: float,
    gap: Gap,
    pairs: Pairs,
    curvature: bool,
    k_prime: int | None = None,
) -> R2ETLoss:
    """R2ET; both weights are equal, as for the tables of the paper.

    R2ET-mm takes half the pairs of linear gaps: with as many it would be R2ET.
    """
    if pairs == "mm" and gap == "linear":
        k_prime = max(1, k // 2)
    return R2ETLoss(
        model, k, lambda1=weight, lambda2=weight * curvature, gap=gap, pairs=pairs, k_prime=k_prime
    )


def _grid(**choices: tuple[Any, ...]) -> dict[str, Setting]:
    """Every combination, by a name such as ``"weight=0.1 gap=exp"``."""
    points = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    return {" ".join(f"{name}={value}" for name, value in p.items()): p for p in points}


METHODS: dict[str, Method] = {
    "vanilla": Method(_plain, {"": {}}),
    "wd": Method(_plain, _grid(weight_decay=(1e-3, 1e-2, 3e-2))),
    "sp": Method(_plain, _grid(beta=(0.5, 1.0, 2.0)), "softplus"),
    "est-h": Method(_curvature, _grid(weight=(0.01, 0.1, 0.3))),
    "exact-h": Method(_curvature, _grid(weight=(0.01, 0.1), hessian=("exact",))),
    "ssr": Method(_surface, _grid(weight=(1e-3, 1e-2))),
    "at": Method(_adversarial, _grid(radius=(0.25, 0.5), step_num=(1, 3))),
}
#: The methods of the paper that R2ET is compared to.
BASELINES = tuple(METHODS)

_GAPS: dict[str, Any] = {"gap": ("linear", "exp")}
_VARIANTS: tuple[tuple[str, Pairs, bool], ...] = (
    ("r2et", "anchor", True),
    ("r2et-mm", "mm", True),
    ("r2et-no-h", "anchor", False),
    ("r2et-mm-no-h", "mm", False),
)
for _name, _pairs, _curved in _VARIANTS:
    _loss = partial(_ranking, pairs=_pairs, curvature=_curved)
    METHODS[_name] = Method(_loss, _grid(weight=(0.01, 0.03, 0.1), **_GAPS))
    # On a softplus network, as the authors' code runs it (β = 0.5).
    METHODS[f"{_name}-sp"] = Method(
        _loss, _grid(weight=(0.003, 0.01, 0.03), **_GAPS, beta=(0.5,)), "softplus"
    )

#: Flatter and flatter networks: softplus of β = 0.1, almost linear, and logistic regression, whose
#: gradients rank alike everywhere. What they reach needs no regulariser. The first is SP with
#: another value of its one parameter, so it is a baseline: the grid of the paper is lost.
METHODS["sp-flat"] = Method(_plain, _grid(beta=(0.1,)), "softplus")
METHODS["linear"] = Method(_plain, {"": {}}, "none")

#: What the best R2ET is compared to, by name.
RIVALS = {
    "baselines": (*BASELINES, "sp-flat"),
    "baselines without sp-flat": BASELINES,
    "reference": ("linear",),
}

#: The study of k', linear gaps of R2ET\H; R2ET-mm\H is the same function.
K_PRIMES = range(1, 9)
for _k_prime in K_PRIMES:
    _loss = partial(_ranking, pairs="anchor", curvature=False, gap="linear", k_prime=_k_prime)
    METHODS[f"r2et-no-h-k{_k_prime}"] = Method(_loss, _grid(weight=(0.03,)))

#: What a command trains unless told otherwise.
DEFAULT = tuple(name for name in METHODS if "-k" not in name)
