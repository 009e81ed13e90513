"""Where an attack may go: the ball around an input, its bounds and mask; and steps in its norm."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, like
from captum_robust._utils.checks import matching, wide_dtype
from captum_robust._utils.random import example_generators
from captum_robust.noise import Norm, UniformNoise

__all__ = ["Region", "per_example", "project", "steepest_step"]


@dataclass(frozen=True)
class Region:
    """The ball, the bounds, the mask and the caller's projection, for a batch of examples.

    ``given`` is what the caller gave, of which only the form counts: a tensor or a tuple. Points
    are kept in at least single precision: in half precision small steps would round to nothing.
    """

    given: Inputs
    centre: tuple[Tensor, ...]
    radius: Tensor
    norm: Norm
    lower: tuple[Tensor, ...]
    upper: tuple[Tensor, ...]
    mask: tuple[Tensor, ...] | None
    project: Callable[[Any], Any] | None

    def of(self, rows: Tensor) -> "Region":
        """The region of the examples ``rows``."""
        rows = rows.to(self.radius.device)
        parts = {
            name: tuple(tensor[rows] for tensor in getattr(self, name))
            for name in ("centre", "lower", "upper", "mask")
            if getattr(self, name) is not None
        }
        return replace(self, radius=self.radius[rows], **parts)  # type: ignore[arg-type]

    def nearest(self, points: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The points of the region nearest to ``points``."""
        if self.project is not None:
            rounded = tuple(p.to(c) for p, c in zip(points, self.centre, strict=True))
            name = "the result of project"
            projected = as_tuple(self.project(like(self.given, rounded)), name)
            points = matching(name, projected, points)
        return tuple(
            project(
                point, centre, per_example(self.radius, centre), self.norm, lower, upper,
                None if self.mask is None else self.mask[number],
            )
            for number, (point, centre, lower, upper) in enumerate(
                zip(points, self.centre, self.lower, self.upper, strict=True)
            )
        )  # fmt: skip

    def as_inputs(self, points: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Points of the region in the precision of the inputs, rounded towards the centre."""
        rounded = (
            # What has the precision of the inputs is in the region already.
            point.clone()
            if point.dtype == centre.dtype
            else _not_beyond(point.to(centre), centre, point - centre)
            for point, centre in zip(points, self.centre, strict=True)
        )
        return tuple(point.detach().requires_grad_() for point in rounded)

    def generators(self, seed: int, stream: int) -> list[torch.Generator]:
        """One an example, of its own values: neither chunks nor rounding on the way change it."""
        return example_generators(self.centre, seed, stream)

    def random_point(self, seed: int, restart: int) -> tuple[Tensor, ...]:
        """A uniform point of the ball around every example, cut to the region."""
        noise = UniformNoise(self.norm)
        generators = self.generators(seed, stream=-1 - restart)
        drawn = (
            torch.cat([noise.directions(1, x, g) for x, g in zip(c, generators, strict=True)])
            for c in self.centre
        )
        return self.nearest(
            tuple(
                c + per_example(self.radius, c) * d.to(self.radius)
                for c, d in zip(self.centre, drawn, strict=True)
            )
        )


def steepest_step(gradient: Tensor, size: Tensor, norm: Norm) -> Tensor:
    """The step of length ``size`` (N, 1, …) that descends fastest, in the norm of the ball.

    A zero or non-finite gradient gives no step. Scaled by its largest entry first: the squares of
    a tiny gradient underflow.
    """
    if norm == "Linf":
        return -size * gradient.sign().nan_to_num_(nan=0.0)
    gradient = gradient.to(wide_dtype(gradient))
    scaled = gradient / per_example(gradient.abs().flatten(1).amax(dim=1), gradient)
    scaled = scaled.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    return -size * scaled / _lengths(scaled).clamp_min(1e-30)


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
    A point of the region is returned as it is, to the last bit; all others end inside the ball
    in spite of rounding. In at least single precision.
    """
    wide = wide_dtype(centre)
    moved, centre = moved.to(wide), centre.to(wide)
    way = moved - centre
    step = way if mask is None else way * mask
    if norm == "Linf":
        step = step.clamp(-radius, radius)
    else:
        lengths = _lengths(step)
        # A hair inside: the length of the result is rounded as well.
        shrunk = step * (radius / lengths * (1 - 8 * torch.finfo(wide).eps))
        step = torch.where(lengths > radius, shrunk, step)
    nearest = torch.where(step == way, moved, _not_beyond(centre + step, centre, step))
    return nearest.clamp(lower.to(wide), upper.to(wide))


def _not_beyond(points: Tensor, centre: Tensor, step: Tensor) -> Tensor:
    """``points``, one place closer to the centre where rounding took them further than ``step``."""
    beyond = (points.to(step) - centre.to(step)).abs() > step.abs()
    if not bool(beyond.any()):
        return points
    place = torch.finfo(points.dtype).eps * points.abs()
    return torch.where(beyond, points - place * step.sign().to(points), points)


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """One value an example, shaped to broadcast over its features."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def _lengths(steps: Tensor) -> Tensor:
    return per_example(steps.flatten(1).norm(dim=1), steps)
