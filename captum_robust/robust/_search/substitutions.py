"""The search for substitutions: candidates by the gradient, the best ones by evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, flatten, unflatten
from captum_robust.ranking import invalid_rows, ranking
from captum_robust.robust._search.best import better
from captum_robust.robust._search.candidates import CandidateValues, rows_of
from captum_robust.robust._search.descent import Descent

__all__ = ["SubstitutionSearch"]


class _Beam(NamedTuple):
    """One partial result of every example."""

    points: Points
    exists: Tensor  #: (m,) bool
    key: Tensor  #: number of the set of its substitutions, whatever their order; (m,) int64


class _Proposals(NamedTuple):
    """Substitutions of every example, of which some may be impossible."""

    moves: Tensor  #: (m, c)
    possible: Tensor  #: (m, c) bool


class SubstitutionSearch(Descent):
    """Beam search: substitute one position per step, and go on from the best results.

    Args:
        *common: as for every search; the radius of the region is set by the candidates.
        candidates: from rows of the whole batch to their candidates.
        n_candidates: number of substitutions that are evaluated per step and beam.
        beam_width: number of results from which the search goes on.
        at_random: propose random substitutions instead of those of the gradient.
        max_queries: attributions per example at which the search stops; None for no limit.
    """

    def __init__(
        self,
        *common: Any,
        candidates: CandidateValues,
        n_candidates: int,
        beam_width: int,
        at_random: bool,
        max_queries: int | None,
    ) -> None:
        settings, region, *others = common
        # The radius that holds every substitution: probes of the gradient are a part of it.
        radius = candidates.largest_change(rows_of(region.centre)).to(region.radius)
        super().__init__(settings, replace(region, radius=radius), *others)
        self.candidates = candidates
        self.n_candidates = n_candidates
        self.beam_width = beam_width
        self.at_random = at_random
        self.max_queries = max_queries

    def restart_points(self, restart: int) -> Points:
        """Return the examples: restarts differ by their first substitution, which is random."""
        return self.region.centre

    def _begin(self, restart: int) -> None:
        super()._begin(restart)
        if not self._generators:
            self._generators = self.region.generators(self.seed, 1 + restart)

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        self._begin(restart)
        beams = [_Beam(points, self._all, torch.zeros_like(self.rows))]
        for step in range(self.step_num + 1):
            at_random = self.at_random or (restart > 0 and step == 0)
            n_evaluated = self._affordable(len(beams), at_random)
            more = step < self.step_num and n_evaluated > 0
            differentiates = more and not at_random
            self.guide.smooth_beta = self.settings.beta(step, self.step_num)
            proposed = [
                self._propose(b, step, n_evaluated, at_random, differentiates, first=not number)
                for number, b in enumerate(beams)
            ]
            if not more:
                break
            on = ~self._mine(self.done)
            if not bool(on.any()):
                break
            kept = self._only(on)
            beams = [_rows_of_beam(b, kept) for b in beams]
            proposed = [_Proposals(p.moves[kept], p.possible[kept]) for p in proposed]
            beams = self._best_of(beams, proposed)
            on = torch.stack([b.exists for b in beams]).any(dim=0)
            if not bool(on.any()):
                break
            kept = self._only(on)
            beams = [_rows_of_beam(b, kept) for b in beams]
            progress()

    def _affordable(self, n_beams: int, at_random: bool) -> int:
        """Return how many substitutions per beam can be evaluated within the budget of queries."""
        if self.max_queries is None:
            return self.n_candidates
        guided = self.guide is not self.scored
        cost = 0 if at_random else self.settings.gradient.cost + guided
        spent = int(self.n_queries[self.rows.cpu()].max())
        # A beam is evaluated once more as the start of the next step.
        left = self.max_queries - spent - n_beams * (1 + cost) - self.beam_width
        return max(0, min(self.n_candidates, left // n_beams))

    def _only(self, on: Tensor) -> Tensor:
        """Continue for some examples, or for all where the others influence their attributions."""
        if bool(on.all()) or self._fixed_batch:
            return torch.ones_like(on)
        self._leave_out(~on)
        return on

    def _propose(
        self, beam: _Beam, step: int, n: int, at_random: bool, differentiates: bool, first: bool
    ) -> _Proposals:
        """Consider the points of a beam, and return up to n substitutions of each."""
        leaves = self.region.as_inputs(beam.points)
        here = self._consider(step, leaves, self._shares_graph and differentiates, beam.exists)
        if not first and self.with_trace:
            self._merge_traces()
        if n == 0:
            none = self.rows.new_zeros(len(self.rows), 0)
            return _Proposals(none, none.bool())
        rows = rows_of(beam.points)
        possible = self._candidates().possible(rows, self._closed(rows))
        if differentiates:
            gradient = rows_of(self._gradient(leaves, here))
            promised = -self._candidates().promises(rows, gradient).nan_to_num(0.0)
            blind = (gradient.nan_to_num(0.0) == 0).all(dim=1)
        else:
            promised = torch.zeros_like(possible, dtype=rows.dtype)
            blind = torch.ones_like(self._all)
        for row in blind.nonzero()[:, 0].tolist():
            promised[row] = torch.rand(
                promised.shape[1], generator=self._generators[row], dtype=torch.float64
            )
        promised = promised.masked_fill(~possible, float("-inf"))
        moves = ranking(promised, min(n, promised.shape[1]))
        return _Proposals(moves, possible.gather(1, moves))

    def _merge_traces(self) -> None:
        """Record the lowest objective of all beams as that of the step."""
        last = self.traces[-1].pop()
        self.traces[-1][-1] = torch.fmin(self.traces[-1][-1], last)

    def _candidates(self) -> CandidateValues:
        return self.candidates if self._whole else self.candidates.of(self.rows)

    def _closed(self, rows: Tensor) -> Tensor:
        """Return the positions that must not change: masked, and already substituted ones."""
        closed = self._candidates().changed(rows, rows_of(self.region.centre))
        if self.region.mask is None:
            return closed
        excluded = flatten(tuple(~m for m in self.region.mask)).to(rows)
        return closed | (self._candidates().at(excluded) > 0).any(dim=2)

    def _best_of(self, beams: list[_Beam], proposed: list[_Proposals]) -> list[_Beam]:
        """Evaluate the proposed substitutions of all beams, and return the best results."""
        merits, keys, moves, parents = [], [], [], []
        for number, (beam, proposals) in enumerate(zip(beams, proposed, strict=True)):
            for move, found in self._evaluated(beam, proposals):
                merits.append(found)
                keys.append(beam.key + _mixed(move))
                moves.append(move)
                parents.append(torch.full_like(move, number))
        n_best = min(self.beam_width, len(merits))
        found, key = torch.stack(merits, dim=1), torch.stack(keys, dim=1)
        move, parent = torch.stack(moves, dim=1), torch.stack(parents, dim=1)
        rows, best = torch.stack([rows_of(b.points) for b in beams], dim=1), []
        every = torch.arange(len(found), device=found.device)
        for _ in range(n_best):
            chosen = _lowest(found)
            exists = found[every, chosen, 0].isfinite()
            after = self._candidates().substituted(
                rows[every, parent[every, chosen]], move[every, chosen]
            )
            best.append(_Beam(self._as_points(after), exists, key[every, chosen]))
            same = key == key[every, chosen][:, None]  # the same set in another order
            found = found.masked_fill(same[:, :, None], float("inf"))
        return best

    def _evaluated(self, beam: _Beam, proposals: _Proposals) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each of the substitutions (m,) with its merits, (m, 2)."""
        rows = rows_of(beam.points)
        for move, possible in zip(*(p.unbind(dim=1) for p in proposals), strict=True):
            points = self._as_points(self._candidates().substituted(rows, move))
            excluded = ~(possible & beam.exists)
            found = self._merits_at(points)
            yield move, found.masked_fill(excluded[:, None], float("inf"))

    def _as_points(self, rows: Tensor) -> Points:
        centre = self.region.centre
        return tuple(f.to(c) for f, c in zip(unflatten(rows, centre), centre, strict=True))

    def _merits_at(self, points: Points) -> Tensor:
        """Return the merits of points on the real model, (m, 2); inf for another prediction."""
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


def _rows_of_beam(beam: _Beam, on: Tensor) -> _Beam:
    return _Beam(tuple(p[on] for p in beam.points), beam.exists[on], beam.key[on])


def _lowest(merits: Tensor) -> Tensor:
    """Return the index of the lowest of merits (m, c, 2), by the first column first; (m,)."""
    first = merits[:, :, 0]
    is_least = first == first.amin(dim=1, keepdim=True)
    return merits[:, :, 1].masked_fill(~is_least, float("inf")).argmin(dim=1)


def _mixed(moves: Tensor) -> Tensor:
    """Return pseudorandom numbers of substitutions, whose sums tell sets of them apart."""
    mixed = (moves + 1) * -7046029254386353131
    mixed = (mixed ^ (mixed >> 29)) * -4658895280553007687
    return mixed ^ (mixed >> 32)
