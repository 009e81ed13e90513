"""Calls of a caller's perturbation: a Perturbation, or a function as Captum's metrics take it."""

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_robust._utils.captum import Inputs, Perturbation, as_tuple, format_like
from captum_robust._utils.exclusive import EXCLUSIVE
from captum_robust._utils.random import reseed

__all__ = ["perturb_once"]

_RADIUS_NAMES = ("perturb_radius", "radius", "epsilon", "eps")


def perturb_once(
    perturb_func: Callable[..., Any],
    inputs: Inputs,
    radius: float | Tensor,
    kwargs: dict[str, Any],
    seed: int,
) -> tuple[Tensor, ...]:
    """Return one perturbed copy of every example.

    A Perturbation is called with the radius, a seed and the ``kwargs`` of the explanation, as far
    as it accepts them; a function with the radius alone.

    Raises:
        ValueError: if the perturbed tensors do not have the shapes of the inputs.
    """
    originals = tuple(t.detach() for t in as_tuple(inputs))
    given = format_like(inputs, tuple(t.clone() for t in originals))
    reseed(seed)
    with EXCLUSIVE, warnings.catch_warnings():  # Captum's PGD warns of its own iterates
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        if isinstance(perturb_func, Perturbation):
            method = perturb_func.perturb
            named = _radius_keyword(method, radius) or {"radius": radius}
            offered = {**kwargs, **named, "seed": seed}
            perturbed = method(given, **_accepted(method, offered))
        elif _takes_radius(perturb_func):
            perturbed = perturb_func(given, radius)
        else:
            perturbed = perturb_func(given, **_radius_keyword(perturb_func, radius))
    tensors = as_tuple(perturbed, "the result of perturb_func")
    shapes, expected = [t.shape for t in tensors], [t.shape for t in originals]
    if shapes != expected:
        raise ValueError(f"perturb_func must return tensors of shapes {expected}, got {shapes}")
    return tuple(t.detach().to(x) for t, x in zip(tensors, originals, strict=True))


def _accepted(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Select the keyword arguments that a function takes; all of them where it has **kwargs."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in parameters}


def _takes_radius(function: Callable[..., Any]) -> bool:
    """Return whether the second positional parameter is a radius, by name or as it is required."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) < 2:
        return False
    second = parameters[1]
    if second.kind is second.VAR_POSITIONAL:
        return True
    positional = second.kind in (second.POSITIONAL_ONLY, second.POSITIONAL_OR_KEYWORD)
    return positional and (second.name in _RADIUS_NAMES or second.default is second.empty)


def _radius_keyword(function: Callable[..., Any], radius: float | Tensor) -> dict[str, Any]:
    """Return the radius under its parameter's name, unless ``functools.partial`` bound that."""
    bound = function.keywords if isinstance(function, functools.partial) else {}
    names = inspect.signature(function).parameters
    return {name: radius for name in _RADIUS_NAMES if name in names and name not in bound}
