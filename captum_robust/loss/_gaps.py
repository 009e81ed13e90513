"""Linear gaps as one weighted sum of the scores of each example."""

import numpy as np
import torch
from torch import Tensor

from captum_robust.ranking import Pairs, ranking

__all__ = ["gap_weights"]


def gap_weights(
    reference: Tensor, k: int, pairs: Pairs = "all", k_prime: int | None = None
) -> Tensor:
    r"""Weights w with :math:`\sum_{(i, j)} (I_i - I_j) = \sum_i w_i I_i`; (N, n), detached.

    The pairs are those of :func:`captum_robust.ranking.gap_sum`. A weight depends on the rank of
    its feature and changes at three or four ranks at most, so that the sorted values are enough to
    find it: NumPy sorts values several times faster than torch sorts indices. Examples with a tie
    at such a rank are ranked by a stable sort, in which the lowest index wins.

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
    reference = reference.detach().to(torch.promote_types(reference.dtype, torch.float32))
    lowest, drops = _drops(pairs, k, k if k_prime is None else k_prime, reference.shape[1])
    if reference.device.type != "cpu":
        return _by_stable_ranking(reference, lowest, drops)
    scores = reference.numpy()
    ascending = np.sort(scores, axis=1)
    weights = np.full_like(scores, lowest)
    tied = np.zeros(len(scores), dtype=bool)
    for rank, drop in drops:
        last, following = ascending[:, -rank], ascending[:, -rank - 1]
        weights += scores.dtype.type(drop) * (scores >= last[:, None])
        tied |= last == following
    found = torch.from_numpy(weights)
    if tied.any():
        rows = torch.from_numpy(tied)
        found[rows] = _by_stable_ranking(reference[rows], lowest, drops)
    return found


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
    weights = torch.full_like(reference, lowest)
    by_rank = weights.new_full((last,), lowest)
    for rank, drop in drops:
        by_rank[:rank] += drop
    order = ranking(reference, last)
    return weights.scatter(1, order, by_rank.expand(order.shape))
