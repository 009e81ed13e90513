"""Half precision and autocast, and models in single precision."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["in_single_precision", "is_coarse", "single_precision"]

_HALF = (torch.float16, torch.bfloat16)


def is_coarse(tensors: Sequence[Tensor]) -> bool:
    """Return whether computations with tensors round to half precision, by dtype or by autocast."""
    return any(t.dtype in _HALF for t in tensors) or _autocasts(tensors[0].device.type)


def single_precision(value: Any) -> Any:
    """Return a value with tensors of half precision in single precision; tuples are searched."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in _HALF else value
    if isinstance(value, tuple):
        return tuple(map(single_precision, value))
    return value


def in_single_precision(model: nn.Module) -> Callable[..., Any]:
    """Return the function of a model with its parameters and buffers in single precision.

    Its graph reaches the parameters of the model, and its buffers are not written to.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if not any(t.dtype in _HALF for t in tensors.values()):
        return model
    wide = {name: single_precision(tensor) for name, tensor in tensors.items()}
    return lambda *inputs: functional_call(model, wide, inputs)


def _autocasts(device_type: str) -> bool:
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:  # before torch 2.4
        return (
            torch.is_autocast_cpu_enabled() if device_type == "cpu" else torch.is_autocast_enabled()
        )
