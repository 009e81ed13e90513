"""The base class of searches: the real model scores all points, and the best one is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust._utils.tensors import Points
from captum_robust.ranking import fraction, invalid_rows, top_k_overlap
from captum_robust.robust._search.best import BestPoints
from captum_robust.robust._search.evaluator import Evaluator
from captum_robust.robust._search.limit import NO_LIMIT
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.seeds import OverSeeds
from captum_robust.robust._search.settings import SearchSettings
from captum_robust.robust._search.slopes import Slope
from captum_robust.robust._search.unperturbed import Unperturbed, prepared_objective

__all__ = ["Evaluation", "Search"]

#: From rows of a batch to the evaluator that scores points and the one that gives the gradient.
Evaluators = Callable[[Tensor], tuple[Evaluator, Evaluator]]


class Evaluation(NamedTuple):
    """Result of one evaluation of the examples under search.

    Attributes:
        alive: which examples stay in the search; (m,) bool.
        allowed: which points may be returned; (m,) bool.
        loss: the objective, with its graph if requested; (m,).
        scores: the scores (m, n) at the points of the path, the last of them at the point itself.
        overlap: number of top-k features that are left, if they are counted; (m,).
        maps: the signed maps, if finite differences use them, else empty.
        slope: the gradient of the objective, if a compiled evaluation has computed it.
    """

    alive: Tensor
    allowed: Tensor
    loss: Tensor
    scores: list[Tensor]
    overlap: Tensor | None
    maps: Points
    slope: Slope | None


class Search(ABC):
    """Search one batch and keep the best point of every example.

    A subclass implements :meth:`_descend`, one search from given points. It calls
    :meth:`_consider` on every point that may be returned, for the examples :attr:`rows`, and may
    leave examples out with :meth:`_focus`. Records of examples have the size of the whole batch.

    Args:
        settings: settings of the attack.
        region: the region of the points.
        evaluators: from rows of the batch to two evaluators: the one that scores points, and the
            one whose gradient is followed, which may be of a smoothed network or of a surrogate.
        step_size: length of the first step, (N,).
        step_num: number of steps.
        seed: seed of all random numbers.
        with_info: record flags and predictions, which costs some time.
        with_trace: also record the objective of every step and the first change.
    """

    def __init__(
        self,
        settings: SearchSettings,
        region: Region,
        evaluators: Evaluators,
        step_size: Tensor,
        step_num: int,
        seed: int,
        with_info: bool,
        with_trace: bool,
    ) -> None:
        n_examples, device = len(region.centre[0]), region.centre[0].device
        self.settings = settings
        self.batch = region
        self.step_size = step_size
        self.step_num = step_num
        self.seed = seed
        self.with_info = with_info
        self.with_trace = with_trace
        self.traces: list[list[Tensor]] = []
        #: Why the search was not compiled; None if it was.
        self.not_compiled: str | None = "this search has no compiled form"
        self._started = False
        self.first_change_step: Tensor | None = None
        self.gradient_found = torch.zeros(n_examples, dtype=torch.bool, device=device)
        self.gradient_broken = torch.zeros_like(self.gradient_found)
        self.flips_rejected = torch.zeros_like(self.gradient_found)
        self.done = torch.zeros_like(self.gradient_found)
        self.looked_for_gradient = torch.zeros_like(self.gradient_found)
        self.unperturbed: Unperturbed | None = None
        #: Precision with other seeds, of a random map; set by the attack.
        self.over_seeds: OverSeeds | None = None
        self._readings: tuple[Tensor, ...] = ()
        self._results: tuple[Tensor, ...] = ()
        self._evaluators = evaluators
        #: Attributions before the last change of rows.
        self._spent = torch.zeros(n_examples, dtype=torch.long)
        self._point_at(torch.arange(n_examples, device=device))

    #: What ends the search before its last step.
    limit = NO_LIMIT
    #: The best points so far; set by the first evaluation.
    best: BestPoints
    #: Compiled evaluation: from points to scores, objective and its gradient.
    _compiled: Callable[[Points], tuple[list[Tensor], Tensor, Slope]] | None = None

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
        """Search from ``start``, else from the example or a random point; restart at random points.

        The example itself is evaluated in any case.
        """
        everything = self.rows
        if start is not None or random_start:
            self.traces.append([])
            self._consider(0, self.region.as_inputs(self.region.centre), graph=False)
            self.traces.clear()
        for restart in range(n_restarts):
            self.traces.append([])
            if not self._fixed_batch:
                self._focus(everything[~self.done])
            if len(self.rows) == 0:
                continue
            if restart > 0 or (random_start and start is None):
                points = self.restart_points(restart)
            elif start is None:
                points = self.region.centre
            else:
                points = self.region.nearest(tuple(s[self.rows] for s in start))
            self._descend(points, restart, progress)
        self._focus(everything)

    def restart_points(self, restart: int) -> Points:
        """Return the points from which a restart begins, for the examples :attr:`rows`."""
        return self.region.random_point(self.seed, restart)

    @property
    def n_queries(self) -> Tensor:
        """Number of attributions computed so far for each example; (N,)."""
        own = 0 if self.guide is self.scored else self.guide.n_queries
        spent = self._spent.clone()
        spent[self.rows.cpu()] += self.scored.n_queries + own
        return spent if self.over_seeds is None else spent + self.over_seeds.n_queries

    @property
    def broken(self) -> Tensor:
        """Examples without a ranking; (N,) bool."""
        assert self.unperturbed is not None
        return self.unperturbed.broken

    @property
    def lowest_overlap(self) -> int:
        """Smallest possible overlap of two top-k sets of these features."""
        assert self.unperturbed is not None
        return self.unperturbed.lowest_overlap

    @property
    def best_precision(self) -> Tensor | None:
        """Precision at k of the best points, (N,); NaN without a ranking, None without a k."""
        k = self.settings.k
        if k is None or self.best.overlap is None:
            return None
        precision = fraction(self.best.overlap.to(self.best.loss), k)
        return precision.masked_fill(self.broken, float("nan"))

    @property
    def blind(self) -> bool:
        """Return whether the gradient was zero for every example that has a ranking."""
        in_vain = bool(self.looked_for_gradient.any()) and not bool(self.gradient_found.any())
        return in_vain and not bool(self.broken.all())

    @property
    def concerned(self) -> dict[str, Tensor]:
        """Examples that each flag concerns, (N,) bool."""
        assert self.unperturbed is not None
        ranked = ~self.broken
        n_steps = self.step_num if self.limit.n_steps is None else self.limit.n_steps
        last = (self.best.step == n_steps) & (n_steps > 0)
        return {
            "zero_gradient": self.looked_for_gradient & ~self.gradient_found & ranked,
            "non_finite_gradient": self.gradient_broken & ranked,
            "still_falling": last & ranked,
            "label_flips_rejected": self.flips_rejected & ranked,
            "training_mode": ranked & self.scored.in_training_mode,
            "randomised": ranked & self.scored.is_random,
            "float16_underflow": self.unperturbed.underflow & ranked,
            "tied_reference": self.unperturbed.tied & ranked,
            "unmovable": self.batch.pinned,
        }

    def full_trace(self) -> Tensor:
        """Return the objective of every iterate, (n_restarts, step_num + 1, N)."""
        nothing = torch.full_like(self.best.loss, float("nan"))
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
        self._whole = len(rows) == len(self.done)
        self.region = self.batch if self._whole else self.batch.of(rows)
        self.scored, self.guide = self._evaluators(rows.cpu())
        self._all = torch.ones_like(rows, dtype=torch.bool)
        self._compiled = None
        if self.unperturbed is not None:
            self.scored.map_shapes = self.unperturbed.map_shapes
            self._prepare()

    @property
    def _fixed_batch(self) -> bool:
        """Return whether no example may be left out, since others depend on the batch."""
        return self.settings.compile or self.scored.depends_on_the_batch

    def _mine(self, values: Tensor) -> Tensor:
        """Select from values (N, …) of the whole batch those of the examples under search."""
        return values if self._whole else values[self.rows]

    def _consider(
        self, step: int, points: Points, graph: bool, alive: Tensor | None = None
    ) -> Evaluation:
        """Evaluate points, and keep those that are allowed and better than all before."""
        maps: Points = ()
        slope = None
        if self._compiled is not None:
            scores, loss, slope = self._compiled(points)
        elif self.settings.gradient.keeps == "maps" and self.guide is self.scored:
            maps = as_tuple(self.scored.maps(points, graph=False, abs=False))
            scores = [self.scored.scores_of_signed(maps)]
        else:
            scores = [self.scored.scores(p, graph) for p in self._path(points)]
        here = scores[-1].detach()
        if self.unperturbed is None:
            self._start(here)
        if slope is None:
            loss = self._loss(scores)
        extra = self._term(points)
        loss = loss if extra is None else loss + extra
        kept, mode = self._kept(points), self.settings.mode
        alive = self._all if alive is None else alive
        if mode.ends_at_flip:
            alive = alive & kept
        ranked = ~invalid_rows(here)
        if alive is not self._all:
            ranked = alive & ranked
        allowed = ranked if mode.returns_flipped else ranked & kept
        found, overlap = loss.detach(), self._overlap(here)
        self._keep(step, points, found, overlap, kept, allowed, ranked)
        if self.with_trace:
            self._trace(found)
            self._note_change(step, overlap, allowed)
        return Evaluation(alive, allowed, loss, scores, overlap, maps, slope)

    def _keep(
        self,
        step: int,
        points: Points,
        found: Tensor,
        overlap: Tensor | None,
        kept: Tensor,
        allowed: Tensor,
        ranked: Tensor,
    ) -> None:
        """Keep the points that are allowed and better than the best so far."""
        rows = None if self._whole else self.rows
        if not self._started:
            self.best, self._started = BestPoints(points, found, overlap, kept), True
            return
        counts = overlap if self.settings.keep == "precision" else None
        lower = self.best.beaten_by(rows, found, counts)
        taken = lower & allowed
        if self.with_info:
            self._mark(self.flips_rejected, lower & ranked & ~allowed)
        notes = (kept, step) if self.with_info else None
        self.best.take(rows, taken, points, found, overlap, notes)
        if counts is not None:
            self._mark(self.done, taken & (counts == self.lowest_overlap))

    def _mark(self, marks: Tensor, chosen: Tensor) -> None:
        """Set ``marks`` (N,) for the chosen examples among those under search."""
        if self._whole:
            marks.logical_or_(chosen)
        else:
            marks[self.rows] |= chosen

    def _trace(self, found: Tensor) -> None:
        whole = found.to(self.best.loss)
        if not self._whole:
            whole = torch.full_like(self.best.loss, float("nan")).index_put_((self.rows,), whole)
        self.traces[-1].append(whole)

    def _start(self, scores: Tensor) -> None:
        """Record the scores of the unperturbed examples."""
        self.unperturbed = Unperturbed.of(scores, self.batch, self.scored, self.settings.k)
        if self.unperturbed.top is not None:
            self.first_change_step = torch.full((len(scores),), -1, device=scores.device)
        self._prepare()

    def _prepare(self) -> None:
        """Prepare the objective and the top features of the examples under search."""
        assert self.unperturbed is not None
        reference = self._mine(self.unperturbed.scores)
        self._judge = prepared_objective(self.settings.objective, self.scored, reference)
        if self.unperturbed.top is not None:
            top = self._mine(self.unperturbed.top)
            self._is_top = torch.zeros_like(reference, dtype=torch.bool).scatter_(1, top, True)

    def _path(self, points: Points) -> list[Points]:
        """Return points on the segment from the example to ``points``, which come last."""
        centre, n_points = self.region.centre, self.settings.path_points
        between = [
            tuple(c + m / n_points * (p - c) for p, c in zip(points, centre, strict=True))
            for m in range(1, n_points)
        ]
        return [*between, points]

    def _loss(self, scores: list[Tensor]) -> Tensor:
        """Return the objective, averaged over the path; NaN where the example has no ranking."""
        losses = [self._judge(s) for s in scores]
        mean = losses[0] if len(losses) == 1 else torch.stack(losses).mean(dim=0)
        if mean.shape != self.rows.shape:
            raise ValueError(
                f"objective must return one value per example, shape {tuple(self.rows.shape)}, "
                f"got {tuple(mean.shape)}"
            )
        assert self.unperturbed is not None
        if not self.unperturbed.any_broken:
            return mean
        return mean.masked_fill(self._mine(self.broken), float("nan"))

    def _term(self, points: Points) -> Tensor | None:
        """Return a term that a subclass adds to the objective, without graph; (m,)."""
        return None

    def _kept(self, points: Points) -> Tensor:
        """Return whether all predictions are those of the example; (m,)."""
        if self.settings.mode.returns_flipped and not self.with_info:
            return self._all
        decision, results = self.settings.decision, self._results_at(points)
        readings = tuple(map(decision.read, results))
        if not self._readings:
            self._readings, self._results = readings, results
        kept = None
        for now, before in zip(readings, self._readings, strict=True):
            same = decision.agree(now, self._mine(before))
            kept = same if kept is None else kept & same
        assert kept is not None
        return kept

    def _results_at(self, points: Points, graph: bool = False) -> tuple[Tensor, ...]:
        """Return the results whose prediction counts, (m, …) each."""
        settings = self.settings
        return self.scored.results(points, settings.predictions, settings.decision, graph)

    def _overlap(self, scores: Tensor) -> Tensor | None:
        """Return the number of the reference's top-k features that are still in the top k; (m,)."""
        k = self.settings.k
        if k is None or not (self.with_info or self.settings.keep == "precision"):
            return None
        return top_k_overlap(scores, self._is_top, k)

    def _merits(self, loss: Tensor, overlap: Tensor | None, allowed: Tensor) -> Tensor:
        """Return what points are compared by, column by column; (m, 2), inf where not allowed."""
        first = torch.zeros_like(loss)
        if self.settings.keep == "precision" and overlap is not None:
            first = overlap.to(first)
        return torch.stack([first, loss], dim=1).masked_fill(~allowed[:, None], float("inf"))

    def _note_change(self, step: int, overlap: Tensor | None, allowed: Tensor) -> None:
        if overlap is None or self.settings.k is None or self.first_change_step is None:
            return
        before = self._mine(self.first_change_step)
        changed = allowed & (overlap < self.settings.k) & ((before < 0) | (before > step))
        changed = changed & ~self._mine(self.broken)
        if self._whole:
            self.first_change_step = torch.where(changed, step, before)
        else:
            self.first_change_step[self.rows] = torch.where(changed, step, before)
