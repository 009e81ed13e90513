"""Rules on the ball: it is never left, also where points are rounded to coarse numbers."""

import torch

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.report import require

__all__ = ["check_rounding_stays_in_ball"]

_FAR = 2.0**52  # neighbours of float64 are 1 apart from here on
_RADIUS = 1.6  # which rounds to 2


def check_rounding_stays_in_ball(case: AttackCase) -> None:
    """Where the spacing of the numbers is near the radius, points are rounded into the ball."""
    inputs = case.model.inputs
    far = tuple(t.abs().round() + _FAR for t in as_tuple(inputs))
    moved = case.perturb(
        inputs=format_like(inputs, far), radius=_RADIUS, **case.traits.effort(4, _RADIUS)
    )
    order = float("inf") if case.norm == "Linf" else 2
    for x, y in zip(far, as_tuple(moved), strict=True):
        length = torch.linalg.vector_norm((y - x).flatten(1), order, dim=1)
        require((length <= _RADIUS).all(), f"moved by {length.tolist()}, the radius is {_RADIUS}")
