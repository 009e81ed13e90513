"""Where a search may go: the ball, the bounds, the mask and the caller's projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, like
from captum_robust._utils.checks import matching
from captum_robust._utils.random import example_generators
from captum_robust._utils.tensors import Points, per_example, wide_dtype
from captum_robust.noise import Norm, UniformNoise

__all__ = ["Region", "steepest_ascent"]

Box = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Region:
    """The ball, the bounds, the mask and the caller's projection, for a batch of examples.

    Points are kept in at least single precision: in half precision small steps would round to
    nothing. All points of a region, and their versions in the precision of the inputs, lie inside
    the ball and the bounds in spite of rounding.

    Attributes:
        given: the inputs of the caller, of which only the form counts: a tensor or a tuple.
        centre: the examples.
        radius: of the ball around each tensor of an example; (N,), in at least single precision.
        norm: of the ball.
        lower: smallest values, no larger than the examples.
        upper: largest values, no smaller than the examples.
        mask: true where a feature may move; None where all may.
        project: maps points, in the form of ``given``, to valid ones.
    """

    given: Inputs
    centre: Points
    radius: Tensor
    norm: Norm
    lower: Points
    upper: Points
    mask: Points | None
    project: Callable[[Any], Any] | None

    def of(self, rows: Tensor) -> Region:
        """The region of the examples ``rows``."""
        rows = rows.to(self.radius.device)
        parts = {
            name: tuple(tensor[rows] for tensor in getattr(self, name))
            for name in ("centre", "lower", "upper", "mask")
            if getattr(self, name) is not None
        }
        part = replace(self, radius=self.radius[rows], **parts)  # type: ignore[arg-type]
        for name in ("box", "_box_of_inputs"):
            if name in self.__dict__:  # selecting is cheaper than to compute it again
                whole: Box = self.__dict__[name]
                part.__dict__[name] = tuple((low[rows], high[rows]) for low, high in whole)
        return part

    @cached_property
    def box(self) -> Box:
        """Smallest and largest value of every feature in the region, as far as it is a box."""
        return self._rounded_inwards([wide_dtype(c) for c in self.centre])

    @cached_property
    def _box_of_inputs(self) -> Box:
        return self._rounded_inwards([c.dtype for c in self.centre])

    def _rounded_inwards(self, dtypes: list[torch.dtype]) -> Box:
        box = []
        for number, (centre, dtype) in enumerate(zip(self.centre, dtypes, strict=True)):
            low, high = self.lower[number].to(dtype), self.upper[number].to(dtype)
            if self.norm == "Linf":
                radius = per_example(self.radius, centre).double()
                low = torch.maximum(low, _edge(centre, -radius, dtype))
                high = torch.minimum(high, _edge(centre, radius, dtype))
            if self.mask is not None:
                low = torch.where(self.mask[number], low, centre.to(dtype))
                high = torch.where(self.mask[number], high, centre.to(dtype))
            box.append((low, high))
        return tuple(box)

    @cached_property
    def _is_box(self) -> bool:
        """Whether the box holds anything back besides the ball."""
        bounded = (low.isfinite().any() | high.isfinite().any() for low, high in self.box)
        return self.norm == "Linf" or self.mask is not None or any(map(bool, bounded))

    def nearest(self, points: Points) -> Points:
        """The points of the region nearest to ``points``; those of the region as they are."""
        if self.project is not None:
            rounded = tuple(p.to(c) for p, c in zip(points, self.centre, strict=True))
            name = "the result of project"
            projected = as_tuple(self.project(like(self.given, rounded)), name)
            points = matching(name, projected, points)
        if self.norm == "L2":
            points = tuple(
                _in_sphere(point, centre, self.radius, None if self.mask is None else self.mask[i])
                for i, (point, centre) in enumerate(zip(points, self.centre, strict=True))
            )
        if not self._is_box:
            return points
        return tuple(p.clamp(low, high) for p, (low, high) in zip(points, self.box, strict=True))

    def after_step(self, points: Points, gradients: Points, size: Tensor) -> Points:
        """The points after a step of length ``size`` (N,) of steepest descent."""
        ahead = []
        for number, (point, gradient) in enumerate(zip(points, gradients, strict=True)):
            mask = None if self.mask is None else self.mask[number]
            unit = steepest_ascent(gradient, self.norm, mask)
            ahead.append(torch.addcmul(point, unit, per_example(size, point), value=-1))
        return self.nearest(tuple(ahead))

    def as_inputs(self, points: Points) -> Points:
        """Points of the region as leaves in the precision of the inputs, still in the region."""
        leaves = []
        for number, (point, centre) in enumerate(zip(points, self.centre, strict=True)):
            if point.dtype != centre.dtype:
                rounded = point.to(centre.dtype)
                if self.norm == "L2":
                    rounded = _not_beyond(rounded, centre, point - centre)
                point = rounded.clamp(*self._box_of_inputs[number])
            leaves.append(point.detach().requires_grad_())
        return tuple(leaves)

    def generators(self, seed: int, stream: int) -> list[torch.Generator]:
        """One per example, of its own values: neither chunks nor rounding on the way change it."""
        return example_generators(self.centre, seed, stream)

    def random_point(self, seed: int, restart: int) -> Points:
        """A uniform point of the ball around every example, cut to the region."""
        noise = UniformNoise(self.norm)
        generators = self.generators(seed, stream=-1 - restart)
        moved = []
        for number, centre in enumerate(self.centre):
            drawn = [noise.directions(1, x, g) for x, g in zip(centre, generators, strict=True)]
            directions = torch.cat(drawn).to(self.radius)
            if self.mask is not None and self.norm == "L2":
                directions = _within(directions, self.mask[number])
            moved.append(centre + per_example(self.radius, centre) * directions)
        return self.nearest(tuple(moved))


def steepest_ascent(gradient: Tensor, norm: Norm, mask: Tensor | None = None) -> Tensor:
    """The direction of length 1, in the norm of the ball, that ascends fastest.

    Only where the mask is true: what the mask takes away must not use up the length of a step.
    Entries that are not finite give no direction, and nor does a gradient of zero.
    """
    if norm == "Linf":  # the box of the region holds back what the mask excludes
        return gradient.sign().nan_to_num_(nan=0.0)
    gradient = gradient.to(wide_dtype(gradient)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if mask is not None:
        gradient = gradient * mask
    # Scaled by its largest entry first: the squares of a tiny gradient underflow.
    largest = per_example(gradient.abs().flatten(1).amax(dim=1), gradient)
    scaled = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / _lengths(scaled).clamp_min(1e-30)


def _edge(centre: Tensor, step: Tensor, dtype: torch.dtype) -> Tensor:
    """``centre + step`` in ``dtype``, no further from the centre than ``step``."""
    exact = centre.double() + step
    edge = exact.to(dtype)
    way = edge.double() - centre.double()
    beyond = (way.abs() > step.abs()) | ((edge.double() - exact) * step.sign() > 0)
    return torch.where(beyond, torch.nextafter(edge, centre.to(dtype)), edge)


def _in_sphere(point: Tensor, centre: Tensor, radius: Tensor, mask: Tensor | None) -> Tensor:
    """The nearest point of the sphere's inside; what the mask excludes counts as unmoved."""
    wide = wide_dtype(centre)
    point, middle = point.to(wide), centre.to(wide)
    way = point - middle
    if mask is not None:
        way = way * mask
    length, largest = _lengths(way), per_example(radius, point)
    # A hair inside: the length of the result is rounded as well.
    shrunk = way * (largest / length * (1 - 8 * torch.finfo(wide).eps))
    return torch.where(length > largest, _not_beyond(middle + shrunk, middle, shrunk), point)


def _not_beyond(points: Tensor, centre: Tensor, step: Tensor) -> Tensor:
    """``points``, one place closer to the centre where rounding took them further than ``step``."""
    beyond = (points.to(step) - centre.to(step)).abs() > step.abs()
    return torch.where(beyond, torch.nextafter(points, centre.to(points)), points)


def _within(directions: Tensor, mask: Tensor) -> Tensor:
    """Directions that the mask allows, as long as they were."""
    kept = directions * mask
    lengths = _lengths(kept)
    return kept * (_lengths(directions) / torch.where(lengths > 0, lengths, 1))


def _lengths(steps: Tensor) -> Tensor:
    return per_example(steps.flatten(1).norm(dim=1), steps)
