"""Snapshots of models, tensors and the global random state, to find changes."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_robust._utils.random import cuda_devices

__all__ = ["changes", "random_state", "state_of_model", "state_of_tensors"]


def state_of_model(model: nn.Module) -> dict[str, Any]:
    """Return the state of a model that its owner may notice."""
    state: dict[str, Any] = {"grad mode": torch.is_grad_enabled()}
    for name, module in model.named_modules():
        state[f"mode of {name or 'the model'}"] = module.training
        state[f"hooks of {name or 'the model'}"] = [
            list(hooks)
            for hooks in (
                module._forward_hooks,
                module._forward_pre_hooks,
                module._backward_hooks,
                module._backward_pre_hooks,
            )
        ]
    for name, parameter in model.named_parameters():
        state[f"parameter {name}"] = (id(parameter), parameter.detach().clone())
        state[f"requires_grad of {name}"] = parameter.requires_grad
        grad = parameter.grad
        state[f"grad of {name}"] = None if grad is None else (id(grad), grad.clone())
    for name, buffer in model.named_buffers():
        state[f"buffer {name}"] = (id(buffer), buffer.clone())
    return state


def state_of_tensors(tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return values and gradient flags of tensors by name."""
    return {
        name: (t.detach().clone(), t.requires_grad, t.grad is None, t.is_leaf, t._version)
        for name, t in tensors.items()
    }


def random_state() -> dict[str, Any]:
    """Return the states of the global generators of torch, NumPy and Python."""
    on_gpus = {f"generator of GPU {d}": torch.cuda.get_rng_state(d) for d in cuda_devices()}
    return {
        **on_gpus,
        "generator of torch": torch.get_rng_state(),
        "generator of numpy": str(np.random.get_state(legacy=False)),  # noqa: NPY002
        "generator of random": random.getstate(),
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return the names of entries that differ."""
    names = [*before, *(name for name in after if name not in before)]
    return [
        name
        for name in names
        if (name in before) != (name in after) or not _equal(before[name], after[name])
    ]


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return left.shape == right.shape and bool(
            torch.equal(left.nan_to_num(), right.nan_to_num())
            and torch.equal(left.isfinite(), right.isfinite())
        )
    if isinstance(left, tuple) and isinstance(right, tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)
