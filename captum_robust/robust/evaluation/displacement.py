"""Perturbed inputs that did not move, or left the ball."""

from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, Perturbation, as_tuple
from captum_robust._utils.tensors import wide_dtype
from captum_robust.noise import Norm
from captum_robust.robust._search.region import Region
from captum_robust.robust.flags import count_flags

__all__ = ["displacement_flags", "pinned_by", "untested_rows"]


def untested_rows(
    attack: Perturbation,
    options: dict[str, Any],
    points: Inputs,
    inputs: Inputs,
    radius: float,
    norm: Norm,
) -> Tensor:
    """Return examples of which an attack says nothing, because they did not move; (N,) bool.

    An attack on explanations returns an example where it finds nothing worse; it has tested
    nothing only where its region holds no other point. Any other perturbation has tested nothing
    wherever it returns the example at a radius above 0.

    Args:
        attack: the attack.
        options: arguments of its ``perturb``.
        points: the perturbed inputs.
        inputs: the examples.
        radius: radius of the ball.
        norm: norm of the ball.
    """
    examples = as_tuple(inputs)
    if not hasattr(attack, "attribution"):
        return _unmoved(points, inputs) & (radius > 0)
    if not all(t.is_floating_point() for t in examples):
        return torch.zeros(len(examples[0]), dtype=torch.bool, device=examples[0].device)
    return pinned_by(attack, options, inputs, radius, norm)


def pinned_by(
    attack: Perturbation,
    options: dict[str, Any],
    inputs: Inputs,
    radius: float | Tensor,
    norm: Norm,
) -> Tensor:
    """Return examples that no point surrounds in the region of an attack; (N,) bool."""
    infinity = float("inf")
    bounds = (
        getattr(attack, "lower_bound", -infinity), getattr(attack, "upper_bound", infinity)
    )  # fmt: skip
    return Region.around(inputs, radius, bounds, norm, options.get("mask")).pinned


def displacement_flags(points: Inputs, inputs: Inputs, radius: float, norm: Norm) -> dict[str, int]:
    """Return the numbers of ``"unmoved"`` and of ``"outside_ball"`` examples, where not zero.

    The ball is around each input tensor; points outside by a rounding error count as inside.
    """
    pairs = list(zip(as_tuple(points), as_tuple(inputs), strict=True))
    unmoved = _unmoved(points, inputs)
    outside = torch.stack([_beyond(p, x, radius, norm) for p, x in pairs]).any(dim=0)
    return count_flags({"unmoved": int(unmoved.sum()), "outside_ball": int(outside.sum())})


def _unmoved(points: Inputs, inputs: Inputs) -> Tensor:
    pairs = zip(as_tuple(points), as_tuple(inputs), strict=True)
    return torch.stack([(p == x).flatten(1).all(dim=1) for p, x in pairs]).all(dim=0)


def _beyond(points: Tensor, inputs: Tensor, radius: float, norm: Norm) -> Tensor:
    order = 2 if norm == "L2" else float("inf")
    points, centre = points.to(wide_dtype(points)).flatten(1), inputs.to(points).flatten(1)
    rounding = torch.finfo(inputs.dtype).eps * (centre.abs() + radius)
    far: Tensor = (points - centre).norm(p=order, dim=1) > radius + 2 * rounding.norm(
        p=order, dim=1
    )
    return far
