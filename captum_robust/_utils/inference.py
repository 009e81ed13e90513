"""Calls that need gradients, made where the caller has switched them off for good."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["outside_inference_mode", "with_gradients"]


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave ``torch.inference_mode`` for the block, and keep the mode of gradients.

    Nothing that is computed in inference mode has a gradient, whatever is enabled inside.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def with_gradients(value: Any) -> Any:
    """Return a value whose tensors may be in a graph: those of inference mode are copied.

    Call it outside of inference mode. Tuples, lists and dicts are searched.
    """
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(map(with_gradients, value))
    if type(value) is list:
        return list(map(with_gradients, value))
    if type(value) is dict:
        return {name: with_gradients(item) for name, item in value.items()}
    return value
