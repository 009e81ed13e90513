"""The search for edges to flip: candidates by the gradient, the best of them by evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_robust._utils.checks import wide_dtype
from captum_robust.ranking import invalid_rows, ranking
from captum_robust.robust._search.descent import Descent
from captum_robust.robust._search.region import per_example
from captum_robust.robust._search.search import Points, Search, better
from captum_robust.robust.info import AttackInfo

if TYPE_CHECKING:
    from captum_robust.graph.edge_flip import EdgeFlipAttack

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
        flips = [_n_changed(s.best, s.batch.centre) for s in searches]
        n_flips = torch.cat(flips) if flips else torch.zeros(0, dtype=torch.long)
        return cls(**vars(AttackInfo.of(searches, n_restarts, step_num)), n_flips=n_flips)


class FlipSearch(Descent):
    """Flips one edge of every example a step, the best of those that the gradient proposes."""

    attack: EdgeFlipAttack

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        own = self.guide is self.scored and self.attack.gradient == "autograd"
        self._lagrangian = None
        if self.attack.gradient == "spsa":
            self._generators = self.region.generators(self.seed, 1 + restart)
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num
            look = self._consider(step, leaves, own and more)
            if not more:
                break
            self.guide.smooth_beta = self._beta(step)
            flips = self._proposed(points, _rows(self._gradient(leaves, look)))
            on = ~self.done[self.rows]
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
        if self.attack.gradient == "spsa":
            self._generators = [self._generators[i] for i in on.nonzero()[:, 0]]
        self._focus(self.rows[on])
        return on

    def _proposed(self, points: Points, gradient: Tensor) -> Tensor:
        """The flips that promise the lowest objective, most promising first; (m, c)."""
        edges = _rows(points)
        promised = (gradient * (2 * edges - 1)).nan_to_num(0.0)
        promised = promised.masked_fill(self._closed(points), float("-inf"))
        return ranking(promised, min(self.attack.n_candidates, promised.shape[1]))

    def _closed(self, points: Points) -> Tensor:
        """The edges that must stay: those under the mask, and those that are flipped already."""
        closed = _rows(points) != _rows(self.region.centre)
        return closed if self.region.mask is None else closed | (_rows(self.region.mask) == 0)

    def _after_best_flip(self, points: Points, flips: Tensor) -> tuple[Points, Tensor]:
        """The points after the best of the flips, and whether any could be made."""
        closed, best = self._closed(points), points
        merits = self.best_loss.new_full((len(flips), 2), float("inf"))
        for edge in flips[:, :, None].unbind(dim=1):
            ahead = _flipped(points, edge)
            found = self._merits_at(ahead).masked_fill(closed.gather(1, edge), float("inf"))
            lower = better(found, merits)
            merits = torch.where(lower[:, None], found, merits)
            best = tuple(
                torch.where(per_example(lower, a), a, b) for a, b in zip(ahead, best, strict=True)
            )
        return best, merits[:, 0].isfinite()

    def _merits_at(self, points: Points) -> Tensor:
        """What points are worth on the real model, (m, 2); inf where the prediction changed."""
        leaves = self.region.as_inputs(points)
        scores = [self.scored.scores(p, graph=False).detach() for p in self._path(leaves)]
        loss, overlap = self._loss(scores).to(self.best_loss), self._overlap(scores[-1])
        ranked = ~invalid_rows(scores[-1])
        allowed = ranked
        if self.attack.preserve_prediction != "none":
            allowed = ranked & self._kept(leaves)
            known = None if self.best_overlap is None else self.best_overlap[self.rows]
            so_far = self._merits(self.best_loss[self.rows], known, torch.ones_like(ranked))
            lower = better(self._merits(loss, overlap, ranked), so_far)
            self.flips_rejected[self.rows] |= lower & ~allowed
        return self._merits(loss, overlap, allowed)


def _rows(points: Points) -> Tensor:
    """One row of edges an example, in at least single precision; (m, n)."""
    return torch.cat([p.detach().to(wide_dtype(p)).flatten(1) for p in points], dim=1)


def _flipped(points: Points, edge: Tensor) -> Points:
    """The points with one edge (m, 1) of each flipped, counted through all tensors."""
    rows = _rows(points)
    rows = rows.scatter(1, edge, 1 - rows.gather(1, edge))
    parts = rows.split([p[0].numel() for p in points], dim=1)
    return tuple(part.view_as(p).to(p) for part, p in zip(parts, points, strict=True))


def _n_changed(points: Points, centre: Points) -> Tensor:
    """How many edges differ, (m,); a NaN has not changed."""
    return ((_rows(points) - _rows(centre)).abs() > 0).sum(dim=1)
