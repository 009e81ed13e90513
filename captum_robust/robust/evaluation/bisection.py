"""Bisection of radii, one per example, for a whole batch."""

import math

import torch
from torch import Tensor

from captum_robust._utils.tensors import per_example, wide_dtype
from captum_robust.ranking import fraction

__all__ = ["Bisection"]

Points = tuple[Tensor, ...]


class Bisection:
    """Increasing radii until one succeeds, then bisection of the last step.

    Until no example is :attr:`active`, try the :attr:`radius` of the active examples, and pass the
    result to :meth:`note`. ``hopeless`` examples are never active.

    Attributes:
        radius: the next radius to try; (N,).
        active: which examples are still under search; (N,) bool.
        best: points of the smallest successful radius, else the centre.
        start: points of the largest unsuccessful radius, from which an attack may start; None
            before the first radius.
    """

    def __init__(
        self,
        centre: Points,
        hopeless: Tensor,
        lower: float,
        upper: float,
        n_radii: int,
        n_bisections: int,
    ) -> None:
        self.lower = lower
        self.upper = upper
        self.n_radii = n_radii
        self.n_bisections = n_bisections
        self.best = centre
        self.start: Points | None = None
        self.active = ~hopeless
        blank = hopeless.new_zeros(len(hopeless), dtype=wide_dtype(centre[0]))
        self._failed = blank + lower
        self._found = blank + math.inf
        self._lost = hopeless
        self._n_tried = torch.zeros_like(hopeless, dtype=torch.long)
        self._n_halved = torch.zeros_like(self._n_tried)
        self.radius = self._next()

    def note(self, points: Points, succeeded: Tensor, lost: Tensor) -> None:
        """Record the points at :attr:`radius`, which succeeded, and which have no ranking."""
        success, failure = self.active & succeeded, self.active & ~succeeded
        self.best = _where(success, points, self.best)
        self.start = points if self.start is None else _where(failure, points, self.start)
        bisected = self._found.isfinite()
        self._found = torch.where(success, self.radius, self._found)
        self._failed = torch.where(failure, self.radius, self._failed)
        self._lost = self._lost | (failure & lost)
        self._n_tried = self._n_tried + (self.active & ~bisected)
        self._n_halved = self._n_halved + (self.active & bisected)
        self.active = self.active & torch.where(
            self._found.isfinite(),
            self._n_halved < self.n_bisections,
            self._n_tried < self.n_radii,
        )
        self.radius = torch.where(self.active, self._next(), self.radius)

    def result(self) -> Tensor:
        """Return the smallest successful radius, else inf; NaN where the ranking was lost."""
        return self._found.masked_fill(self._lost & self._found.isinf(), math.nan)

    def _next(self) -> Tensor:
        reached = fraction((self._n_tried + 1).to(self._found), self.n_radii)
        ahead = (self.lower + reached * (self.upper - self.lower)).clamp(max=self.upper)
        return torch.where(self._found.isfinite(), (self._failed + self._found) / 2, ahead)


def _where(chosen: Tensor, points: Points, others: Points) -> Points:
    return tuple(
        torch.where(per_example(chosen, p), p, q) for p, q in zip(points, others, strict=True)
    )
