r"""How many features an attack must swap, and objectives that count them.

Sort the scores of the reference's top k upwards, :math:`a_1 \le a_2 \le \dots`, and those of the
rest downwards, :math:`b_1 \ge b_2 \ge \dots`. Of the reference's top k, exactly as many features
are lost as there are q with :math:`b_q > a_q` (ties aside): precision at k is a count of sorted
gaps :math:`a_q - b_q`, which grow with q. Only the next few of them matter to an attack, whichever
features they belong to; the sum over all pairs spends its force on gaps that can never close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_robust._utils.checks import check_count
from captum_robust.ranking import check_k, top_k_mask

__all__ = ["NextSwapObjective", "SwapCountObjective"]

_MARGIN = 0.05  # of the mean gap, by which a swapped pair is held apart


def sorted_gaps(reference: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    r"""The gaps :math:`a_q - b_q`, q = 1 … min(k, n − k), of scores, in units of the mean gap.

    The unit is the mean score of the reference's top k less that of the others, so that the gaps of
    examples, models and attributions compare.
    """
    check_k(k, reference.shape[1])
    top = top_k_mask(reference, k)
    n_rest = reference.shape[1] - k
    n_pairs = min(k, n_rest)
    high = _picked(reference, top, k).mean(dim=1, keepdim=True)
    low = _picked(reference, ~top, n_rest).mean(dim=1, keepdim=True)
    unit = (high - low).clamp_min(torch.finfo(reference.dtype).tiny)

    def gaps(scores: Tensor) -> Tensor:
        below = _picked(scores, top, k).topk(n_pairs, dim=1, largest=False).values
        above = _picked(scores, ~top, n_rest).topk(n_pairs, dim=1).values
        return (below - above) / unit.to(scores)

    return gaps


@dataclass(frozen=True)
class NextSwapObjective:
    r"""Close the next gap: minus the swaps made, plus the gaps of the next ``ahead`` pairs.

    .. math:: -2 s + \frac{1}{ahead} \sum_{q \le s + ahead} \max(g_q, -0.05)

    with :math:`g_q` the sorted gaps in units of the mean gap and s the number of them below zero.
    Pairs that are swapped are held apart by a small margin and get no further force.
    """

    k: int
    ahead: int = 1

    def __post_init__(self) -> None:
        check_count("k", self.k, 1)
        check_count("ahead", self.ahead, 1)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """The objective of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose top k are found once."""
        gaps_of = sorted_gaps(reference, self.k)

        def objective(scores: Tensor) -> Tensor:
            gaps = gaps_of(scores)
            swapped = (gaps < 0).sum(dim=1, keepdim=True)
            place = torch.arange(gaps.shape[1], device=gaps.device)
            near = place < swapped + self.ahead
            held = torch.where(near, gaps.clamp_min(-_MARGIN), 0)
            return held.sum(dim=1) / self.ahead - (2 * swapped).squeeze(1)

        return objective


@dataclass(frozen=True)
class SwapCountObjective:
    r"""A smooth count of the features that are kept, :math:`\sum_q \sigma(g_q / \tau)`.

    With :math:`g_q` the sorted gaps in units of the mean gap. It tends to k times precision at k,
    less what no swap can change, as :math:`\tau \to 0`; a large one looks at many pairs at once.
    """

    k: int
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_count("k", self.k, 1)
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """The count of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose top k are found once."""
        gaps_of = sorted_gaps(reference, self.k)
        return lambda scores: (gaps_of(scores) / self.temperature).sigmoid().sum(dim=1)


def _picked(scores: Tensor, mask: Tensor, width: int) -> Tensor:
    """The scores of each row under a mask with ``width`` of them in every row; (N, width)."""
    return scores[mask].view(len(scores), width)  # −1 would not do for no rows
