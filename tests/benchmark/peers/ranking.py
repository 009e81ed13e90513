"""Rankings by comparing all pairs, and by Python sets."""

import torch
from torch import Tensor

__all__ = [
    "anchor_pairs",
    "pair_gap_sum",
    "pair_wins",
    "precision_by_sets",
    "spearman_by_scipy",
    "two_topk",
]


def pair_wins(scores: Tensor, top: Tensor) -> Tensor:
    """Pairs of a top and another feature in which the top one is not smaller, from all k(n−k)."""
    above, below = _top_and_rest(scores, top)
    return (above[:, :, None] >= below[:, None, :]).sum(dim=(1, 2))


def pair_gap_sum(scores: Tensor, top: Tensor) -> Tensor:
    """Sum of the k(n−k) gaps."""
    above, below = _top_and_rest(scores, top)
    return (above[:, :, None] - below[:, None, :]).sum(dim=(1, 2))


def _top_and_rest(scores: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    others = torch.ones_like(scores, dtype=torch.bool).scatter(1, top, False)
    return scores.gather(1, top), scores[others].view(len(scores), -1)


def anchor_pairs(k: int) -> list[tuple[int, int]]:
    """Places of the 2k − 1 pairs of the k-th feature: with those above, and with the next k."""
    return [(i, k - 1) for i in range(k - 1)] + [(k - 1, k + i) for i in range(k)]


def precision_by_sets(left: Tensor, right: Tensor, k: int) -> Tensor:
    """P@k by two full sorts, and sets of indices."""
    firsts = [m.argsort(dim=1, descending=True)[:, :k].tolist() for m in (left, right)]
    return torch.tensor([len(set(a) & set(b)) / k for a, b in zip(*firsts, strict=True)])


def two_topk(left: Tensor, right: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select both top sets, the least that P@k by torch needs."""
    return left.topk(k, dim=1).indices, right.topk(k, dim=1).indices


def spearman_by_scipy(left: Tensor, right: Tensor) -> Tensor:
    """Pearson correlation of the average ranks of SciPy, all rows at once."""
    from scipy.stats import rankdata

    centred = []
    for maps in (left, right):
        ranks = torch.from_numpy(rankdata(maps.numpy(), axis=1))
        centred.append(ranks - ranks.mean(dim=1, keepdim=True))
    a, b = centred
    return ((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))).to(left.dtype)
