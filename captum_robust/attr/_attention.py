"""Attention computed by the kernel that has a second derivative."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from captum_robust._utils.exclusive import EXCLUSIVE

__all__ = ["call_with_math_attention", "is_attention", "math_attention"]

_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}


def is_attention(func: Callable[..., Any]) -> bool:
    """Return whether torch computes ``func`` with a fused attention kernel."""
    return func in _ATTENTION


def call_with_math_attention(func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call an attention function with the math kernel; fused ones have no second derivative."""
    # Selecting the kernel sets flags of the process.
    with EXCLUSIVE, sdpa_kernel(SDPBackend.MATH):
        return func(*args, **kwargs)


class math_attention(TorchFunctionMode):
    """Context in which attention has derivatives of every order.

    Attributes:
        called: whether an attention function has been called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.called = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func in _ATTENTION:
            self.called = True
            return call_with_math_attention(func, *args, **kwargs)
        return func(*args, **kwargs)
