"""The projected loop: steps along a gradient, from the starts to the best points found."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust.robust._search.gradients import (
    Slope,
    autograd_gradient,
    finite_difference_gradient,
    spsa_gradient,
)
from captum_robust.robust._search.search import Look, Points, Search
from captum_robust.robust._search.steps import ConstantSteps, HalvingSteps
from captum_robust.robust.constraints import Lagrangian, violations_of

__all__ = ["Descent", "Gradient"]

Gradient = Literal["autograd", "finite_difference", "spsa"]


class Descent(Search):
    """Projected descent of the objective.

    Where the lowest precision counts (``keep="precision"``), examples that can get no worse, and
    those that no longer move, are left out of the batch: they cost nothing further. Not where the
    attribution draws random numbers for a whole batch, which would change with it.
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
            if step == 0:
                self._lagrangian = self._equal_weights()
            self.guide.smooth_beta = self._beta(step)
            gradients = self._gradient(leaves, look)
            ahead = steps.next(self.region, points, gradients, look.loss.detach(), look.allowed)
            stands = _equal(ahead, points)
            points = ahead
            if attack.keep == "precision":
                on = alive & ~self.done[self.rows] & ~(stood & stands)
                if not bool(on.any()):
                    break
                if not (bool(on.all()) or self.scored.depends_on_the_batch):
                    steps, points = steps.of(on), tuple(p[on] for p in points)
                    alive, stands = alive[on], stands[on]
                    if self._lagrangian is not None:
                        self._lagrangian = self._lagrangian.of(on)
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
        self.looked_for_gradient[self.rows] |= self.region.radius > 0
        largest = flat.abs().amax(dim=1)
        broken, found = ~torch.isfinite(largest), largest > 0
        if bool(broken.any()):  # beside a NaN there may be something
            found = (torch.nan_to_num(flat) != 0).any(dim=1)
        self.gradient_found[self.rows] |= found
        self.gradient_broken[self.rows] |= broken

    def _gradient(self, leaves: Points, look: Look) -> Points:
        """The direction of the gradient: of the objective, or of its Lagrangian."""
        results, violations = self._violations(leaves)
        of_constraints = []
        if self.attack.gradient != "spsa":  # before the graph of the objective, if shared, is gone
            of_constraints = [
                autograd_gradient(v, results, leaves, retain_graph=True)
                for v in violations.unbind(dim=1)
            ]
        slopes = [*self._slopes(leaves, look), *of_constraints]
        self._note_gradient(slopes[0].direction)
        if self._lagrangian is None:
            return slopes[0].direction
        assert self._reference is not None
        progress = look.loss.detach() - self._loss([self._reference[self.rows]])
        return self._lagrangian.gradient(self.region, progress, violations.detach(), slopes)

    def _slopes(self, leaves: Points, look: Look) -> list[Slope]:
        """The gradient of the objective; of probes those of the constraints as well."""
        attack, radius, norm = self.attack, self.region.radius, self.region.norm
        if attack.gradient == "finite_difference":
            maps = look.maps or as_tuple(self.guide.maps(leaves, graph=False, abs=False))
            return [
                finite_difference_gradient(
                    self.guide, maps, lambda scores: self._loss([scores]), leaves, radius, norm,
                    attack.probe,
                )
            ]  # fmt: skip
        if attack.gradient == "spsa":
            return spsa_gradient(
                self._values, leaves, radius, norm, attack.n_directions, self._generators
            )
        if self.guide is self.scored:
            return [autograd_gradient(look.loss, look.scores, leaves)]
        scores = self._guide_scores(leaves, graph=True)
        return [autograd_gradient(self._loss(scores), scores, leaves)]

    def _values(self, points: Points) -> Tensor:
        """The objective, and the constraints if there are soft ones; (m, 1 + K)."""
        loss = self._loss(self._guide_scores(points, graph=False))[:, None]
        return torch.cat([loss, self._violations(points)[1].to(loss)], dim=1)

    def _violations(self, points: Points) -> tuple[list[Tensor], Tensor]:
        """Results of the real model and how far they violate each soft constraint, (m, K)."""
        if self._lagrangian is None:
            return [], self.region.radius.new_zeros(len(self.rows), 0)
        attack = self.attack
        results = self.scored.results(points, attack.predictions, attack.gradient != "spsa")
        values = self._violated(results, tuple(r[self.rows] for r in self._results))
        if attack.gradient != "spsa" and not values.requires_grad:
            raise ValueError(
                f"preserve_prediction={attack.preserve_prediction!r} needs outputs and a "
                "constraint with a gradient, got none; use gradient='spsa', or 'reject'"
            )
        return list(results), values

    def _violated(self, results: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> Tensor:
        """How far results violate the constraints on each of K predictions; (m, K)."""
        each = zip(results, before, strict=True)
        return torch.cat([violations_of(self.attack.constraint, *pair) for pair in each], dim=1)

    def _equal_weights(self) -> Lagrangian | None:
        """The Lagrangian that a search starts with, if the constraints are soft."""
        attack = self.attack
        if attack.preserve_prediction in ("reject", "early_stop", "none"):
            return None
        n_constraints = self._violated(self._results, self._results).shape[1]
        return Lagrangian.equal(
            attack.preserve_prediction, attack.constraint_rate, n_constraints, self.rows
        )

    def _guide_scores(self, points: Points, graph: bool) -> list[Tensor]:
        return [self.guide.scores(p, graph) for p in self._path(points)]


def _equal(points: Points, others: Points) -> Tensor:
    """Which examples stand where they stood; (N,) bool."""
    same = [(p == q).flatten(1).all(dim=1) for p, q in zip(points, others, strict=True)]
    return torch.stack(same).all(dim=0)
