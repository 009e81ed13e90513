"""The region of a search: the ball, the bounds, the mask and the caller's projection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust._utils.checks import (
    check_finite,
    check_norm,
    check_not_nan,
    matching,
    one_each,
    valid_bounds,
)
from captum_robust._utils.random import example_generators
from captum_robust._utils.rounding import edge, not_beyond
from captum_robust._utils.signatures import further_required
from captum_robust._utils.tensors import Points, flatten, per_example, wide_dtype
from captum_robust.attr.smooth import unsmoothed
from captum_robust.noise import Norm, UniformNoise

__all__ = ["Region", "in_sphere", "not_beyond", "steepest_ascent"]

Box = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Region:
    """The ball, the bounds, the mask and the caller's projection, for a batch of examples.

    Points have at least single precision, because in half precision small steps would round to
    zero. All points of a region, and their versions in the precision of the inputs, lie inside the
    ball and the bounds in spite of rounding.

    Attributes:
        given: the inputs of the caller, which give the form: a tensor or a tuple.
        centre: the examples.
        radius: radius of the ball around each tensor; (N,), in at least single precision.
        norm: norm of the ball.
        lower: smallest values, no larger than the examples.
        upper: largest values, no smaller than the examples.
        mask: true where a feature may move; None where all may.
        project: maps points, in the form of ``given``, to valid ones.
        rows: indices of the examples in the batch of the caller; None for the whole batch.
    """

    given: Inputs
    centre: Points
    radius: Tensor
    norm: Norm
    lower: Points
    upper: Points
    mask: Points | None
    project: Callable[..., Any] | None
    rows: Tensor | None = None

    @classmethod
    def around(
        cls,
        inputs: Inputs,
        radius: float | Tensor,
        bounds: tuple[float | Tensor, float | Tensor],
        norm: Norm,
        mask: Inputs | None = None,
        project: Callable[..., Any] | None = None,
    ) -> Region:
        """Return the region around examples, from the arguments of ``perturb``."""
        check_norm(norm)
        centre = tuple(t.detach().clone() for t in as_tuple(inputs))
        radii = one_each("radius", radius, len(centre[0]), centre[0])
        masks = None
        if mask is not None:
            for each in (mask,) if isinstance(mask, Tensor) else mask:
                check_not_nan("mask", each)
            masks = tuple(m != 0 for m in matching("mask", mask, centre, broadcast=True))
        return cls(inputs, centre, radii, norm, *valid_bounds(*bounds, centre), masks, project)

    def of(self, rows: Tensor) -> Region:
        """Return the region of the examples ``rows``."""
        rows = rows.to(self.radius.device)
        parts = {
            name: tuple(tensor[rows] for tensor in getattr(self, name))
            for name in ("centre", "lower", "upper", "mask")
            if getattr(self, name) is not None
        }
        of_batch = rows.cpu() if self.rows is None else self.rows[rows.cpu()]
        part = replace(self, radius=self.radius[rows], rows=of_batch, **parts)  # type: ignore[arg-type]
        for name in ("box", "_box_of_inputs"):
            if name in self.__dict__:  # selecting is cheaper than computing again
                whole: Box = self.__dict__[name]
                part.__dict__[name] = tuple((low[rows], high[rows]) for low, high in whole)
        if "pinned" in self.__dict__:
            part.__dict__["pinned"] = self.pinned[rows]
        return part

    @cached_property
    def pinned(self) -> Tensor:
        """Examples of a radius above 0 that have no other point in their region; (N,) bool.

        The radius is below the spacing of the numbers, or bounds and mask leave no other point.
        """
        moves = torch.zeros_like(self.radius, dtype=torch.bool)
        for number, centre in enumerate(self.centre):
            radius = per_example(self.radius, centre).double()
            low = torch.maximum(self.lower[number], edge(centre, -radius, centre.dtype))
            high = torch.minimum(self.upper[number], edge(centre, radius, centre.dtype))
            free = ~((low == centre) & (high == centre))  # true for NaN
            if self.mask is not None:
                free = free & self.mask[number]
            moves |= flatten((free,)).any(dim=1)
        return ~moves & (self.radius > 0)

    @cached_property
    def box(self) -> Box:
        """Smallest and largest value of every feature by bounds, mask and an Linf ball."""
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
                low = torch.maximum(low, edge(centre, -radius, dtype))
                high = torch.minimum(high, edge(centre, radius, dtype))
            if self.mask is not None:
                low = torch.where(self.mask[number], low, centre.to(dtype))
                high = torch.where(self.mask[number], high, centre.to(dtype))
            box.append((low, high))
        return tuple(box)

    @cached_property
    def _is_box(self) -> bool:
        """Return whether points have to be clamped to the box."""
        bounded = (low.isfinite().any() | high.isfinite().any() for low, high in self.box)
        return self.norm == "Linf" or self.mask is not None or any(map(bool, bounded))

    def nearest(self, points: Points) -> Points:
        """Return the nearest points of the region; points inside are unchanged."""
        if self.project is not None:
            rounded = tuple(p.to(c) for p, c in zip(points, self.centre, strict=True))
            name = "the result of project"
            with unsmoothed():
                projected = as_tuple(self._projected(rounded), name)
            points = matching(name, projected, points)
            check_finite(name, points, self.centre)
        if self.norm == "L2":
            points = tuple(
                in_sphere(point, centre, self.radius, None if self.mask is None else self.mask[i])
                for i, (point, centre) in enumerate(zip(points, self.centre, strict=True))
            )
        if not self._is_box:
            return points
        return tuple(p.clamp(low, high) for p, (low, high) in zip(points, self.box, strict=True))

    def _projected(self, points: Points) -> Any:
        """Call the projection of the caller, with what its parameters name."""
        assert self.project is not None
        return self.project(format_like(self.given, points), **self._named_by_project)

    @cached_property
    def _named_by_project(self) -> dict[str, Any]:
        assert self.project is not None
        offered: dict[str, Callable[[], Any]] = {
            "rows": lambda: torch.arange(len(self.radius)) if self.rows is None else self.rows,
            "centre": lambda: format_like(self.given, self.centre),
            "radius": lambda: self.radius,
        }
        names = further_required(self.project)
        return {name: make() for name, make in offered.items() if name in names}

    def after_step(self, points: Points, gradients: Points, size: Tensor) -> Points:
        """Return the points after a step of steepest descent, of length ``size`` (N,)."""
        ahead = []
        for number, (point, gradient) in enumerate(zip(points, gradients, strict=True)):
            mask = None if self.mask is None else self.mask[number]
            unit = steepest_ascent(gradient, self.norm, mask)
            ahead.append(torch.addcmul(point, unit, per_example(size, point), value=-1))
        return self.nearest(tuple(ahead))

    def as_inputs(self, points: Points) -> Points:
        """Return points as leaves in the precision of the inputs, still inside the region."""
        leaves = []
        for number, (point, centre) in enumerate(zip(points, self.centre, strict=True)):
            if point.dtype != centre.dtype:
                rounded = point.to(centre.dtype)
                if self.norm == "L2":
                    rounded = not_beyond(rounded, centre, point - centre)
                point = rounded.clamp(*self._box_of_inputs[number])
            leaves.append(point.detach().requires_grad_())
        return tuple(leaves)

    def generators(self, seed: int, stream: int) -> list[torch.Generator]:
        """Return one generator per example, which depends on its values and not on chunks."""
        return example_generators(self.centre, seed, stream)

    def random_point(self, seed: int, restart: int) -> Points:
        """Return a uniform point of the ball around every example, moved into the region."""
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
    """Return the direction of length 1, in the norm of the ball, that ascends fastest.

    In the L2 norm the direction is zero where the mask is false, so that excluded features use
    up no length. Entries that are NaN, and gradients of zero, give a direction of zero.
    """
    if norm == "Linf":  # the box of the region fixes what the mask excludes
        return gradient.sign().nan_to_num_(nan=0.0)
    gradient = gradient.to(wide_dtype(gradient)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    if mask is not None:
        gradient = gradient * mask
    # Scaled by its largest entry first, because the squares of a tiny gradient underflow.
    largest = per_example(gradient.abs().flatten(1).amax(dim=1), gradient)
    scaled = gradient / largest.clamp_min(torch.finfo(gradient.dtype).tiny)
    return scaled / _lengths(scaled).clamp_min(1e-30)


def in_sphere(point: Tensor, centre: Tensor, radius: Tensor, mask: Tensor | None) -> Tensor:
    """Return the nearest point inside the sphere, without features that the mask excludes."""
    wide = wide_dtype(centre)
    point, middle = point.to(wide), centre.to(wide)
    way = point - middle
    if mask is not None:
        way = way * mask
    length, largest = _lengths(way), per_example(radius, point)
    # Slightly inside, because the length of the result is rounded as well.
    shrunk = way * (largest / length * (1 - 8 * torch.finfo(wide).eps))
    return torch.where(length > largest, not_beyond(middle + shrunk, middle, shrunk), point)


def _within(directions: Tensor, mask: Tensor) -> Tensor:
    """Return the directions that the mask allows, at their former length."""
    kept = directions * mask
    lengths = _lengths(kept)
    return kept * (_lengths(directions) / torch.where(lengths > 0, lengths, 1))


def _lengths(steps: Tensor) -> Tensor:
    return per_example(steps.flatten(1).norm(dim=1), steps)
