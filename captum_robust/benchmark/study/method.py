"""A training method: its activation, its loss, its role, and the grid of its settings."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from captum_robust.models import TabularMLP

__all__ = ["Criterion", "Method", "Role", "Setting", "grid"]

Setting = Mapping[str, Any]
Criterion = Callable[[Tensor, Tensor], Tensor]

#: - ``"baseline"``: a method that R2ET is compared with.
#: - ``"variant"``: a form of R2ET.
#: - ``"idea"``: a change that was tried beyond the paper.
#: - ``"reference"``: a model that shows what is possible, and competes with none.
Role = Literal["baseline", "variant", "idea", "reference"]

#: The entries of a setting that are no arguments of the loss.
_NOT_OF_THE_LOSS = ("beta", "weight_decay", "times")


@dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
        loss: makes the loss of a model, for the k of the study.
        grid: the settings among which one is selected, by name. ``weight_decay`` goes to Adam,
            ``beta`` to the softplus, ``times`` multiplies the epochs, all others go to the loss.
        activation: activation of the network: ``"leaky_relu"``, ``"softplus"``, or ``"none"`` for
            a linear one.
        role: what the method is in the comparison.
        by_default: whether a run trains it unless told otherwise.
        is_r2et: whether its loss has the ranking term of R2ET.
        approximates: name of the method that this one approximates at a lower cost; empty if none.
    """

    loss: Callable[..., Criterion]
    grid: Mapping[str, Setting]
    activation: Literal["leaky_relu", "softplus", "none"] = "leaky_relu"
    role: Role = "baseline"
    by_default: bool = True
    is_r2et: bool = False
    approximates: str = ""

    def network(
        self, n_features: int, setting: Setting, make: Callable[..., nn.Module] = TabularMLP
    ) -> nn.Module:
        """Make a network with new weights; ``make`` takes the features and the activation."""
        if self.activation == "softplus":
            return make(n_features, activation=lambda: nn.Softplus(beta=setting["beta"]))
        activation = nn.LeakyReLU if self.activation == "leaky_relu" else nn.Identity
        return make(n_features, activation=activation)

    def criterion(self, model: nn.Module, k: int, setting: Setting) -> Criterion:
        """Make the loss of a network."""
        options = {name: v for name, v in setting.items() if name not in _NOT_OF_THE_LOSS}
        return self.loss(model, k, **options)


def grid(**choices: tuple[Any, ...]) -> dict[str, Setting]:
    """Return every combination, by a name such as ``"weight=0.1 gap=exp"``."""
    points = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]
    return {" ".join(f"{name}={value}" for name, value in p.items()): p for p in points}
