"""The search of the multi-objective attack: common descent of all gaps by Armijo's rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust._utils.checks import wide_dtype
from captum_robust._utils.prediction import class_probabilities
from captum_robust.ranking import pair_features
from captum_robust.robust._search.common_descent import Walls, as_steps, common_descent, lengths_in
from captum_robust.robust._search.descent import Descent
from captum_robust.robust._search.gradients import (
    Slope,
    as_rows,
    autograd_gradient,
    finite_difference_gradient,
    spsa_gradient,
)
from captum_robust.robust._search.region import per_example
from captum_robust.robust._search.search import Look, Points
from captum_robust.robust.objectives import RankingObjective

if TYPE_CHECKING:
    from captum_robust.robust.pareto import ParetoERAttack

__all__ = ["ParetoDescent"]

_N_HALVINGS = 24
# A prediction that has used this share of its tolerance is an objective of the next step as well.
_NEAR = 0.9


class _Values(NamedTuple):
    """The gaps (m, Q) at some points, and how far outputs exceed their tolerance (m, E)."""

    gaps: Tensor
    excess: Tensor


class ParetoDescent(Descent):
    """Common descent of the gaps of the attacked pairs, each example until it is critical."""

    attack: ParetoERAttack

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.lengths: dict[int, Tensor] = {}
        self.critical: dict[int, Tensor] = {}
        self._pairs: tuple[Tensor, Tensor] | None = None

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        self.start_records(restart)
        own = self.guide is self.scored and self.attack.gradient == "autograd"
        if self.attack.gradient == "spsa":
            self._generators = self.region.generators(self.seed, 1 + restart)
        alive = torch.ones_like(self.rows, dtype=torch.bool)
        longest = torch.full(alive.shape, float("inf"), dtype=torch.double, device=alive.device)
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num
            look = self._consider(step, leaves, own and more, alive)
            alive = look.alive & ~self.broken[self.rows]
            if not more or not bool(alive.any()):
                break
            self._smooth_beta = self.guide.smooth_beta = self._beta(step)
            values, slopes = self._slopes_of_all(leaves, look)
            gradients = as_rows(slopes)
            self._note_gradient(tuple(part for s in slopes for part in s.direction))
            direction = self._direction(points, gradients, values)
            alive = alive & ~self._record(step, restart, direction, gradients, alive)
            points, rate = self._line_search(
                points, leaves, direction, gradients, values, alive, look.allowed, longest
            )
            moved = rate > 0
            alive = alive & (moved | (self.attack.gradient == "spsa")) & ~self.done[self.rows]
            longest = torch.where(moved, 2 * rate, float("inf"))
            progress()
            if not bool(alive.any()):
                break
            if not (bool(alive.all()) or self.scored.depends_on_the_batch):
                points, longest = tuple(p[alive] for p in points), longest[alive]
                if self.attack.gradient == "spsa":
                    self._generators = [self._generators[i] for i in alive.nonzero()[:, 0]]
                self._focus(self.rows[alive])
                alive = torch.ones_like(self.rows, dtype=torch.bool)

    def _slopes_of_all(self, leaves: Points, look: Look) -> tuple[_Values, list[Slope]]:
        """The gaps at an iterate and their gradients; then those of what exceeds its tolerance."""
        attack, radius, norm = self.attack, self.region.radius, self.region.norm
        own = self.guide is self.scored
        if attack.gradient == "spsa":
            scores = look.scores if own else self._guide_scores(leaves, graph=False)
            values = _Values(self._gaps(scores), self._excess(leaves)[1])
            slopes = spsa_gradient(
                self._values, leaves, radius, norm, attack.n_directions, self._generators
            )
            return values, slopes
        results, excess = self._excess(leaves, graph=True)
        if attack.gradient == "finite_difference":
            maps = look.maps or as_tuple(self.guide.maps(leaves, graph=False, abs=False))
            gaps = self._gaps([self.guide.scores_of_signed(maps)])
            slopes = [
                finite_difference_gradient(
                    self.guide, maps, self._gap_number(q), leaves, radius, norm, attack.probe
                )
                for q in range(gaps.shape[1])
            ]  # fmt: skip
        else:
            scores = look.scores if own else self._guide_scores(leaves, graph=True)
            gaps = self._gaps(scores)
            slopes = [autograd_gradient(g, scores, leaves, True) for g in gaps.unbind(dim=1)]
        slopes += [autograd_gradient(e, results, leaves, True) for e in excess.unbind(dim=1)]
        return _Values(gaps.detach(), excess.detach()), slopes

    def _gaps(self, scores: list[Tensor]) -> Tensor:
        """The gaps of the attacked pairs, averaged over the path; (m, Q)."""
        if self._pairs is None:
            objective, reference = self.attack.objective, self._reference
            assert isinstance(objective, RankingObjective) and reference is not None
            k, n_pairs = objective.k, objective.k_prime
            ranked = pair_features(reference, k, "mm", n_pairs)
            lower = ranked[:, k:]
            self._pairs = ranked[:, :k].flip(1)[:, : lower.shape[1]], lower
        upper, lower = (features[self.rows] for features in self._pairs)
        return torch.stack([s.gather(1, upper) - s.gather(1, lower) for s in scores]).mean(dim=0)

    def _gap_number(self, q: int) -> Callable[[Tensor], Tensor]:
        return lambda scores: self._gaps([scores])[:, q]

    def _excess(self, points: Points, graph: bool = False) -> tuple[list[Tensor], Tensor]:
        """Results of the real model, and by how much they exceed the tolerance; (m, E)."""
        tolerance = self.attack.output_tolerance
        if tolerance is None:
            return [], self.region.radius.new_zeros(len(self.rows), 0)
        results = self.scored.results(points, self.attack.predictions, graph)
        excess = []
        for now, before in zip(results, self._results, strict=True):
            probabilities = (class_probabilities(o.double()) for o in (now, before[self.rows]))
            change = torch.sub(*probabilities).norm(dim=1)
            excess.append(change.reshape(len(change), -1) - tolerance)
        return list(results), torch.cat(excess, dim=1)

    def _kept(self, points: Points) -> Tensor:
        if self.attack.output_tolerance is not None and not self._results:
            # The first points are the examples.
            self._results = self.scored.results(points, self.attack.predictions)
        return super()._kept(points)

    def _values(self, points: Points) -> Tensor:
        """The gaps and what exceeds the tolerance, side by side; (m, Q + E)."""
        gaps = self._gaps(self._guide_scores(points, graph=False))
        return torch.cat([gaps, self._excess(points)[1].to(gaps)], dim=1)

    def _direction(self, points: Points, gradients: Tensor, values: _Values) -> Tensor:
        tolerance = self.attack.output_tolerance or 0.0
        idle = values.excess < (_NEAR - 1) * tolerance
        left_out = torch.cat([torch.zeros_like(values.gaps, dtype=torch.bool), idle], dim=1)
        return common_descent(gradients, Walls.at(self.region, points), left_out)

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
        """The points that Armijo's rule grants, and the rates that led there; 0 where none does."""
        here, steps = self.rows, as_steps(direction, points)
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
            shift = _rows(ends) - _rows(tuple(p[part] for p in leaves))
            slopes = (gradients[part] @ shift[:, :, None])[:, :, 0].clamp_max(0)
            before = _Values(values.gaps[part], values.excess[part])
            granted = pending[part] & (shift != 0).any(dim=1) & self._granted(before, ends, slopes)
            if self.attack.preserve_prediction == "reject":
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
        """Whether every gap falls by a share of what its slope promises, and no merit rises."""
        n_gaps, armijo = before.gaps.shape[1], self.attack.armijo
        gaps = self._gaps(self._guide_scores(ends, graph=False))
        falls = gaps - before.gaps <= armijo * slopes[:, :n_gaps]
        merit = before.excess + armijo * slopes[:, n_gaps:]
        within = self._excess(ends)[1] <= torch.where(before.excess > 0, merit, 0)
        return falls.all(dim=1) & within.all(dim=1)

    def start_records(self, restart: int) -> None:
        """Nothing found yet: an example without a search in this restart."""
        n_examples, device = len(self.done), self.done.device
        self.lengths[restart] = torch.full((self.step_num, n_examples), float("nan"), device=device)
        self.critical[restart] = torch.zeros_like(self.done)

    def _record(
        self, step: int, restart: int, direction: Tensor, gradients: Tensor, alive: Tensor
    ) -> Tensor:
        """Which examples are at a critical point."""
        length = direction.norm(dim=1)
        longest = gradients.norm(dim=2).amax(dim=1)
        critical: Tensor = alive & (length <= self.attack.tolerance * longest)
        rows = self.rows[alive]
        self.lengths[restart][step, rows] = length[alive].to(self.lengths[restart])
        self.critical[restart][self.rows] |= critical
        return critical


def _rows(points: Points) -> Tensor:
    rows: Tensor = torch.cat([p.detach().flatten(1) for p in points], dim=1).double()
    return rows
