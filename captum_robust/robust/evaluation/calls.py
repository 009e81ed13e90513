"""Call any attack: with the arguments that its ``perturb`` takes, and what it reports kept."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from captum_robust._utils.captum import Inputs, Perturbation, as_tuple
from captum_robust.robust.info import ZeroGradientWarning

__all__ = ["call_attack", "forwards", "noted_zero_gradient", "options_of"]


def options_of(attack: Perturbation) -> set[str]:
    """The arguments that ``attack.perturb`` names; those of ``**kwargs`` are the attribution's."""
    parameters = inspect.signature(attack.perturb).parameters.values()
    return {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def forwards(attack: Perturbation) -> bool:
    """Whether ``attack.perturb`` takes any keyword, and hands it to an attribution."""
    parameters = inspect.signature(attack.perturb).parameters.values()
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def call_attack(
    attack: Perturbation,
    inputs: Inputs,
    radius: float | Tensor,
    given: dict[str, Any],
    offered: dict[str, Any],
) -> tuple[Inputs, Any]:
    """The perturbed inputs, detached, and the info of attacks that have one, else None.

    ``given`` is passed on whole, so that an argument which the attack does not know is an error.
    Of what is ``offered``, an attack gets what it names, and targets and additional arguments also
    if it takes any keyword.
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
    """Collect the ZeroGradientWarnings of the block; all other warnings go their way."""
    found: list[ZeroGradientWarning] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
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
