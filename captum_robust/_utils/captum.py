"""The only file that imports Captum's private names.

When a release of Captum moves one of them, only this file has to change. A test guards the
interception of Captum's code by module name (:mod:`captum_robust.attr.differentiable`).
"""

import inspect
from typing import Any

from captum._utils.common import _format_output, _run_forward, _select_targets
from captum._utils.gradient import compute_gradients
from captum._utils.typing import TargetType, TensorOrTupleOfTensorsGeneric
from captum.attr import Attribution
from captum.log import log_usage
from captum.robust import Perturbation
from torch import Tensor, nn

from captum_robust._utils.outputs import check_output

Inputs = Tensor | tuple[Tensor, ...]

__all__ = [
    "Inputs",
    "Perturbation",
    "TargetType",
    "TensorOrTupleOfTensorsGeneric",
    "accepted_arguments",
    "as_tuple",
    "call_forward",
    "compute_gradients",
    "format_like",
    "log_usage",
    "run_forward",
    "select_target",
]


def accepted_arguments(attribution: Attribution, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return those of some arguments that ``attribution.attribute`` takes.

    A method that takes any keyword argument, as that of NoiseTunnel, passes them on to the
    ``attribution_method`` that it wraps, whose own arguments decide then.
    """
    parameters = inspect.signature(attribution.attribute).parameters
    accepted = {name: value for name, value in arguments.items() if name in parameters}
    inner = getattr(attribution, "attribution_method", None)
    if inner is not None:
        accepted |= accepted_arguments(inner, arguments)
    return accepted


def as_tuple(inputs: Inputs, name: str = "inputs") -> tuple[Tensor, ...]:
    """Wrap a tensor into a tuple, and check that all tensors have the same number of examples."""
    tensors = (inputs,) if isinstance(inputs, Tensor) else inputs
    if not isinstance(tensors, tuple) or not all(isinstance(t, Tensor) for t in tensors):
        got = type(inputs).__name__
        raise ValueError(f"{name} must be a Tensor or a tuple of Tensors, got {got}")
    if not tensors or any(t.dim() == 0 for t in tensors):
        raise ValueError(f"{name} must hold tensors whose first dimension counts the examples")
    if len({t.shape[0] for t in tensors}) > 1:
        sizes = [t.shape[0] for t in tensors]
        raise ValueError(
            f"{name} must have the same number of examples in each tensor, got {sizes}"
        )
    return tensors


def format_like(inputs: Inputs, tensors: tuple[Tensor, ...]) -> Any:
    """Return ``tensors`` in the form of ``inputs``: one tensor, or a tuple."""
    return _format_output(isinstance(inputs, tuple), tensors)


def run_forward(
    forward_func: Any, inputs: tuple[Tensor, ...], additional_forward_args: Any = None
) -> Tensor:
    """Call the model as Captum does: inputs first, then the additional arguments.

    Raises:
        ValueError: if the model does not return a tensor.
    """
    return check_output(call_forward(forward_func, inputs, additional_forward_args))


def call_forward(
    forward_func: Any, inputs: tuple[Tensor, ...], additional_forward_args: Any = None
) -> Any:
    """Call a function as :func:`run_forward` does, and return whatever it returns."""
    if isinstance(forward_func, nn.Module):  # skips Captum's inspection of the signature
        extra = additional_forward_args
        further = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
        return forward_func(*inputs, *further)
    return _run_forward(forward_func, inputs, None, additional_forward_args)


def select_target(outputs: Tensor, target: TargetType) -> Tensor:
    """Return the output of each example that ``target`` selects, in any of Captum's forms; (N,)."""
    try:
        if isinstance(target, Tensor) and target.shape == outputs.shape[:1] and outputs.dim() == 2:
            # As Captum does, without its checks.
            return outputs.gather(1, target[:, None]).squeeze(1)
        selected = _select_targets(outputs, target)
    except (AssertionError, IndexError, RuntimeError) as error:
        raise ValueError(_target_message(outputs, target)) from error
    if selected.numel() != len(outputs):
        raise ValueError(_target_message(outputs, target))
    return selected if selected.dim() == 1 else selected.reshape(-1)


def _target_message(outputs: Tensor, target: TargetType) -> str:
    shape = tuple(outputs.shape)
    return f"target must select one output per example from outputs of {shape}, got {target!r}"
