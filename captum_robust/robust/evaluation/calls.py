"""Calls of any attack, with the arguments that its ``perturb`` accepts."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from captum_robust._utils.captum import Inputs, Perturbation, as_tuple
from captum_robust._utils.exclusive import EXCLUSIVE
from captum_robust.robust.info import ZeroGradientWarning

__all__ = ["call_attack", "forwards", "noted_zero_gradient", "options_of"]


def options_of(attack: Perturbation) -> set[str]:
    """Return the arguments that ``attack.perturb`` names; ``**kwargs`` are the attribution's."""
    parameters = inspect.signature(attack.perturb).parameters.values()
    return {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def forwards(attack: Perturbation) -> bool:
    """Return whether ``attack.perturb`` takes any keyword, and passes it to an attribution."""
    parameters = inspect.signature(attack.perturb).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def call_attack(
    attack: Perturbation,
    inputs: Inputs,
    radius: float | Tensor,
    given: dict[str, Any],
    offered: dict[str, Any],
) -> tuple[Inputs, Any]:
    """Return the perturbed inputs, detached, and the info of the attack, None if it has none.

    All of ``given`` is passed on, so that an unknown argument is an error. Of ``offered``, the
    arguments that the attack names are passed on, and target and additional arguments also if the
    attack takes any keyword.
    """
    accepted = options_of(attack)
    if forwards(attack):
        accepted |= {"target", "additional_forward_args"}
    own = {n: v for n, v in offered.items() if n in accepted and v is not None}
    result = attack.perturb(inputs, radius=radius, **{**own, **given})
    points, info = result if own.get("return_info") else (result, None)
    shapes, expected = ([tuple(t.shape) for t in as_tuple(p)] for p in (points, inputs))
    if shapes != expected:
        raise ValueError(
            f"attack must return perturbed inputs of shapes {expected}, got {shapes} "
            f"from {type(attack).__name__}"
        )
    moved = tuple(t.detach() for t in as_tuple(points))
    return (moved if isinstance(inputs, tuple) else moved[0]), info


@contextmanager
def noted_zero_gradient() -> Iterator[list[ZeroGradientWarning]]:
    """Collect the ZeroGradientWarnings of the block; other warnings are issued as usual."""
    found: list[ZeroGradientWarning] = []
    try:
        with EXCLUSIVE, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ZeroGradientWarning)
            yield found
    finally:
        for warning in caught:
            if isinstance(warning.message, ZeroGradientWarning):
                found.append(warning.message)
            else:
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
