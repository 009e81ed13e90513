"""The ball around an input, the bounds, and steps within them."""

import torch
from torch import Tensor

from captum_robust.noise import Norm

__all__ = ["project", "steepest_step"]


def steepest_step(gradient: Tensor, size: Tensor, norm: Norm) -> Tensor:
    """The step of length ``size`` (N, 1, …) that descends fastest, in the norm of the ball.

    A zero or non-finite gradient gives no step. Scaled by its largest entry first: the squares of
    a tiny gradient underflow.
    """
    if norm == "Linf":
        return -size * gradient.sign().nan_to_num_(nan=0.0)
    largest = _per_example(gradient.abs().flatten(1).amax(dim=1), gradient)
    scaled = (gradient / largest).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    length = _per_example(scaled.flatten(1).norm(dim=1), gradient).clamp_min(1e-30)
    return -size * scaled / length


def project(
    moved: Tensor,
    centre: Tensor,
    radius: Tensor,
    norm: Norm,
    lower: Tensor,
    upper: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The point of the ball, within the bounds and equal to the centre off the mask.

    ``centre`` must lie within the bounds, so that clamping moves towards it and stays in the ball.
    """
    step = moved - centre
    if mask is not None:
        step = step * mask
    if norm == "Linf":
        step = step.clamp(-radius, radius)
    else:
        length = _per_example(step.flatten(1).norm(dim=1), step)
        step = step * (radius / length.clamp_min(1e-30)).clamp(max=1.0)
    projected = (centre + step).clamp(lower, upper)
    # The sum is rounded, in half precision by more than the radius may be: such entries stay put.
    too_far = (projected - centre).abs() > radius * (1 + 1e-5)
    return torch.where(too_far, centre, projected)


def _per_example(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.dim() - 1))
