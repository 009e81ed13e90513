"""The best point of every example so far, and what is known of it."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, choose

__all__ = ["BestPoints", "better"]


def better(merits: Tensor, others: Tensor) -> Tensor:
    """Which of the ``merits`` (m, 2) are lower than the others, by the first column first; (m,)."""
    equal = merits[:, 0] == others[:, 0]
    return (merits[:, 0] < others[:, 0]) | (equal & (merits[:, 1] < others[:, 1]))


class BestPoints:
    """The best allowed point of every example of a batch.

    Attributes:
        points: the points, empty before the first evaluation.
        loss: the objective there; (N,).
        kept: whether the prediction is that of the example; (N,) bool.
        step: at which the point was found; (N,) int64.
        overlap: how many of the top k features are left there, where that is counted; (N,).
    """

    def __init__(self, n_examples: int, device: torch.device) -> None:
        self.points: Points = ()
        self.loss = torch.empty(0)
        self.kept = torch.empty(0)
        self.step = torch.zeros(n_examples, dtype=torch.long, device=device)
        self.overlap: Tensor | None = None

    def begin(self, points: Points, loss: Tensor, overlap: Tensor | None, kept: Tensor) -> None:
        """Start with the first points that were evaluated, one for every example."""
        self.points = tuple(p.detach().clone() for p in points)
        self.loss, self.kept, self.overlap = loss, kept, overlap

    def beaten_by(self, rows: Tensor | None, loss: Tensor, overlap: Tensor | None) -> Tensor:
        """Which points are better: of less overlap, or where it is equal or not given, less loss.

        ``rows`` are the examples of the points, None for all.
        """
        lower = loss < (self.loss if rows is None else self.loss[rows])
        if overlap is None or self.overlap is None:
            return lower
        before = self.overlap if rows is None else self.overlap[rows]
        return (overlap < before) | ((overlap == before) & lower)

    def take(
        self,
        rows: Tensor | None,
        taken: Tensor,
        step: int,
        points: Points,
        loss: Tensor,
        overlap: Tensor | None,
        kept: Tensor,
    ) -> None:
        """Replace the best points of the examples that are taken."""
        if rows is None:
            self.points = choose(taken, tuple(p.detach() for p in points), self.points)
            self.loss = torch.where(taken, loss.to(self.loss), self.loss)
            self.kept = torch.where(taken, kept, self.kept)
            self.step = torch.where(taken, step, self.step)
            if overlap is not None and self.overlap is not None:
                self.overlap = torch.where(taken, overlap, self.overlap)
            return
        chosen = rows[taken]
        if len(chosen) == 0:
            return
        for best, p in zip(self.points, points, strict=True):
            best[chosen] = p.detach()[taken]
        self.loss[chosen] = loss[taken].to(self.loss)  # some start in double precision
        self.kept[chosen] = kept[taken]
        self.step[chosen] = step
        if overlap is not None and self.overlap is not None:
            self.overlap[chosen] = overlap[taken]
