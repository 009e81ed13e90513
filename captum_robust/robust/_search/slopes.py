"""Gradients as a direction and a factor, each in the range of its dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, flatten

__all__ = ["Slope", "as_rows"]


class Slope(NamedTuple):
    """A gradient in two parts, each in the range of its dtype: ``direction`` times ``factor``.

    Attributes:
        direction: one tensor for each of the points, (N, …).
        factor: one number per example, (N,), never negative; None for 1.
    """

    direction: Points
    factor: Tensor | None

    def times(self, factor: Tensor) -> Slope:
        """Return the gradient times one number per example, (N,)."""
        return Slope(self.direction, factor if self.factor is None else self.factor * factor)


def as_rows(slopes: Sequence[Slope]) -> Tensor:
    """Return one row per gradient, in double precision; (N, Q, n)."""
    rows = torch.stack([flatten(s.direction).double() for s in slopes], dim=1)
    return _factors(slopes)[:, :, None] * rows


def _factors(slopes: Sequence[Slope]) -> Tensor:
    """Return the factors in double precision; (N, Q)."""
    each = [
        s.direction[0].new_ones(len(s.direction[0]), dtype=torch.double)
        if s.factor is None
        else s.factor.double()
        for s in slopes
    ]
    return torch.stack(each, dim=1)
