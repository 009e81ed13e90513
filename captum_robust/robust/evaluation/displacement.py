"""Flags for perturbed inputs that did not move, or left the ball."""

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.tensors import wide_dtype
from captum_robust.noise import Norm
from captum_robust.robust.flags import count_flags

__all__ = ["displacement_flags"]


def displacement_flags(points: Inputs, inputs: Inputs, radius: float, norm: Norm) -> dict[str, int]:
    """Return the numbers of ``"unmoved"`` and of ``"outside_ball"`` examples, where not zero.

    The ball is around each input tensor; points outside by a rounding error count as inside.
    """
    pairs = list(zip(as_tuple(points), as_tuple(inputs), strict=True))
    unmoved = torch.stack([(p == x).flatten(1).all(dim=1) for p, x in pairs]).all(dim=0)
    outside = torch.stack([_beyond(p, x, radius, norm) for p, x in pairs]).any(dim=0)
    return count_flags({"unmoved": int(unmoved.sum()), "outside_ball": int(outside.sum())})


def _beyond(points: Tensor, inputs: Tensor, radius: float, norm: Norm) -> Tensor:
    order = 2 if norm == "L2" else float("inf")
    points, centre = points.to(wide_dtype(points)).flatten(1), inputs.to(points).flatten(1)
    rounding = torch.finfo(inputs.dtype).eps * (centre.abs() + radius)
    far: Tensor = (points - centre).norm(p=order, dim=1) > radius + 2 * rounding.norm(
        p=order, dim=1
    )
    return far
