"""The search for edges to flip: candidates by the gradient, the best of them by evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, choose, flatten, unflatten, wide_dtype
from captum_robust.ranking import invalid_rows, ranking
from captum_robust.robust._search.best import better
from captum_robust.robust._search.descent import Descent
from captum_robust.robust._search.search import Search
from captum_robust.robust.info import AttackInfo

__all__ = ["FlipInfo", "FlipSearch"]


@dataclass(frozen=True)
class FlipInfo(AttackInfo):
    """What an :class:`EdgeFlipAttack` found, besides what every attack reports.

    A step is a flip: ``trace`` is the objective after 0, 1, … flips, and ``first_change_step`` the
    number of flips that first cost a feature of the top k.

    Attributes:
        n_flips (Tensor): number of edges that differ from those of the example; (N,) int64.
    """

    n_flips: Tensor

    @classmethod
    def of(cls, searches: Sequence[Search], n_restarts: int, step_num: int) -> FlipInfo:
        """Join what the searches of the chunks found; none for an empty batch."""
        flips = [_n_changed(s.best.points, s.batch.centre) for s in searches]
        n_flips = torch.cat(flips) if flips else torch.zeros(0, dtype=torch.long)
        return cls(**vars(AttackInfo.of(searches, n_restarts, step_num)), n_flips=n_flips)


class FlipSearch(Descent):
    """Flips one edge of every example a step, the best of those that the gradient proposes."""

    def __init__(self, *common: Any, n_candidates: int) -> None:
        super().__init__(*common)
        self.n_candidates = n_candidates

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        self._begin(restart)
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num
            here = self._consider(step, leaves, self._shares_graph and more)
            if not more:
                break
            self.guide.smooth_beta = self.settings.beta(step, self.step_num)
            flips = self._proposed(points, _rows(self._gradient(leaves, here)))
            on = ~self._mine(self.done)
            if not bool(on.any()):
                break
            kept = self._only(on)
            points, moved = self._after_best_flip(tuple(p[kept] for p in points), flips[kept])
            if not bool(moved.any()):
                break
            kept = self._only(moved)
            points = tuple(p[kept] for p in points)
            progress()

    def _only(self, on: Tensor) -> Tensor:
        """Search on for some of the examples, or all where the others matter to their maps."""
        if bool(on.all()) or self.scored.depends_on_the_batch:
            return torch.ones_like(on)
        self._leave_out(~on)
        return on

    def _proposed(self, points: Points, gradient: Tensor) -> Tensor:
        """The flips that promise the lowest objective, most promising first; (m, c)."""
        edges = _rows(points)
        promised = (gradient * (2 * edges - 1)).nan_to_num(0.0)
        promised = promised.masked_fill(self._closed(points), float("-inf"))
        return ranking(promised, min(self.n_candidates, promised.shape[1]))

    def _closed(self, points: Points) -> Tensor:
        """The edges that must stay: those under the mask, and those that are flipped already."""
        closed = _rows(points) != _rows(self.region.centre)
        return closed if self.region.mask is None else closed | ~flatten(self.region.mask)

    def _after_best_flip(self, points: Points, flips: Tensor) -> tuple[Points, Tensor]:
        """The points after the best of the flips, and whether any could be made."""
        closed, best = self._closed(points), points
        merits = self.best.loss.new_full((len(flips), 2), float("inf"))
        for edge in flips[:, :, None].unbind(dim=1):
            ahead = _flipped(points, edge)
            found = self._merits_at(ahead).masked_fill(closed.gather(1, edge), float("inf"))
            lower = better(found, merits)
            merits = torch.where(lower[:, None], found, merits)
            best = choose(lower, ahead, best)
        return best, merits[:, 0].isfinite()

    def _merits_at(self, points: Points) -> Tensor:
        """What points are worth on the real model, (m, 2); inf where the prediction changed."""
        leaves = self.region.as_inputs(points)
        scores = [self.scored.scores(p, graph=False).detach() for p in self._path(leaves)]
        loss, overlap = self._loss(scores).to(self.best.loss), self._overlap(scores[-1])
        ranked = ~invalid_rows(scores[-1])
        allowed = ranked
        if not self.settings.mode.returns_flipped:
            allowed = ranked & self._kept(leaves)
            known = None if self.best.overlap is None else self._mine(self.best.overlap)
            so_far = self._merits(self._mine(self.best.loss), known, self._all)
            lower = better(self._merits(loss, overlap, ranked), so_far)
            self._mark(self.flips_rejected, lower & ~allowed)
        return self._merits(loss, overlap, allowed)


def _rows(points: Points) -> Tensor:
    """One row of edges per example, in at least single precision; (m, n)."""
    return flatten(tuple(p.detach().to(wide_dtype(p)) for p in points))


def _flipped(points: Points, edge: Tensor) -> Points:
    """The points with one edge (m, 1) of each flipped, counted through all tensors."""
    rows = _rows(points)
    rows = rows.scatter(1, edge, 1 - rows.gather(1, edge))
    return tuple(f.to(p) for f, p in zip(unflatten(rows, points), points, strict=True))


def _n_changed(points: Points, centre: Points) -> Tensor:
    """How many edges differ, (m,); a NaN has not changed."""
    return ((_rows(points) - _rows(centre)).abs() > 0).sum(dim=1)
