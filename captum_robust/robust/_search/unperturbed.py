"""Scores, top features and defects of the examples before any perturbation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_robust.ranking import (
    check_k,
    invalid_rows,
    non_finite_rows,
    tied_rows,
    top_k_indices,
)
from captum_robust.robust._search.evaluator import Evaluator
from captum_robust.robust._search.region import Region
from captum_robust.robust.objectives import Objective

__all__ = ["Unperturbed", "prepared_objective"]

# Between these magnitudes of scores, all gradients are in the range of single precision.
_PLAIN = (1e-12, 1e12)


@dataclass(frozen=True)
class Unperturbed:
    """The scores of a batch of examples, with their top features and defects.

    Attributes:
        scores: the scores, zero for examples without a ranking; (N, n).
        broken: examples without a ranking or without another point to move to; (N,) bool.
        any_broken: whether an example has no ranking.
        top: the top k features in ascending order of the index; None without a k; (N, k).
        tied: examples whose k-th score ties with the next; (N,) bool.
        underflow: examples whose k-th score is too small for half precision; (N,) bool.
        plain: whether gradients of the scores need no scaling to stay in the range of their dtype.
        map_shapes: the shapes of the maps of one example.
    """

    scores: Tensor
    broken: Tensor
    any_broken: bool
    top: Tensor | None
    tied: Tensor
    underflow: Tensor
    plain: bool
    map_shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, scores: Tensor, region: Region, evaluator: Evaluator, k: int | None) -> Unperturbed:
        """Examine the scores of the examples of a region."""
        # The map of a ReLU network is finite at a NaN input, which would then look robust.
        broken = invalid_rows(scores) | non_finite_rows(region.centre) | region.pinned
        scores = scores.masked_fill(broken[:, None], 0)  # no NaN in a sort
        largest = scores.abs().amax(dim=1)[~broken]
        within = bool(((largest > _PLAIN[0]) & (largest < _PLAIN[1])).all())
        dtype = evaluator.map_dtype
        top, tied = None, torch.zeros_like(broken)
        if k is not None:
            check_k(k, scores.shape[1])
            top = top_k_indices(scores, k)
            tied = tied_rows(scores, k)
        return cls(
            scores=scores,
            broken=broken,
            any_broken=bool(broken.any()),
            top=top,
            tied=tied,
            underflow=_underflow(scores, dtype, k or 1),
            plain=within and dtype in (torch.float32, torch.float64),
            map_shapes=evaluator.map_shapes,
        )

    @property
    def k(self) -> int | None:
        """Size of the top set."""
        return None if self.top is None else self.top.shape[1]

    @property
    def lowest_overlap(self) -> int:
        """Smallest possible overlap of two top-k sets among n features, max(0, 2k − n)."""
        assert self.top is not None
        return max(0, 2 * self.top.shape[1] - self.scores.shape[1])


def prepared_objective(
    objective: Objective, evaluator: Evaluator, reference: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return the objective as a function of the scores, prepared for one reference."""
    found: Any = objective
    if hasattr(found, "of"):
        found = found.of(evaluator)
    if hasattr(found, "against"):
        judge: Callable[[Tensor], Tensor] = found.against(reference)
        return judge
    return lambda scores: found(scores, reference)


def _underflow(scores: Tensor, dtype: torch.dtype, k: int) -> Tensor:
    """Return rows whose k-th largest magnitude underflows in a half-precision ``dtype``; (N,)."""
    if dtype not in (torch.float16, torch.bfloat16):
        return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kth = scores.abs().topk(k, dim=1).values[:, -1]
    return kth < torch.finfo(dtype).tiny
