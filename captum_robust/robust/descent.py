"""The projected loop: steps along a gradient, from the starts to the best points found."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from captum_robust._captum import as_tuple
from captum_robust.robust.gradients import (
    autograd_gradient,
    finite_difference_gradient,
    spsa_gradient,
)
from captum_robust.robust.search import Look, Points, Search
from captum_robust.robust.steps import ConstantSteps, HalvingSteps

__all__ = ["Descent", "Gradient"]

Gradient = Literal["autograd", "finite_difference", "spsa"]


class Descent(Search):
    """Projected descent of the objective.

    Where the lowest precision counts (``keep="precision"``), examples that can get no worse, and
    those that no longer move, are left out of the batch: they cost nothing further.
    """

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        attack = self.attack
        own = self.guide is self.scored and attack.gradient == "autograd"
        if attack.gradient == "spsa":
            self._generators = self.region.generators(self.seed, 1 + restart)
        size = self.step_size[self.rows]
        steps: ConstantSteps | HalvingSteps = ConstantSteps(size)
        if attack.step_rule == "halving":
            steps = HalvingSteps(size, self.step_num)
        alive = torch.ones_like(self.rows, dtype=torch.bool)
        stood = torch.zeros_like(alive)
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num
            look = self._consider(step, leaves, own and more, alive)
            alive = look.alive
            if not more or not bool(alive.any()):
                break
            self.guide.smooth_beta = self._beta(step)
            gradients = self._gradient(leaves, look)
            self._note_gradient(gradients)
            ahead = steps.next(self.region, points, gradients, look.loss.detach(), look.allowed)
            stands = _equal(ahead, points)
            points = ahead
            if attack.keep == "precision":
                on = alive & ~self.done[self.rows] & ~(stood & stands)
                if not bool(on.any()):
                    break
                if not bool(on.all()):
                    steps, points = steps.of(on), tuple(p[on] for p in points)
                    alive, stands = alive[on], stands[on]
                    if attack.gradient == "spsa":
                        self._generators = [self._generators[i] for i in on.nonzero()[:, 0]]
                    self._focus(self.rows[on])
            stood = stands
            progress()

    def _beta(self, step: int) -> float | None:
        """Sharpness of the smoothed stand-in: one for all steps, or growing geometrically."""
        beta = self.attack.smooth_relu
        if not isinstance(beta, tuple):
            return beta
        first, last = beta
        return float(first * (last / first) ** (step / max(1, self.step_num - 1)))

    def _note_gradient(self, gradients: Points) -> None:
        flat = torch.cat([g.flatten(1) for g in gradients], dim=1)
        self._looked_for_gradient |= bool((self.region.radius > 0).any())
        self.gradient_found[self.rows] |= (torch.nan_to_num(flat) != 0).any(dim=1)
        self.gradient_broken[self.rows] |= ~torch.isfinite(flat).all(dim=1)

    def _gradient(self, leaves: Points, look: Look) -> Points:
        attack, radius, norm = self.attack, self.region.radius, self.region.norm
        if attack.gradient == "finite_difference":
            maps = look.maps or as_tuple(self.guide.maps(leaves, graph=False, abs=False))
            return finite_difference_gradient(
                self.guide, maps, lambda scores: self._loss([scores]), leaves, radius, norm,
                attack.probe,
            )  # fmt: skip
        if attack.gradient == "spsa":
            return spsa_gradient(
                lambda points: self._loss(self._guide_scores(points, graph=False)),
                leaves, radius, norm, attack.n_directions, self._generators,
            )  # fmt: skip
        if self.guide is self.scored:
            return autograd_gradient(look.loss, look.scores, leaves)
        scores = self._guide_scores(leaves, graph=True)
        return autograd_gradient(self._loss(scores), scores, leaves)

    def _guide_scores(self, points: Points, graph: bool) -> list[Tensor]:
        return [self.guide.scores(p, graph) for p in self._path(points)]


def _equal(points: Points, others: Points) -> Tensor:
    """Which examples stand where they stood; (N,) bool."""
    same = [(p == q).flatten(1).all(dim=1) for p, q in zip(points, others, strict=True)]
    return torch.stack(same).all(dim=0)
