"""A training loss on a small model, its declared properties, and the values that checks need."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs
from captum_robust.testing.models import SmallModel, small_models

__all__ = ["LossCase", "LossTraits"]


@dataclass(frozen=True)
class LossTraits:
    """Declared properties of a training loss, which decide which checks apply.

    Attributes:
        perturbs_inputs (bool): trains on perturbed inputs with a gradient for the fixed
            perturbation, which is not the derivative of the value.
        repeatable (bool): two calls in evaluation mode are bitwise equal and do not use the global
            generators.
        half_precision (bool): works in bfloat16.
        forward_args (bool): takes ``additional_forward_args``.
        checks_derivatives (bool): raises ``NotDifferentiableError`` where a derivative is missing,
            and leaves inference mode by itself. A loss that calls autograd alone raises torch's
            errors there.
    """

    perturbs_inputs: bool = False
    repeatable: bool = True
    half_precision: bool = True
    forward_args: bool = True
    checks_derivatives: bool = True


@dataclass(frozen=True)
class LossCase:
    """A loss and one small model."""

    factory: Callable[[nn.Module], Any]
    traits: LossTraits = field(default_factory=LossTraits)
    model: SmallModel = field(default_factory=lambda: small_models()[0])

    def value(
        self,
        network: nn.Module | None = None,
        inputs: Inputs | None = None,
        target: Tensor | None = None,
        arguments: dict[str, Any] | None = None,
        criterion: Any = None,
    ) -> Tensor:
        """Return the loss of the batch, or of given arguments; warnings are ignored."""
        criterion = criterion or self.factory(network or self.model.build())
        more = {n: v for n, v in (arguments or self.model.arguments).items() if n != "target"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Tensor = criterion(
                self.model.inputs if inputs is None else inputs,
                self.target(self.model.labels) if target is None else target,
                **more,
            )
        return found

    def target(self, labels: Tensor) -> Tensor:
        """Return labels for a loss: class indices, or 0.0 and 1.0 for a single logit."""
        return labels.double() if self.model.n_outputs == 1 else labels

    def gradients(self, network: nn.Module, **given: Any) -> dict[str, Tensor | None]:
        """Return the gradient of the loss by every parameter that requires one."""
        named = {n: p for n, p in network.named_parameters() if p.requires_grad}
        loss = self.value(network, **given)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return dict(zip(named, found, strict=True))
