"""Floating point numbers next to a value, and points rounded towards the centre of a ball."""

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, flatten, per_example

__all__ = ["edge", "not_beyond", "rows_that_stay", "spacing"]


def edge(centre: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``centre + step`` in ``dtype``, no further from the centre than ``step``."""
    exact = centre.double() + step
    found = exact.to(dtype)
    way = found.double() - centre.double()
    beyond = (way.abs() > step.abs()) | ((found.double() - exact) * step.sign() > 0)
    return torch.where(beyond, torch.nextafter(found, centre.to(dtype)), found)


def not_beyond(points: Tensor, centre: Tensor, step: Tensor) -> Tensor:
    """Return points, one float closer to the centre where rounding took them beyond ``step``."""
    beyond = (points.to(step) - centre.to(step)).abs() > step.abs()
    return torch.where(beyond, torch.nextafter(points, centre.to(points)), points)


def spacing(values: Tensor) -> Tensor:
    """Return the distance from each value to the next larger magnitude, one unit in the last place.

    >>> spacing(torch.tensor([1.0, 1000.0], dtype=torch.float16))
    tensor([0.0010, 0.5000], dtype=torch.float16)
    """
    magnitudes = values.detach().abs()
    return torch.nextafter(magnitudes, torch.full_like(magnitudes, float("inf"))) - magnitudes


def rows_that_stay(inputs: Points, radius: Tensor) -> Tensor:
    """Return examples without another point of their dtype within a radius (N,) > 0; (N,) bool.

    Values that are not floating point cannot move; values that are not finite are not examined.
    """
    moves = torch.zeros_like(radius, dtype=torch.bool)
    for tensor in inputs:
        if tensor.is_floating_point():
            step = per_example(radius, tensor).double()
            ends = (edge(tensor, way, tensor.dtype) for way in (step, -step))
            for end in ends:
                moves |= flatten((end != tensor,)).any(dim=1).to(moves.device)
    return ~moves & (radius > 0)
