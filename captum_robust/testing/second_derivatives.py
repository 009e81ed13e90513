"""Rules on derivatives that are missing: they are never taken for zero."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from captum_robust._utils.captum import as_tuple
from captum_robust._utils.derivatives import NotDifferentiableError
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.loss_case import LossCase
from captum_robust.testing.metric_case import ModelCase
from captum_robust.testing.report import require, require_close

__all__ = [
    "check_attack_names_a_missing_second_derivative",
    "check_loss_in_inference_mode_is_the_same",
    "check_loss_names_a_missing_second_derivative",
    "check_loss_refuses_a_missing_gradient",
    "check_missing_gradient_is_not_robust",
    "check_missing_second_derivative_is_not_flat",
]


def check_attack_names_a_missing_second_derivative(case: AttackCase) -> None:
    """On a network that torch cannot differentiate twice, work, or raise NotDifferentiableError."""
    moved = _allowed(lambda: case.perturb(case.attack(_Distance(case.model.build()))))
    if moved is not None:
        require(
            all(bool(t.isfinite().all()) for t in as_tuple(moved)),
            "the inputs returned are not finite",
        )


def check_missing_gradient_is_not_robust(case: ModelCase) -> None:
    """Where the output has no gradient by the inputs, raise, or return NaN: never a perfect value.

    The network computes its features under ``torch.no_grad()``.
    """
    value = _allowed(lambda: case.value(_Frozen(case.model.build())))
    if value is not None:
        perfect = torch.full_like(value, case.traits.perfect or 0.0)
        near = torch.isclose(value, perfect, rtol=0, atol=1e-6)
        require(not bool(near.any()), f"without a gradient the values are {value.tolist()}")


def check_missing_second_derivative_is_not_flat(case: ModelCase) -> None:
    """A custom function without a second derivative gives an error, NaN, or the value of its twin.

    The twin is torch's own function, with all derivatives.
    """
    value = _allowed(lambda: case.value(_Bent(case.model.build(), _bend_once)))
    if value is not None:
        expected = case.value(_Bent(case.model.build(), torch.tanh))
        known = value.where(~value.isnan(), expected)
        require_close(
            known, expected, f"{value.tolist()} without a second derivative, else {expected}", 1e-6
        )


def check_loss_refuses_a_missing_gradient(case: LossCase) -> None:
    """Where the output has no gradient by the inputs, the loss raises: it is not the plain loss."""
    value = _allowed(lambda: case.value(_Frozen(case.model.build())))
    require(value is None, "an extractor under torch.no_grad() gives a loss without an error")


def check_loss_names_a_missing_second_derivative(case: LossCase) -> None:
    """A network that torch cannot differentiate twice trains, or raises NotDifferentiableError.

    It never ends in torch's own error, and a custom function without a second derivative does not
    change the gradient in silence.
    """
    _allowed(lambda: case.value(_Distance(case.model.build())).backward())
    network = _Bent(case.model.build(), _bend_once)
    found = _allowed(lambda: case.gradients(network))
    if found is not None and not case.traits.perturbs_inputs:
        expected = case.gradients(_Bent(case.model.build(), torch.tanh))
        for name, gradient in found.items():
            twin = expected[name]
            if gradient is not None and twin is not None:
                require_close(gradient, twin, f"another gradient of {name} than by torch.tanh")


def check_loss_in_inference_mode_is_the_same(case: LossCase) -> None:
    """Under ``torch.inference_mode()``, as in validation, the value is the same, or an error."""
    expected, network = case.value().detach(), case.model.build()

    def value() -> Tensor:
        with torch.inference_mode():
            return case.value(network)

    found = _allowed(value)
    if found is not None:
        require_close(found.clone(), expected, "another value under torch.inference_mode()")


def _allowed(call: Callable[[], Any]) -> Any:
    """Return the result of a call; None where it raises an error that names the cause."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call()
    except (ValueError, NotDifferentiableError):
        return None


class _Frozen(nn.Module):
    """A network whose features have no graph, behind a scale that has one."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, *inputs: Any) -> Tensor:
        with torch.no_grad():
            features: Tensor = self.body(*inputs)
        return self.scale.to(features) * features


class _Distance(nn.Module):
    """A network with its distance from a point, which torch differentiates once."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Any) -> Tensor:
        outputs: Tensor = self.body(*inputs)
        rows = outputs.reshape(len(outputs), -1)
        distance = torch.cdist(rows, torch.full_like(rows[:1], 0.3))
        return (rows + distance).view_as(outputs)


class _Bent(nn.Module):
    """A network and a curved function of its outputs."""

    def __init__(self, body: nn.Module, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.bend = bend

    def forward(self, *inputs: Any) -> Tensor:
        return self.bend(self.body(*inputs))


class _BendOnce(torch.autograd.Function):
    """The hyperbolic tangent with its first derivative only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        found: Tensor = gradient * (1 - x.tanh() ** 2)
        return found


def _bend_once(x: Tensor) -> Tensor:
    bent: Tensor = _BendOnce.apply(x)  # type: ignore[no-untyped-call]
    return bent
