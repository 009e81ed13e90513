"""Models in a state worth keeping, and things that go wrong on purpose."""

from collections.abc import Callable
from itertools import count
from typing import Any

import torch
from torch import nn

__all__ = ["Trouble", "failing_at", "refusal", "worn"]


class Trouble(Exception):
    """Raised inside a model."""


def worn(model: nn.Module, hook: bool = True) -> nn.Module:
    """The model as it may come out of training: with gradients, a frozen parameter and a hook."""
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.25)
    parameters[-1].requires_grad_(False)
    if hook:
        model.register_forward_hook(_look)
    return model


def failing_at(call: int, model: nn.Module) -> list[int]:
    """Let the model raise :class:`Trouble` from the given call on, after drawing random numbers.

    Returns the calls at which it has raised, none so far.
    """
    calls = count(1)
    raised: list[int] = []

    def fail(module: nn.Module, args: Any) -> None:
        torch.rand(1)
        number = next(calls)
        if number >= call:
            raised.append(number)
            raise Trouble

    model.register_forward_pre_hook(fail)
    return raised


def refusal(call: Callable[[], Any]) -> str | None:
    """The message of the ValueError that a call raises; None if it raises none."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return None


def _look(module: nn.Module, args: Any, output: Any) -> None:
    """Stand in for a hook of the user's."""
