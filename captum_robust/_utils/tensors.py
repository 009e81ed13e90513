"""Operations on batches that are tuples of tensors: flatten, choose, differentiate."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from captum_robust._utils.derivatives import differentiate

__all__ = [
    "Points",
    "choose",
    "flatten",
    "gradient_or_zero",
    "per_example",
    "unflatten",
    "wide_dtype",
]

#: One tensor for each input of a model, examples along dimension 0.
Points = tuple[Tensor, ...]


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """Return the dtype for computations: that of the tensor, in at least single precision."""
    return torch.promote_types(tensor.dtype, torch.float32)


def per_example(values: Tensor, tensor: Tensor) -> Tensor:
    """Return one value per example, (N,), shaped to broadcast over the features of ``tensor``."""
    return values.view(-1, *(1,) * (tensor.dim() - 1))


def flatten(tensors: Points) -> Tensor:
    """Return one row per example with the features of all tensors; (N, n)."""
    rows = [t.reshape(len(t), math.prod(t.shape[1:])) for t in tensors]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)


def unflatten(rows: Tensor, tensors: Points) -> Points:
    """Return rows (N, n) in the shapes of ``tensors``."""
    parts = rows.split([math.prod(t.shape[1:]) for t in tensors], dim=1)
    return tuple(part.reshape(-1, *t.shape[1:]) for part, t in zip(parts, tensors, strict=True))


def choose(first: Tensor, points: Points, others: Points) -> Points:
    """Return ``points`` for the examples where ``first`` (N,) is true, ``others`` for the rest."""
    return tuple(
        torch.where(per_example(first, p), p, q) for p, q in zip(points, others, strict=True)
    )


def gradient_or_zero(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    retain_graph: bool | None = None,
) -> Points:
    """Return gradients of a weighted sum of outputs; zero for inputs outside its graph."""
    found = differentiate(outputs, inputs, weights, retain_graph=retain_graph)
    return tuple(
        torch.zeros_like(t) if g is None else g for g, t in zip(found, inputs, strict=True)
    )
