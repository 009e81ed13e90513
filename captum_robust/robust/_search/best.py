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
        overlap: how many of the top k features are left there, where that is counted; (N,).
        kept: whether the prediction is that of the example; (N,) bool. Kept up to date only where
            it is asked for, as is ``step``.
        step: at which the point was found; (N,) int64.
    """

    def __init__(self, points: Points, loss: Tensor, overlap: Tensor | None, kept: Tensor) -> None:
        self.points = tuple(p.detach().clone() for p in points)
        self.loss = loss
        self.overlap = overlap
        self.kept = kept
        self.step = torch.zeros_like(kept, dtype=torch.long)

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
        points: Points,
        loss: Tensor,
        overlap: Tensor | None,
        notes: tuple[Tensor, int] | None,
    ) -> None:
        """Replace the best points of the examples that are taken.

        ``notes`` are whether the predictions are kept, and the step; None leaves them.
        """
        points = tuple(p.detach() for p in points)
        loss = loss.to(self.loss)  # some start in double precision
        if rows is None:
            self.points = choose(taken, points, self.points)
            self.loss = torch.where(taken, loss, self.loss)
            if overlap is not None and self.overlap is not None:
                self.overlap = torch.where(taken, overlap, self.overlap)
            if notes is not None:
                self.kept = torch.where(taken, notes[0], self.kept)
                self.step = torch.where(taken, notes[1], self.step)
            return
        chosen = rows[taken]
        if len(chosen) == 0:
            return
        for best, p in zip(self.points, points, strict=True):
            best[chosen] = p[taken]
        self.loss[chosen] = loss[taken]
        if overlap is not None and self.overlap is not None:
            self.overlap[chosen] = overlap[taken]
        if notes is not None:
            self.kept[chosen], self.step[chosen] = notes[0][taken], notes[1]
