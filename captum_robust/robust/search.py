"""The projected loop: one batch of examples, from their starts to the best points found."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from captum_robust._captum import as_tuple
from captum_robust.ranking import check_k, invalid_rows, top_k_indices
from captum_robust.robust.explain import Explanation
from captum_robust.robust.gradients import (
    autograd_gradient,
    finite_difference_gradient,
    spsa_gradient,
)
from captum_robust.robust.objectives import Objective
from captum_robust.robust.projections import Region, per_example, steepest_step

__all__ = ["Gradient", "Preserve", "Search"]

Gradient = Literal["autograd", "finite_difference", "spsa"]
Preserve = Literal["reject", "early_stop", "none"]


@dataclass
class Search:
    """Descends the objective on one batch and keeps the best iterate of every example.

    ``scored`` is the explanation that counts, ``guide`` the one whose gradient leads: the same, or
    a smoothed or differentiable stand-in.
    """

    region: Region
    objective: Objective
    scored: Explanation
    guide: Explanation
    gradient: Gradient
    preserve: Preserve
    decision_func: Callable[[Tensor], Tensor]
    path_points: int
    n_directions: int
    step_size: Tensor
    step_num: int
    seed: int
    with_info: bool

    # Found at the first point, which is the example itself.
    best: tuple[Tensor, ...] = field(init=False)
    best_loss: Tensor = field(init=False)
    best_kept: Tensor = field(init=False)
    gradient_found: Tensor = field(init=False)
    first_change_step: Tensor | None = field(init=False, default=None)
    traces: list[list[Tensor]] = field(init=False, default_factory=list)
    _looked_for_gradient: bool = field(init=False, default=False)
    _reference: Tensor | None = field(init=False, default=None)
    _judge: Callable[[Tensor], Tensor] = field(init=False)
    _broken: Tensor = field(init=False)
    _labels: Tensor | None = field(init=False, default=None)
    _top: Tensor | None = field(init=False, default=None)
    _generators: list[torch.Generator] = field(init=False)

    def run(
        self,
        start: tuple[Tensor, ...] | None,
        random_start: bool,
        n_restarts: int,
        progress: Callable[[], Any],
    ) -> None:
        """Search from ``start``, or the example itself, or a random point; then from random points.

        The example itself is considered in any case.
        """
        centre = self.region.centre
        if start is not None or random_start:
            self.traces.append([])
            self._consider(0, self.region.as_inputs(centre), graph=False)
            self.traces.clear()
        for restart in range(n_restarts):
            self.traces.append([])
            if self.gradient == "spsa":
                self._generators = self.region.generators(self.seed, 1 + restart)
            if restart > 0 or (random_start and start is None):
                self._descend(self.region.random_point(self.seed, restart), progress)
            else:
                self._descend(centre if start is None else self.region.nearest(start), progress)

    @property
    def n_queries(self) -> int:
        """Attributions computed so far for each example."""
        own = 0 if self.guide is self.scored else self.guide.n_queries
        return self.scored.n_queries + own

    @property
    def blind(self) -> bool:
        """Whether a gradient was looked for in vain: zero for every example that has a ranking."""
        in_vain = self._looked_for_gradient and not bool(self.gradient_found.any())
        return in_vain and not bool(self._broken.all())

    def full_trace(self) -> Tensor:
        """The objective of every iterate, (n_restarts, step_num + 1, N)."""
        nothing = torch.full_like(self.best_loss, float("nan"))
        return torch.stack(
            [
                torch.stack(trace + [nothing] * (self.step_num + 1 - len(trace)))
                for trace in self.traces
            ]
        )

    def _descend(self, points: tuple[Tensor, ...], progress: Callable[[], Any]) -> None:
        alive = torch.ones(len(points[0]), dtype=torch.bool, device=points[0].device)
        own = self.guide is self.scored and self.gradient == "autograd"
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num
            alive, loss, scores, maps = self._consider(step, leaves, own and more, alive)
            if not more or not bool(alive.any()):
                break
            gradients = self._gradient(leaves, loss, scores, maps)
            self._looked_for_gradient |= bool((self.region.radius > 0).any())
            self.gradient_found |= _any_nonzero(gradients)
            points = self.region.nearest(
                tuple(
                    p + steepest_step(g, per_example(self.step_size, p), self.region.norm)
                    for p, g in zip(points, gradients, strict=True)
                )
            )
            progress()

    def _consider(
        self, step: int, points: tuple[Tensor, ...], graph: bool, alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Tensor], tuple[Tensor, ...]]:
        """Evaluate an iterate and keep it where it is the best allowed one so far.

        Returns which examples go on, and what serves the next step: loss, scores, signed maps.
        """
        signed: tuple[Tensor, ...] = ()
        if self.gradient == "finite_difference" and self.guide is self.scored:
            signed = as_tuple(self.scored.maps(points, graph=False, abs=False))
            scores = [self.scored.scores_of_signed(signed)]
        else:
            scores = [self.scored.scores(p, graph) for p in self._path(points)]
        here = scores[-1].detach()
        first = self._reference is None
        if first:
            self._start(here)
        loss = self._loss(scores)
        found = loss.detach()
        kept = self._kept(points)
        alive = torch.ones_like(kept) if alive is None else alive
        if self.preserve == "early_stop":
            alive = alive & kept
        allowed = alive if self.preserve == "none" else alive & kept
        allowed = allowed & ~invalid_rows(here)
        if first:
            self.best, self.best_loss, self.best_kept = _detached(points), found, kept
        else:
            self._improve(points, found, kept, allowed)
        if self.with_info:
            self.traces[-1].append(found)
            self._note_change(step, here, allowed)
        return alive, loss, scores, signed

    def _improve(
        self, points: tuple[Tensor, ...], found: Tensor, kept: Tensor, allowed: Tensor
    ) -> None:
        better = allowed & (found < self.best_loss)
        if bool(better.any()):
            self.best = tuple(
                torch.where(per_example(better, b), p, b)
                for p, b in zip(_detached(points), self.best, strict=True)
            )
            self.best_loss = torch.where(better, found, self.best_loss)
            self.best_kept = torch.where(better, kept, self.best_kept)

    def _start(self, reference: Tensor) -> None:
        self._broken = invalid_rows(reference)
        reference = reference.masked_fill(self._broken[:, None], 0)  # no NaN in a sort
        self._reference = reference
        self.gradient_found = torch.zeros_like(self._broken)
        against = getattr(self.objective, "against", None)
        self._judge = (
            against(reference)
            if against is not None
            else lambda scores: self.objective(scores, reference)
        )
        k = getattr(self.objective, "k", None)
        if k is not None:
            check_k(k, reference.shape[1])
            self._top = top_k_indices(reference, k)
            self.first_change_step = torch.full((len(reference),), -1, device=reference.device)

    def _path(self, points: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        """Points on the segment from the example to ``points``, which come last."""
        centre = self.region.centre
        between = [
            tuple(c + m / self.path_points * (p - c) for p, c in zip(points, centre, strict=True))
            for m in range(1, self.path_points)
        ]
        return [*between, points]

    def _loss(self, scores: list[Tensor]) -> Tensor:
        """The objective, averaged over the path; NaN where the example has no ranking to lose."""
        losses = [self._judge(s) for s in scores]
        mean = losses[0] if len(losses) == 1 else torch.stack(losses).mean(dim=0)
        if mean.shape != self._broken.shape:
            raise ValueError(
                f"objective must return one value an example, shape {tuple(self._broken.shape)}, "
                f"got {tuple(mean.shape)}"
            )
        return mean.masked_fill(self._broken, float("nan"))

    def _kept(self, points: tuple[Tensor, ...]) -> Tensor:
        """Whether the prediction is that of the example."""
        if self.preserve == "none" and not self.with_info:
            return torch.ones(len(points[0]), dtype=torch.bool, device=points[0].device)
        labels = self.decision_func(self.scored.outputs(points))
        if self._labels is None:
            self._labels = labels
        return (labels == self._labels).reshape(len(labels), -1).all(dim=1)

    def _note_change(self, step: int, scores: Tensor, allowed: Tensor) -> None:
        if self._top is None or self.first_change_step is None:
            return
        changed = (top_k_indices(scores.nan_to_num(), self._top.shape[1]) != self._top).any(dim=1)
        earlier = (self.first_change_step < 0) | (self.first_change_step > step)
        self.first_change_step[changed & allowed & earlier & ~self._broken] = step

    def _gradient(
        self,
        leaves: tuple[Tensor, ...],
        loss: Tensor,
        scores: list[Tensor],
        maps: tuple[Tensor, ...],
    ) -> tuple[Tensor, ...]:
        radius, norm = self.region.radius, self.region.norm
        if self.gradient == "finite_difference":
            if not maps:
                maps = as_tuple(self.guide.maps(leaves, graph=False, abs=False))
            return finite_difference_gradient(
                self.guide, maps, lambda scores: self._loss([scores]), leaves, radius, norm
            )
        if self.gradient == "spsa":
            return spsa_gradient(
                lambda points: self._loss(self._guide_scores(points, graph=False)),
                leaves, radius, norm, self.n_directions, self._generators,
            )  # fmt: skip
        if self.guide is not self.scored:
            scores = self._guide_scores(leaves, graph=True)
            loss = self._loss(scores)
        return autograd_gradient(loss, scores, leaves)

    def _guide_scores(self, points: tuple[Tensor, ...], graph: bool) -> list[Tensor]:
        return [self.guide.scores(p, graph) for p in self._path(points)]


def _detached(points: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(p.detach() for p in points)


def _any_nonzero(gradients: tuple[Tensor, ...]) -> Tensor:
    flat = torch.cat([g.flatten(1) for g in gradients], dim=1)
    return (torch.nan_to_num(flat) != 0).any(dim=1)
