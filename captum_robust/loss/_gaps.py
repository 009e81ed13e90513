"""Linear gaps as one weighted sum of the scores of each example."""

import numpy as np
import torch
from torch import Tensor

from captum_robust._utils.tensors import wide_dtype
from captum_robust.ranking import Pairs

__all__ = ["gap_weights", "sorts_in_numpy"]

# For fewer numbers torch needs less time, because it needs fewer calls.
_SORT_IN_NUMPY = 4096


def gap_weights(
    reference: Tensor, k: int, pairs: Pairs = "all", k_prime: int | None = None
) -> Tensor:
    r"""Weights w with :math:`\sum_{(i, j)} (I_i - I_j) = \sum_i w_i I_i`; (N, n), detached.

    The pairs are those of :func:`captum_robust.ranking.gap_sum`. A weight depends on the rank of
    its feature and changes at three or four ranks at most, so that the sorted values are enough to
    find it: NumPy sorts many values several times faster than torch sorts indices. Examples with a
    tie at such a rank are ranked by a stable sort, in which the lowest index wins.

    Args:
        reference (Tensor): the scores that define the ranking, shape (N, n).
        k (int): size of the top set, 1 <= k < n.
        pairs (str, optional): ``"all"``, ``"anchor"`` or ``"mm"``.
        k_prime (int, optional): number of pairs of ``"anchor"`` and ``"mm"``, 1 <= k' <= k.
            Default: k.

    Examples::

        >>> gap_weights(torch.tensor([[5., 2., 3., 1.]]), k=2)
        tensor([[ 2., -2.,  2., -2.]])
        >>> gap_weights(torch.tensor([[5., 2., 3., 1.]]), k=2, pairs="mm", k_prime=1)
        tensor([[ 0., -1.,  1.,  0.]])
    """
    reference = reference.detach().to(wide_dtype(reference))
    lowest, drops = _drops(pairs, k, k if k_prime is None else k_prime, reference.shape[1])
    if not sorts_in_numpy(reference):
        return _by_stable_ranking(reference, lowest, drops)
    scores = reference.numpy()
    ascending = np.sort(scores, axis=1)
    weights = np.full_like(scores, lowest)
    tied = np.zeros(len(scores), dtype=bool)
    for rank, drop in drops:
        last, following = ascending[:, -rank], ascending[:, -rank - 1]
        weights += (scores >= last[:, None]) * scores.dtype.type(drop)
        tied |= last == following
    found = torch.from_numpy(weights)
    if tied.any():
        rows = torch.from_numpy(tied)
        found[rows] = _by_stable_ranking(reference[rows], lowest, drops)
    return found


def sorts_in_numpy(reference: Tensor) -> bool:
    """Return whether :func:`gap_weights` sorts these scores in NumPy."""
    return reference.device.type == "cpu" and reference.numel() >= _SORT_IN_NUMPY


def _drops(
    pairs: Pairs, k: int, k_prime: int, n_features: int
) -> tuple[float, list[tuple[int, float]]]:
    """The weight of the last feature, and by how much the weights drop behind the first r."""
    below = min(k_prime, n_features - k)
    if pairs == "all":
        return -k, [(k, n_features)]
    if pairs == "mm":
        drops = [(k - below, -1), (k, 2), (k + below, -1)]
    else:  # the k-th feature is in every pair, below k' − 1 others and above the rest
        drops = [(k - k_prime, -1), (k - 1, k_prime - below), (k, below - k_prime + 2)]
        drops.append((k + below, -1))
    lowest = sum(drop for rank, drop in drops if rank == n_features)
    return lowest, [(rank, drop) for rank, drop in drops if 0 < rank < n_features and drop]


def _by_stable_ranking(reference: Tensor, lowest: float, drops: list[tuple[int, float]]) -> Tensor:
    last = max(rank for rank, _ in drops)
    by_rank = [lowest + sum(drop for rank, drop in drops if i < rank) for i in range(last)]
    order = reference.argsort(dim=1, descending=True, stable=True)[:, :last]
    return torch.full_like(reference, lowest).scatter_(
        1, order, reference.new_tensor(by_rank).expand(order.shape)
    )
