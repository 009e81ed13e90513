"""Losses computed within the forward pass of DistributedDataParallel."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["inside_forward"]


def inside_forward(
    forward_func: Callable[..., Tensor], loss: Callable[..., Tensor], *args: Any
) -> Tensor:
    """Return ``loss(model, *args)`` for the model itself, within the forward pass of its wrapper.

    DistributedDataParallel derives the gradients to wait for from the result of its forward pass.
    With a static graph it silently skips the averaging of gradients if input gradients are taken
    from the outputs afterwards.
    """
    if not isinstance(forward_func, DistributedDataParallel):
        return loss(forward_func, *args)
    model = forward_func.module
    try:
        forward_func.module = _Whole(forward_func, model, loss)
        return forward_func(*args)  # type: ignore[no-any-return]
    finally:
        forward_func.module = model


class _Whole(nn.Module):
    """A module whose forward pass is the loss of the model."""

    wrapper: DistributedDataParallel
    loss: Callable[..., Tensor]

    def __init__(
        self, wrapper: DistributedDataParallel, model: nn.Module, loss: Callable[..., Tensor]
    ) -> None:
        super().__init__()
        self.model = model  # the wrapper asks its module for buffers, to synchronise them
        self.__dict__.update(wrapper=wrapper, loss=loss)

    def forward(self, *args: Any) -> Tensor:
        self.wrapper.module = self.model  # an attribution may call the wrapper
        return self.loss(self.model, *args)
