"""Pairs of features as a caller gives them."""

import torch
from torch import Tensor

__all__ = ["check_pair_range", "expanded_pairs"]


def expanded_pairs(pairs: Tensor, n_examples: int) -> Tensor:
    """Return the pairs of every example, (N, P, 2), from (P, 2) or (N, P, 2).

    Raises:
        ValueError: for pairs of another shape, or that are not integers.
    """
    pairs = torch.as_tensor(pairs)
    if pairs.is_floating_point():
        raise ValueError(f"pairs must hold integers, got {pairs.dtype}")
    fits = pairs.dim() in (2, 3) and pairs.shape[-1] == 2
    if not fits or (pairs.dim() == 3 and len(pairs) != n_examples):
        raise ValueError(
            f"pairs must have shape (P, 2) or ({n_examples}, P, 2), got {tuple(pairs.shape)}"
        )
    return pairs.expand(n_examples, *pairs.shape[-2:])


def check_pair_range(pairs: Tensor, n_features: int) -> None:
    """Raise ValueError unless all pairs are of features in 0 … n_features − 1."""
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < n_features:
        raise ValueError(
            f"pairs must hold indices in 0 … {n_features - 1}, got "
            f"{int(pairs.min())} … {int(pairs.max())}"
        )
