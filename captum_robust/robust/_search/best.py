"""The best point of every example so far, with its objective and overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, choose

__all__ = ["BestPoints", "better"]


def better(merits: Tensor, others: Tensor) -> Tensor:
    """Return which ``merits`` (m, 2) are lower than the others, by the first column first; (m,)."""
    equal = merits[:, 0] == others[:, 0]
    return (merits[:, 0] < others[:, 0]) | (equal & (merits[:, 1] < others[:, 1]))


class BestPoints:
    """The best allowed point of every example of a batch.

    Attributes:
        points: the points, empty before the first evaluation.
        loss: the objective there; (N,).
        overlap: number of top-k features that are left there, if they are counted; (N,).
        kept: whether the prediction is that of the example; (N,) bool. Updated only by
            :meth:`take` with ``notes``, as is ``step``.
        step: step at which the point was found; (N,) int64.
    """

    def __init__(self, points: Points, loss: Tensor, overlap: Tensor | None, kept: Tensor) -> None:
        self.points = tuple(p.detach().clone() for p in points)
        # Copies, since single examples are written to later.
        self.loss = loss.clone()
        self.overlap = None if overlap is None else overlap.clone()
        self.kept = kept.clone()
        self.step = torch.zeros_like(kept, dtype=torch.long)

    def beaten_by(self, rows: Tensor | None, loss: Tensor, overlap: Tensor | None) -> Tensor:
        """Return which points are better: of less overlap or, at equal overlap, of less loss.

        ``rows`` are the examples of the points, None for all; without overlap the loss decides.
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

        ``notes`` say whether the predictions are kept, and the step; None changes neither.
        """
        points = tuple(p.detach() for p in points)
        loss = loss.to(self.loss)  # the first loss may have double precision
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
