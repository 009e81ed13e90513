r"""Objectives that count the features that an attack has swapped.

Sort the scores of the reference's top k upwards, :math:`a_1 \le a_2 \le \dots`, and those of the
rest downwards, :math:`b_1 \ge b_2 \ge \dots`. Of the reference's top k, exactly as many features
are lost as there are q with :math:`b_q > a_q` (ties aside): precision at k is a count of sorted
gaps :math:`a_q - b_q`, which grow with q. Only the next few gaps matter to an attack, whichever
features they belong to. The sum over all pairs is dominated by gaps that can never close.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_robust._utils.checks import check_count
from captum_robust.ranking import check_k, top_k_mask

__all__ = ["NextSwapObjective", "SwapCountObjective"]

_MARGIN = 0.05  # of the mean gap, by which a swapped pair is kept apart


def sorted_gaps(reference: Tensor, k: int) -> Callable[[Tensor], Tensor]:
    r"""Return the function from scores to gaps :math:`a_q - b_q` in units of the mean gap.

    The mean gap is the mean score of the reference's top k less that of the others. Divided by it,
    the gaps of different examples, models and attributions are comparable.
    """
    check_k(k, reference.shape[1])
    is_top = top_k_mask(reference, k)
    # A stable sort puts the top features first, in ascending order of the index.
    places = is_top.byte().argsort(dim=1, descending=True, stable=True)
    top, rest = places[:, :k], places[:, k:]
    n_pairs = min(top.shape[1], rest.shape[1])
    high = reference.gather(1, top).mean(dim=1, keepdim=True)
    low = reference.gather(1, rest).mean(dim=1, keepdim=True)
    unit = (high - low).clamp_min(torch.finfo(reference.dtype).tiny)

    def gaps(scores: Tensor) -> Tensor:
        below = scores.gather(1, top).topk(n_pairs, dim=1, largest=False).values
        above = scores.gather(1, rest).topk(n_pairs, dim=1).values
        return (below - above) / unit.to(scores)

    return gaps


@dataclass(frozen=True)
class NextSwapObjective:
    r"""Close the next gap: minus the swaps made, plus the gaps of the next ``ahead`` pairs.

    .. math:: -2 s + \frac{1}{ahead} \sum_{q \le s + ahead} \max(g_q, -0.05)

    with :math:`g_q` the sorted gaps in units of the mean gap and s the number of them below zero.
    Swapped pairs are kept apart by a small margin, beyond which their gradient is zero.
    """

    k: int
    ahead: int = 1

    def __post_init__(self) -> None:
        check_count("k", self.k, 1)
        check_count("ahead", self.ahead, 1)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return the objective of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the objective for one reference, whose top k are computed once."""
        gaps_of = sorted_gaps(reference, self.k)
        n_pairs = min(self.k, reference.shape[1] - self.k)
        place = torch.arange(n_pairs, device=reference.device)

        def objective(scores: Tensor) -> Tensor:
            gaps = gaps_of(scores)
            swapped = (gaps.detach() < 0).sum(dim=1, keepdim=True)
            near = place < swapped + self.ahead
            held = (gaps.clamp_min(-_MARGIN) * near).sum(dim=1) / self.ahead
            return held - 2 * swapped.squeeze(1)

        return objective


@dataclass(frozen=True)
class SwapCountObjective:
    r"""A smooth count of the features that are kept, :math:`\sum_q \sigma(g_q / \tau)`.

    With :math:`g_q` the sorted gaps in units of the mean gap. As :math:`\tau \to 0`, the count
    tends to k times precision at k, less the features that no swap can remove. With a large
    :math:`\tau`, many pairs have a gradient at once.
    """

    k: int
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_count("k", self.k, 1)
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return the count of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the objective for one reference, whose top k are computed once."""
        gaps_of = sorted_gaps(reference, self.k)
        return lambda scores: (gaps_of(scores) / self.temperature).sigmoid().sum(dim=1)
