"""Gradients whose parts no dtype needs to hold, and sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, flatten, per_example, wide_dtype

__all__ = ["Slope", "as_rows", "combination"]


class Slope(NamedTuple):
    """A gradient in two parts, each in the range of its dtype: ``direction`` times ``factor``.

    Attributes:
        direction: one tensor for each of the points, (N, …).
        factor: one number per example, (N,), never negative.
    """

    direction: Points
    factor: Tensor


def as_rows(slopes: Sequence[Slope]) -> Tensor:
    """One row per gradient, in double precision; (N, Q, n)."""
    rows = [s.factor.double()[:, None] * flatten(s.direction).double() for s in slopes]
    return torch.stack(rows, dim=1)


def combination(slopes: Sequence[Slope], weights: Tensor) -> Points:
    """The sum of gradients with ``weights`` (N, Q), divided by the length of its longest part.

    So that it neither overflows nor underflows where only its direction counts.
    """
    parts = weights * torch.stack([s.factor.double() for s in slopes], dim=1)
    lengths = torch.stack([flatten(s.direction).double().norm(dim=1) for s in slopes], dim=1)
    parts = parts / (parts * lengths).amax(dim=1, keepdim=True).clamp_min(1e-300)
    tensors = zip(*(s.direction for s in slopes), strict=True)
    return tuple(
        torch.stack([per_example(w, g) * g for w, g in zip(parts.T, tensor, strict=True)])
        .sum(dim=0)
        .to(wide_dtype(tensor[0]))
        for tensor in tensors
    )
