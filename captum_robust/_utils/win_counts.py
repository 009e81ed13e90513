"""Counts of the pairs of a top and a lower feature that a point keeps in order."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["win_counts"]

# From this many features on, discarding the features below the whole top-k costs less than sorting
# them (measured by the benchmark module).
_PRUNE_FROM = 2048


def win_counts(scores: Tensor, top: Tensor) -> Tensor:
    r"""Number of pairs (i in top, j not in top) with :math:`I_i \ge I_j` in each row; (N,) int64.

    This is the Mann–Whitney statistic, counted by sorting instead of comparing k(n−k) pairs.

    Args:
        scores (Tensor): finite scores, shape (N, n).
        top (Tensor): indices of the top features of each row, shape (N, k).

    Examples::

        >>> win_counts(torch.tensor([[3., 1., 2., 1.]]), torch.tensor([[0, 1]]))
        tensor([3])
    """
    scores = scores.detach()
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))  # NumPy has no bfloat16
    tops = scores.gather(1, top)
    weakest = tops.amin(dim=1)
    n_pairs = top.shape[1] * (scores.shape[1] - top.shape[1])
    wins = torch.full_like(weakest, n_pairs, dtype=torch.int64)
    # Only rows with a lost pair are sorted: most points of a stable neighbourhood keep all pairs.
    rest = scores.scatter(1, top, float("-inf"))
    lost = (rest.amax(dim=1) > weakest).nonzero().squeeze(1)
    if len(lost):
        wins[lost] -= _losses(rest[lost], tops[lost], weakest[lost])
    return wins


def _losses(rest: Tensor, tops: Tensor, weakest: Tensor) -> Tensor:
    """Number of pairs in which a score of ``rest`` is larger than one of ``tops``; (N,)."""
    if rest.device.type == "cpu" and rest.shape[1] >= _PRUNE_FROM:
        rows = zip(rest.numpy(), tops.numpy(), weakest.numpy(), strict=True)
        return torch.tensor([_losses_of_row(*row) for row in rows], dtype=torch.int64)
    # NumPy sorts values with SIMD and moves no indices: several times faster than torch.sort.
    if rest.device.type == "cpu":
        ordered = torch.from_numpy(np.sort(rest.numpy(), axis=1))
    else:
        ordered = rest.sort(dim=1).values
    not_larger = torch.searchsorted(ordered, tops, right=True)
    return rest.shape[1] * tops.shape[1] - not_larger.sum(dim=1)


def _losses_of_row(rest: NDArray[Any], tops: NDArray[Any], weakest: float) -> int:
    """Losses of one wide row, found among the features above the weakest top one."""
    rivals = rest[rest > weakest]
    rivals.sort()
    return rivals.size * tops.size - int(rivals.searchsorted(tops, side="right").sum())
