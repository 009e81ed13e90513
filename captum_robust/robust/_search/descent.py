"""Projected descent: steps along a gradient, from the starts to the best points found."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, flatten, gradient_or_zero
from captum_robust.robust._search.compiled import CannotCompile, compile_function
from captum_robust.robust._search.gradients import Here
from captum_robust.robust._search.lagrangian import Lagrangian
from captum_robust.robust._search.search import Evaluation, Search
from captum_robust.robust._search.slopes import Slope
from captum_robust.robust.constraints import violations_of

__all__ = ["Descent"]


class Descent(Search):
    """Projected descent of the objective.

    With ``keep="precision"``, examples that cannot get worse and examples that no longer move leave
    the batch and cost nothing further. Where the attribution draws random numbers for the whole
    batch, all examples stay, because the numbers would change with the batch.
    """

    _lagrangian: Lagrangian | None = None
    _generators: list[torch.Generator]
    _all_found = False  # whether every example with a ranking has had a gradient
    _idle = False  # whether the soft constraints had no weight at the last step

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        self._begin(restart)
        steps = self.settings.step_rule(self._mine(self.step_size), self.step_num)
        alive, stayed = self._all, None
        for step in range(self.step_num + 1):
            leaves = self.region.as_inputs(points)
            more = step < self.step_num and not self.limit.ends(step)
            here = self._consider(step, leaves, self._shares_graph and more, alive)
            alive = here.alive
            if not more or (self.settings.mode.ends_at_flip and not bool(alive.any())):
                break
            if step == 0:
                self._lagrangian = self._equal_weights()
                self._compile(leaves)
            self.guide.smooth_beta = self.settings.beta(step, self.step_num)
            gradients = self._gradient(leaves, here)
            loss, allowed = here.loss.detach(), here.allowed
            ahead = steps.next(self.region, points, gradients, loss, allowed)
            if self.settings.keep == "precision":
                stays = _equal(ahead, points)
                on = alive & ~self._mine(self.done)
                on = on if stayed is None else on & ~(stayed & stays)
                if not bool(on.any()):
                    break
                if not (bool(on.all()) or self._fixed_batch):
                    steps, ahead = steps.of(on), tuple(p[on] for p in ahead)
                    stays = stays[on]
                    self._leave_out(~on)
                    alive = self._all
                stayed = stays
            points = ahead
            progress()

    @property
    def _plain(self) -> bool:
        """Return whether gradients of the scores need no scaling."""
        return self.unperturbed is not None and self.unperturbed.plain

    @property
    def _shares_graph(self) -> bool:
        """Return whether the map that is scored is the one that is differentiated."""
        return self.guide is self.scored and self.settings.gradient.keeps == "graph"

    def _compile(self, leaves: Points) -> None:
        """Compile the evaluation of points with its gradient, if the settings ask for it."""
        if not self.settings.compile or self._compiled is not None:
            return
        self.not_compiled = None
        try:
            self._compiled = self._compiled_step(leaves)
        except CannotCompile as reason:
            self.not_compiled = str(reason)

    def _compiled_step(
        self, leaves: Points
    ) -> Callable[[Points], tuple[list[Tensor], Tensor, Slope]]:
        if self.settings.gradient.keeps != "graph":
            raise CannotCompile("only gradient='autograd' can be compiled")
        if isinstance(self.settings.smooth_relu, tuple):
            raise CannotCompile("smooth_relu changes from step to step")
        if self.scored.is_random or self.scored.depends_on_the_batch or not self._plain:
            raise CannotCompile("random, half-precision and extreme maps do not compile")

        def step(*points: Tensor) -> Points:
            leaves = tuple(p.detach().requires_grad_() for p in points)
            scores = [self.scored.scores(p, self._shares_graph) for p in self._path(leaves)]
            guide = scores if self._shares_graph else self._guide_scores(leaves, True)
            slope = gradient_or_zero([self._loss(guide).sum()], leaves)
            loss = self._loss([s.detach() for s in scores])
            return scores[-1].detach(), self.scored.outputs(leaves), loss, *slope

        spent = self.scored.n_queries, self.guide.n_queries
        run = compile_function(step, tuple(p.detach() for p in leaves))
        self.scored.n_queries, self.guide.n_queries = spent

        def evaluate(points: Points) -> tuple[list[Tensor], Tensor, Slope]:
            scores, output, loss, *slope = run(*points)
            self.scored.note(points, output, self.settings.path_points)
            if self.guide is not self.scored:
                self.guide.n_queries += self.settings.path_points
            return [scores], loss, Slope(tuple(slope), None)

        return evaluate

    def _begin(self, restart: int) -> None:
        """Prepare one search from given points."""
        self._lagrangian, self._generators = None, []
        if self.settings.gradient.random:
            self._generators = self.region.generators(self.seed, 1 + restart)

    def _leave_out(self, out: Tensor) -> None:
        """Continue the search without the examples where ``out`` (m,) is true."""
        on = ~out
        if self._lagrangian is not None:
            self._lagrangian = self._lagrangian.of(on)
        if self._generators:
            self._generators = [self._generators[i] for i in on.nonzero()[:, 0].tolist()]
        self._focus(self.rows[on])
        if self._lagrangian is not None:
            self._prepare_constraints()

    def _note_gradient(self, gradients: Points) -> None:
        """Record where a gradient was found and, for the info, where it was not finite."""
        if self._all_found and not self.with_info:
            return
        flat = flatten(gradients)
        largest = flat.abs().amax(dim=1)
        finite = largest < math.inf  # false for NaN
        if not bool(finite.all()):
            self._mark(self.gradient_broken, ~finite)
        if self._all_found:
            return
        # Entries beside a NaN may differ from zero.
        self._mark(self.gradient_found, (largest > 0) | (~finite & (flat.nan_to_num() != 0).any(1)))
        self._mark(self.looked_for_gradient, self.region.radius > 0)
        self._all_found = bool((self.gradient_found | self.broken).all())

    def _here(self, leaves: Points, here: Evaluation) -> Here:
        """Return the points, and the functions whose gradients are needed there."""
        shared = self._shares_graph or (
            self.guide is self.scored and not self.settings.gradient.differentiates
        )
        return Here(
            points=leaves,
            region=self.region,
            guide=self.guide,
            scores=here.scores if shared else None,
            values=[here.loss] if self._shares_graph or here.slope is not None else None,
            slopes=None if here.slope is None else [here.slope],
            maps=here.maps,
            of_scores=self._of_scores,
            guide_scores=self._guide_scores,
            of_results=self._violations,
            generators=self._generators,
            plain=self._plain,
        )

    def _of_scores(self, scores: list[Tensor]) -> list[Tensor]:
        """Return the functions of the scores that the steps lower: the objective; (m,)."""
        return [self._loss(scores)]

    def _gradient(self, leaves: Points, here: Evaluation) -> Points:
        """Return the direction of the gradient of the objective, or of its Lagrangian."""
        found = self.settings.gradient.measure(self._here(leaves, here))
        direction = found.slopes[0].direction
        self._note_gradient(direction)
        if self._lagrangian is None:
            return direction
        violations = torch.stack(found.of_results, dim=1)
        if self._lagrangian.rule.is_idle(violations):
            return direction
        progress = here.loss.detach() - self._loss_of_reference
        slopes = [*found.slopes, *found.slopes_of_results]
        return self._lagrangian.gradient(self.region, progress, violations, slopes)

    def _violations(self, points: Points, graph: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Return results of the real model and violations of each soft constraint, (m,) each."""
        if self._lagrangian is None:
            return [], []
        settings = self.settings
        if graph and self._idle:  # a check without a graph is cheaper
            values = self._violated(self._results_at(points))
            if self._lagrangian.rule.is_idle(values):
                return [], list(values.unbind(dim=1))
        results = self._results_at(points, graph)
        values = self._violated(results)
        self._idle = graph and self._lagrangian.rule.is_idle(values.detach())
        if graph and not values.requires_grad:
            raise ValueError(
                f"preserve_prediction={settings.preserve_prediction!r} needs outputs and a "
                "constraint with a gradient, got none; use gradient='spsa', or 'reject'"
            )
        return list(results), list(values.unbind(dim=1))

    def _violated(self, results: tuple[Tensor, ...]) -> Tensor:
        """Return how far results violate the constraints on each of K predictions; (m, K)."""
        each = [measure(r) for measure, r in zip(self._measures, results, strict=True)]
        return each[0] if len(each) == 1 else torch.cat(each, dim=1)

    def _prepare_constraints(self) -> None:
        """Prepare what the constraints need once for the examples under search."""
        results = [self._mine(r) for r in self._results]
        constraint, decision = self.settings.constraint, self.settings.decision
        self._measures = [violations_of(constraint, r, decision) for r in results]
        assert self.unperturbed is not None
        self._loss_of_reference = self._loss([self._mine(self.unperturbed.scores)])

    def _equal_weights(self) -> Lagrangian | None:
        """Return the Lagrangian that a search starts with; None without soft constraints."""
        rule = self.settings.mode.weights
        if rule is None:
            return None
        self._prepare_constraints()
        n_constraints = self._violated(tuple(self._mine(r) for r in self._results)).shape[1]
        return Lagrangian.equal(rule, self.settings.constraint_rate, n_constraints, self.rows)

    def _guide_scores(self, points: Points, graph: bool) -> list[Tensor]:
        return [self.guide.scores(p, graph) for p in self._path(points)]


def _equal(points: Points, others: Points) -> Tensor:
    """Return which examples have not moved; (N,) bool."""
    same = None
    for p, q in zip(points, others, strict=True):
        equal = (p == q).flatten(1).all(dim=1)
        same = equal if same is None else same & equal
    assert same is not None
    return same
