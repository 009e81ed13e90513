"""What every search of a ball shares: the real model scores the points, and the best is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust.ranking import check_k, invalid_rows, non_finite_rows, share, top_k_indices
from captum_robust.robust._search.evaluator import Explanation
from captum_robust.robust._search.region import Region
from captum_robust.robust.flags import underflow

if TYPE_CHECKING:
    from captum_robust.robust.attack import ExplanationAttack

__all__ = ["Keep", "Look", "Preserve", "Search", "better"]

Preserve = Literal["reject", "early_stop", "none", "fixed", "gda", "hedge", "qp"]
Keep = Literal["objective", "precision"]

Points = tuple[Tensor, ...]


def better(merits: Tensor, others: Tensor) -> Tensor:
    """Which of the ``merits`` (m, 2) are lower than the others, by the first column first; (m,)."""
    equal = merits[:, 0] == others[:, 0]
    return (merits[:, 0] < others[:, 0]) | (equal & (merits[:, 1] < others[:, 1]))


class Look(NamedTuple):
    """What one evaluation of the examples under search has shown.

    Attributes:
        alive: which examples are searched on; (m,) bool.
        allowed: where the point may be returned; (m,) bool.
        loss: the objective, with its graph if one was asked for; (m,).
        scores: the scores (m, n) at the points of the path, the last of them at the point itself.
        overlap: how many of the top k features are left, where that is counted; (m,).
        maps: the signed maps that finite differences go on with, else empty.
    """

    alive: Tensor
    allowed: Tensor
    loss: Tensor
    scores: list[Tensor]
    overlap: Tensor | None
    maps: tuple[Tensor, ...]


class Search(ABC):
    """Searches one batch and keeps the best point of every example.

    A subclass writes :meth:`_descend`, one search from given points. It calls :meth:`_consider` on
    every point that may be returned, for the examples :attr:`rows`, and may leave examples out
    with :meth:`_focus`; everything about an example that is kept has the size of the whole batch.
    ``explain`` makes, for any rows of the batch, the explanation that counts and the one whose
    gradient leads: the same, or a smoothed or differentiable stand-in.
    """

    def __init__(
        self,
        attack: ExplanationAttack,
        region: Region,
        explain: Callable[[Tensor], tuple[Explanation, Explanation]],
        step_size: Tensor,
        step_num: int,
        seed: int,
        with_info: bool,
    ) -> None:
        n_examples, device = len(region.centre[0]), region.centre[0].device
        self.attack = attack
        self.batch = region
        self.step_size = step_size
        self.step_num = step_num
        self.seed = seed
        self.with_info = with_info
        self.traces: list[list[Tensor]] = []
        self.best: Points = ()
        self.best_loss = self.best_kept = torch.empty(0)
        self.best_step = torch.zeros(n_examples, dtype=torch.long, device=device)
        self.best_overlap: Tensor | None = None
        self.first_change_step: Tensor | None = None
        self.gradient_found = torch.zeros(n_examples, dtype=torch.bool, device=device)
        self.gradient_broken = torch.zeros_like(self.gradient_found)
        self.flips_rejected = torch.zeros_like(self.gradient_found)
        self.done = torch.zeros_like(self.gradient_found)
        self.looked_for_gradient = torch.zeros_like(self.gradient_found)
        self.underflow = torch.zeros_like(self.gradient_found)
        self.tied = torch.zeros_like(self.gradient_found)
        self._reference: Tensor | None = None
        self._labels: tuple[Tensor, ...] = ()
        self._results: tuple[Tensor, ...] = ()
        self._top: Tensor | None = None
        self._explain = explain
        self._spent = torch.zeros(n_examples, dtype=torch.long)  # by the rows looked at before
        self._point_at(torch.arange(n_examples, device=device))

    @abstractmethod
    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        """Search from ``points`` of the examples :attr:`rows`."""

    def run(
        self,
        start: Points | None,
        random_start: bool,
        n_restarts: int,
        progress: Callable[[], Any],
    ) -> None:
        """Search from ``start``, or the example itself, or a random point; then from random points.

        The example itself is considered in any case.
        """
        everything = self.rows
        if start is not None or random_start:
            self.traces.append([])
            self._consider(0, self.region.as_inputs(self.region.centre), graph=False)
            self.traces.clear()
        for restart in range(n_restarts):
            self.traces.append([])
            self._focus(everything[~self.done])
            if len(self.rows) == 0:
                continue
            if restart > 0 or (random_start and start is None):
                points = self.region.random_point(self.seed, restart)
            elif start is None:
                points = self.region.centre
            else:
                points = self.region.nearest(tuple(s[self.rows] for s in start))
            self._descend(points, restart, progress)
        self._focus(everything)

    @property
    def n_queries(self) -> Tensor:
        """Attributions computed so far, for each example; (N,)."""
        own = 0 if self.guide is self.scored else self.guide.n_queries
        spent = self._spent.clone()
        spent[self.rows.cpu()] += self.scored.n_queries + own
        return spent

    @property
    def broken(self) -> Tensor:
        """Examples without a ranking to lose; (N,) bool."""
        assert self._reference is not None
        return self._broken

    @property
    def lowest_overlap(self) -> int:
        """How many features of a top k must stay: two sets of k among n features overlap."""
        assert self._top is not None and self._reference is not None
        return max(0, 2 * self._top.shape[1] - self._reference.shape[1])

    @property
    def best_precision(self) -> Tensor | None:
        """Precision at k of the best points, (N,); NaN without a ranking, None without a k."""
        if self._top is None or self.best_overlap is None:
            return None
        precision = share(self.best_overlap.to(self.best_loss), self._top.shape[1])
        return precision.masked_fill(self._broken, float("nan"))

    @property
    def blind(self) -> bool:
        """Whether a gradient was looked for in vain: zero for every example that has a ranking."""
        in_vain = bool(self.looked_for_gradient.any()) and not bool(self.gradient_found.any())
        return in_vain and not bool(self.broken.all())

    def full_trace(self) -> Tensor:
        """The objective of every iterate, (n_restarts, step_num + 1, N)."""
        nothing = torch.full_like(self.best_loss, float("nan"))
        return torch.stack(
            [
                torch.stack(trace + [nothing] * (self.step_num + 1 - len(trace)))
                for trace in self.traces
            ]
        )

    def _focus(self, rows: Tensor) -> None:
        """Search only the examples ``rows`` from now on."""
        if len(rows) != len(self.rows) or not torch.equal(rows, self.rows):
            self._spent = self.n_queries
            self._point_at(rows)

    def _point_at(self, rows: Tensor) -> None:
        self.rows = rows
        self.region = self.batch if len(rows) == len(self.done) else self.batch.of(rows)
        self.scored, self.guide = self._explain(rows.cpu())
        if self._reference is not None:
            self.scored.map_shapes = self._map_shapes
            self._judge = self._judging(self._reference[rows])

    def _consider(
        self, step: int, points: Points, graph: bool, alive: Tensor | None = None
    ) -> Look:
        """Evaluate points and keep them where they are the best allowed ones so far."""
        maps: tuple[Tensor, ...] = ()
        if self.attack.gradient == "finite_difference" and self.guide is self.scored:
            maps = as_tuple(self.scored.maps(points, graph=False, abs=False))
            scores = [self.scored.scores_of_signed(maps)]
        else:
            scores = [self.scored.scores(p, graph) for p in self._path(points)]
        here = scores[-1].detach()
        first = self._reference is None
        if first:
            self._start(here)
        loss = self._loss(scores) + self._term(points)
        found, kept = loss.detach(), self._kept(points)
        alive = torch.ones_like(kept) if alive is None else alive
        if self.attack.preserve_prediction == "early_stop":
            alive = alive & kept
        ranked = alive & ~invalid_rows(here)
        allowed = ranked if self.attack.preserve_prediction == "none" else ranked & kept
        overlap = self._overlap(here)
        if first:
            self.best = tuple(p.detach().clone() for p in points)
            self.best_loss, self.best_kept, self.best_overlap = found, kept, overlap
        else:
            self._improve(step, points, found, overlap, kept, allowed, ranked)
        if self.with_info:
            whole = torch.full_like(self.best_loss, float("nan"))
            whole[self.rows] = found.to(whole)
            self.traces[-1].append(whole)
        self._note_change(step, overlap, allowed)
        return Look(alive, allowed, loss, scores, overlap, maps)

    def _improve(
        self,
        step: int,
        points: Points,
        found: Tensor,
        overlap: Tensor | None,
        kept: Tensor,
        allowed: Tensor,
        ranked: Tensor,
    ) -> None:
        lower = found < self.best_loss[self.rows]
        if self.attack.keep == "precision" and overlap is not None:
            assert self.best_overlap is not None
            before = self.best_overlap[self.rows]
            lower = (overlap < before) | ((overlap == before) & lower)
        self.flips_rejected[self.rows] |= lower & ranked & ~allowed
        better = lower & allowed
        if not bool(better.any()):
            return
        rows = self.rows[better]
        for best, p in zip(self.best, points, strict=True):
            best[rows] = p.detach()[better]
        self.best_loss[rows] = found[better].to(self.best_loss)  # some start in double precision
        self.best_kept[rows] = kept[better]
        self.best_step[rows] = step
        if overlap is not None:
            assert self.best_overlap is not None
            self.best_overlap[rows] = overlap[better]
            if self.attack.keep == "precision":
                self.done[rows] = overlap[better] == self.lowest_overlap

    def _start(self, reference: Tensor) -> None:
        # A ReLU network gives NaN a finite map: the broken input would look perfectly robust.
        self._broken = invalid_rows(reference) | non_finite_rows(self.batch.centre)
        reference = reference.masked_fill(self._broken[:, None], 0)  # no NaN in a sort
        self._reference = reference
        self._map_shapes = self.scored.map_shapes
        self._judge = self._judging(reference)
        k = getattr(self.attack.objective, "k", None)
        self.underflow = underflow(reference, self.scored.map_dtype, k or 1)
        if k is not None:
            check_k(k, reference.shape[1])
            self._top = top_k_indices(reference, k)
            boundary = reference.topk(k + 1, dim=1).values[:, -2:]
            self.tied = boundary[:, 0] == boundary[:, 1]
            self.first_change_step = torch.full((len(reference),), -1, device=reference.device)

    def _judging(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for the examples and their reference."""
        objective: Any = self.attack.objective
        if hasattr(objective, "of"):
            objective = objective.of(self.scored)
        if hasattr(objective, "against"):
            judge: Callable[[Tensor], Tensor] = objective.against(reference)
            return judge
        return lambda scores: objective(scores, reference)

    def _path(self, points: Points) -> list[Points]:
        """Points on the segment from the example to ``points``, which come last."""
        centre, n_points = self.region.centre, self.attack.path_points
        between = [
            tuple(c + m / n_points * (p - c) for p, c in zip(points, centre, strict=True))
            for m in range(1, n_points)
        ]
        return [*between, points]

    def _loss(self, scores: list[Tensor]) -> Tensor:
        """The objective, averaged over the path; NaN where the example has no ranking to lose."""
        losses = [self._judge(s) for s in scores]
        mean = losses[0] if len(losses) == 1 else torch.stack(losses).mean(dim=0)
        if mean.shape != self.rows.shape:
            raise ValueError(
                f"objective must return one value an example, shape {tuple(self.rows.shape)}, "
                f"got {tuple(mean.shape)}"
            )
        return mean.masked_fill(self._broken[self.rows], float("nan"))

    def _term(self, points: Points) -> Tensor:
        """What a search adds to the objective at points just explained, without graph; (m,)."""
        return torch.zeros_like(self.region.radius)

    def _kept(self, points: Points) -> Tensor:
        """Whether the prediction, and every one of several, is that of the example."""
        if self.attack.preserve_prediction == "none" and not self.with_info:
            return torch.ones_like(self.rows, dtype=torch.bool)
        results = self.scored.results(points, self.attack.predictions)
        labels = tuple(self.attack.decision_func(r) for r in results)
        if not self._labels:
            self._labels, self._results = labels, results
        same = [
            (now == before[self.rows]).reshape(len(now), -1).all(dim=1)
            for now, before in zip(labels, self._labels, strict=True)
        ]
        return torch.stack(same).all(dim=0)

    def _overlap(self, scores: Tensor) -> Tensor | None:
        """How many features of the reference's top k are still among the top k; (m,)."""
        if self._top is None or not (self.with_info or self.attack.keep == "precision"):
            return None
        top = self._top[self.rows]
        is_top = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, top, True)
        return is_top.gather(1, top_k_indices(scores.nan_to_num(), top.shape[1])).sum(dim=1)

    def _merits(self, loss: Tensor, overlap: Tensor | None, allowed: Tensor) -> Tensor:
        """What points are compared by, the first column first; (m, 2), inf where not allowed."""
        first = torch.zeros_like(loss)
        if self.attack.keep == "precision" and overlap is not None:
            first = overlap.to(first)
        return torch.stack([first, loss], dim=1).masked_fill(~allowed[:, None], float("inf"))

    def _note_change(self, step: int, overlap: Tensor | None, allowed: Tensor) -> None:
        if overlap is None or self._top is None or self.first_change_step is None:
            return
        before = self.first_change_step[self.rows]
        changed = allowed & (overlap < self._top.shape[1]) & ~self._broken[self.rows]
        earlier = changed & ((before < 0) | (before > step))
        self.first_change_step[self.rows] = torch.where(earlier, step, before)
