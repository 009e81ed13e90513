"""The search of the multi-objective attack: common descent of all gaps by Armijo's rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.prediction import class_probabilities
from captum_robust._utils.tensors import Points, flatten, per_example, unflatten, wide_dtype
from captum_robust.ranking import pair_features
from captum_robust.robust._search.common_descent import (
    ActiveConstraints,
    common_descent,
    lengths_in,
)
from captum_robust.robust._search.descent import Descent
from captum_robust.robust._search.gradients import Here
from captum_robust.robust._search.search import Evaluation
from captum_robust.robust._search.slopes import as_rows
from captum_robust.robust.objectives import RankingObjective

__all__ = ["ParetoDescent"]

_N_HALVINGS = 24
# A prediction that has used this fraction of its tolerance is an objective of the next step too.
_NEAR = 0.9


class _Values(NamedTuple):
    """The gaps (m, Q) at some points, and how far outputs exceed their tolerance (m, E)."""

    gaps: Tensor
    excess: Tensor


class ParetoDescent(Descent):
    """Common descent of the gaps of the attacked pairs, each example until it is critical."""

    def __init__(
        self, *common: Any, armijo: float, tolerance: float, output_tolerance: float | None
    ) -> None:
        super().__init__(*common)
        self.armijo = armijo
        self.tolerance = tolerance
        self.output_tolerance = output_tolerance
        self.lengths: dict[int, Tensor] = {}
        self.critical: dict[int, Tensor] = {}
        self._pairs: tuple[Tensor, Tensor] | None = None

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        self.start_records(restart)
        self._begin(restart)
        alive = self._all
        longest = torch.full(alive.shape, float("inf"), dtype=torch.double, device=alive.device)
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num
            here = self._consider(step, leaves, self._shares_graph and more, alive)
            alive = here.alive & ~self._mine(self.broken)
            if not more or not bool(alive.any()):
                break
            self._smooth_beta = self.guide.smooth_beta = self.settings.beta(step, self.step_num)
            found = self.settings.gradient.measure(self._here(leaves, here))
            values = _Values(torch.stack(found.values, dim=1), self._stacked(found.of_results))
            slopes = [*found.slopes, *found.slopes_of_results]
            gradients = as_rows(slopes)
            self._note_gradient(tuple(part for s in slopes for part in s.direction))
            direction = self._direction(points, gradients, values)
            alive = alive & ~self._record(step, restart, direction, gradients, alive)
            points, rate = self._line_search(
                points, leaves, direction, gradients, values, alive, here.allowed, longest
            )
            moved = rate > 0
            # Other random probes may find a descent where the last ones did not.
            alive = alive & (moved | self.settings.gradient.random) & ~self._mine(self.done)
            longest = torch.where(moved, 2 * rate, float("inf"))
            progress()
            if not bool(alive.any()):
                break
            if not (bool(alive.all()) or self.scored.depends_on_the_batch):
                points, longest = tuple(p[alive] for p in points), longest[alive]
                self._leave_out(~alive)
                alive = self._all

    def _here(self, leaves: Points, here: Evaluation) -> Here:
        # The slopes of several gaps are compared, so each keeps its full range.
        return super()._here(leaves, here)._replace(values=None, plain=False, wants_values=True)

    def _stacked(self, excess: list[Tensor]) -> Tensor:
        """Stack the excess of each output as a column; (m, E)."""
        return (
            torch.stack(excess, dim=1)
            if excess
            else self._all.new_zeros(len(self.rows), 0).double()
        )

    def _of_scores(self, scores: list[Tensor]) -> list[Tensor]:
        """Return the gaps of the attacked pairs, (m,) each."""
        return list(self._gaps(scores).unbind(dim=1))

    def _gaps(self, scores: list[Tensor]) -> Tensor:
        """Return the gaps of the attacked pairs, averaged over the path; (m, Q)."""
        if self._pairs is None:
            objective = self.settings.objective
            assert isinstance(objective, RankingObjective) and self.unperturbed is not None
            reference = self.unperturbed.scores
            k, n_pairs = objective.k, objective.k_prime
            ranked = pair_features(reference, k, "mm", n_pairs)
            lower = ranked[:, k:]
            self._pairs = ranked[:, :k].flip(1)[:, : lower.shape[1]], lower
        upper, lower = (self._mine(features) for features in self._pairs)
        return torch.stack([s.gather(1, upper) - s.gather(1, lower) for s in scores]).mean(dim=0)

    def _violations(self, points: Points, graph: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Return results of the real model and their excess over the tolerance, (m,) each."""
        if self.output_tolerance is None:
            return [], []
        results = self._results_at(points, graph)
        excess: list[Tensor] = []
        for now, before in zip(results, self._results, strict=True):
            probabilities = (class_probabilities(o.double()) for o in (now, self._mine(before)))
            change = torch.sub(*probabilities).norm(dim=1)
            columns = change.reshape(len(change), -1) - self.output_tolerance
            excess += columns.unbind(dim=1)
        return list(results), excess

    def _kept(self, points: Points) -> Tensor:
        if self.output_tolerance is not None and not self._results:
            # The first points evaluated are the examples.
            self._results = self._results_at(points)
        return super()._kept(points)

    def _direction(self, points: Points, gradients: Tensor, values: _Values) -> Tensor:
        idle = values.excess < (_NEAR - 1) * (self.output_tolerance or 0.0)
        left_out = torch.cat([torch.zeros_like(values.gaps, dtype=torch.bool), idle], dim=1)
        return common_descent(gradients, ActiveConstraints.at(self.region, points), left_out)

    def _line_search(
        self,
        points: Points,
        leaves: Points,
        direction: Tensor,
        gradients: Tensor,
        values: _Values,
        alive: Tensor,
        allowed: Tensor,
        longest: Tensor,
    ) -> tuple[Points, Tensor]:
        """Return the points that Armijo's rule accepts, and their rates; 0 where there are none."""
        here, steps = self.rows, unflatten(direction, points)
        first = self.step_size[here].double() / lengths_in(self.region, steps).clamp_min(1e-300)
        rate, found = torch.minimum(first, longest), torch.zeros_like(longest)
        pending = alive.clone()
        ahead = tuple(p.to(wide_dtype(p), copy=True) for p in points)
        for _ in range(_N_HALVINGS):
            if not bool(pending.any()):
                break
            part = torch.arange(len(here), device=here.device)
            if not self.scored.depends_on_the_batch:
                part = part[pending]
            self._focus(here[part])
            self.guide.smooth_beta = self._smooth_beta
            trial = self.region.nearest(
                tuple(
                    p[part] + (per_example(rate[part], s) * s[part]).to(p)
                    for p, s in zip(points, steps, strict=True)
                )
            )
            ends = self.region.as_inputs(trial)
            shift = flatten(ends).double() - flatten(tuple(p[part] for p in leaves)).double()
            slopes = (gradients[part] @ shift[:, :, None])[:, :, 0].clamp_max(0)
            before = _Values(values.gaps[part], values.excess[part])
            granted = pending[part] & (shift != 0).any(dim=1) & self._granted(before, ends, slopes)
            if not (self.settings.mode.returns_flipped or self.settings.mode.ends_at_flip):
                granted &= self._kept(ends) | ~allowed[part]
            rows = part[granted]
            for a, t in zip(ahead, trial, strict=True):
                a[rows] = t[granted]
            found[rows] = rate[rows]
            pending[rows] = False
            rate = rate / 2
        self._focus(here)
        return ahead, found

    def _granted(self, before: _Values, ends: Points, slopes: Tensor) -> Tensor:
        """Return whether every gap falls by a fraction of its slope, and no merit rises."""
        n_gaps, armijo = before.gaps.shape[1], self.armijo
        gaps = self._gaps(self._guide_scores(ends, graph=False))
        falls = gaps - before.gaps <= armijo * slopes[:, :n_gaps]
        merit = before.excess + armijo * slopes[:, n_gaps:]
        excess = self._stacked(self._violations(ends, graph=False)[1])
        within = excess <= torch.where(before.excess > 0, merit, 0)
        return falls.all(dim=1) & within.all(dim=1)

    def start_records(self, restart: int) -> None:
        """Create the records of a restart, as of examples that are not searched in it."""
        n_examples, device = len(self.done), self.done.device
        self.lengths[restart] = torch.full((self.step_num, n_examples), float("nan"), device=device)
        self.critical[restart] = torch.zeros_like(self.done)

    def _record(
        self, step: int, restart: int, direction: Tensor, gradients: Tensor, alive: Tensor
    ) -> Tensor:
        """Record lengths of the directions, and return which examples are at a critical point."""
        length = direction.norm(dim=1)
        longest = gradients.norm(dim=2).amax(dim=1)
        critical: Tensor = alive & (length <= self.tolerance * longest)
        rows = self.rows[alive]
        self.lengths[restart][step, rows] = length[alive].to(self.lengths[restart])
        self.critical[restart][self.rows] |= critical
        return critical
