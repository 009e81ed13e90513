"""The run of an ensemble: one member after the other, on the examples that can still get worse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.derivatives import differentiate
from captum_robust._utils.tensors import Points
from captum_robust.attr.check import NotDifferentiableError, is_differentiable
from captum_robust.ranking import fraction
from captum_robust.robust._ensemble.budget import Budget
from captum_robust.robust._ensemble.members import Member, NetworkTraits, unbounded
from captum_robust.robust._ensemble.outcome import Outcome, single_search, stacked_search
from captum_robust.robust._search.evaluator import Evaluator
from captum_robust.robust._search.limit import Limit
from captum_robust.robust._search.problem import Problem
from captum_robust.robust._search.seeds import OverSeeds, precision_over_seeds
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.flags import count_flags
from captum_robust.robust.random_search import RandomSearchAttack

__all__ = ["AutoAttackInfo", "Ensemble"]

_N_SAMPLED = 8  # examples on which the traits of the network are found
_KINK_BETA = 5.0
_MOST_STACKED = 100_000  # values; with more, one batch is no faster than separate searches
_FAR = 10.0  # times the radius, where any map that is not constant should change
_FEWEST_STEPS = 5  # of a gradient, below which an attack says nothing
_EXAMINATION = 4  # attributions that find the traits of the network


@dataclass(frozen=True)
class AutoAttackInfo:
    """Results of the ensemble, one value per example.

    Attributes:
        precision (Tensor): precision at k of the returned inputs, on the real model; (N,), in
            [0, 1]. NaN where the map of the example is not finite or constant, or it cannot move.
        prediction_kept (Tensor): whether the returned input has the example's label; (N,) bool.
        members (tuple[str, ...]): names of the members, in the order in which they ran.
        winner (Tensor): the first member to find the precision returned; (N,) int64, −1 where none
            changed the top-k set.
        member_precision (Tensor): lowest precision that each member found, (members, N); NaN where
            the member was not run, because the example could not get worse or the budget was
            spent.
        n_queries (Tensor): attributions computed for each example; (N,) int64.
        noise_floor (Tensor, optional): for a random attribution, precision at k between the maps of
            two seeds at the unperturbed input, mean over pairs of four other seeds than that of
            the attack; (N,). A precision near it is no more than the attribution's own noise. None
            for an attribution that draws no random numbers.
        precision_over_seeds (Tensor, optional): for a random attribution, the precision of the
            returned inputs with other seeds: for each of the four, between its maps at the
            returned and at the unperturbed input; the mean, (N,). None as ``noise_floor``.
        flags (dict[str, int]): reasons for caution, with the number of examples that each concerns;
            :data:`~captum_robust.robust.FLAGS` says what they mean.
    """

    precision: Tensor
    prediction_kept: Tensor
    members: tuple[str, ...]
    winner: Tensor
    member_precision: Tensor
    n_queries: Tensor
    flags: dict[str, int]
    noise_floor: Tensor | None = None
    precision_over_seeds: Tensor | None = None

    @property
    def wins(self) -> dict[str, int]:
        """Number of examples on which each member was the first to find the precision returned."""
        wins = dict.fromkeys(self.members, 0)  # a member may run more than once
        for m, name in enumerate(self.members):
            wins[name] += int((self.winner == m).sum())
        return wins


class Ensemble:
    """The members at work on one problem, and the worst point of every example so far."""

    def __init__(
        self,
        problem: Problem,
        k: int,
        budget: Budget,
        chunk: int | None,
        feature_mask: Inputs | None = None,
    ) -> None:
        n_examples, like = problem.n_examples, problem.region.centre[0]
        self.problem = problem
        self.k = k
        self.budget = budget
        self.chunk = chunk
        self.feature_mask = feature_mask
        self.points = tuple(t.clone() for t in problem.region.centre)
        self.overlap = torch.full((n_examples,), k, device=like.device)
        self.kept = torch.ones(n_examples, dtype=torch.bool, device=like.device)
        self.ranked = torch.ones_like(self.kept)
        self.winner = torch.full((n_examples,), -1, device=like.device)
        self.queries = torch.zeros(n_examples, dtype=torch.long)
        self.names: list[str] = []
        self.found: list[Tensor] = []
        self.flags: dict[str, Tensor] = {}
        self._by_chance = torch.full((n_examples,), float("inf"), dtype=torch.float64)
        self._by_gradient = self._by_chance.clone()
        self._attacked = torch.zeros_like(self.kept)  # along a gradient
        self._lowest = torch.zeros_like(self.overlap)
        self._over_seeds: list[OverSeeds] = []
        self._order_of_seeds = torch.arange(n_examples)
        self.depends_on_the_batch = True  # until the attribution has been examined

    def begin(self, first: Member) -> None:
        """Score the examples and the start of the caller, by a member that is not left out."""
        self._run(first, self.problem.start, self.budget.limit_of(first) or Limit(0))

    def examine(self, attack: ExplanationAttack) -> NetworkTraits:
        """Find the traits of the network, by the attribution of an attack."""
        rows = self._alike(self._open())[:_N_SAMPLED]
        if len(rows) == 0:
            return NetworkTraits()
        if not self.budget.charge(_EXAMINATION):
            return NetworkTraits()
        region = self.problem.region.of(rows)
        points = region.as_inputs(region.centre)
        maps, differentiable = [], False
        for seed, beta in ((0, None), (1, None), (0, _KINK_BETA)):
            problem = replace(self.problem, seed=self.problem.seed + seed)
            evaluator = problem.evaluator(
                attack.attribution, rows, attack.absolute, attack.feature_mask, beta
            )
            maps.append(evaluator.scores(points, graph=False).detach())
            results = evaluator.results(points, attack.predictions, attack.decision, graph=True)
            differentiable = all(r.requires_grad for r in results)
            self.depends_on_the_batch = evaluator.depends_on_the_batch
        self.queries[rows] += len(maps)
        once, again, smoothed = maps
        kinked, randomised = not torch.equal(once, smoothed), not torch.equal(once, again)
        has_gradient: dict[float | None, bool | None] = {}
        if is_differentiable(attack.attribution):
            for beta in (None, _KINK_BETA)[: 1 + kinked]:
                evaluator = self.problem.evaluator(
                    attack.attribution, rows, attack.absolute, attack.feature_mask, beta
                )
                has_gradient[beta] = _has_gradient(evaluator, points)
                self.queries[rows] += 1
                # Else only a smoothed network may have one.
                if has_gradient[beta] is not None or not self.budget.charge(1):
                    break
            if has_gradient[None] is None:
                self._flag(rows, "no_second_derivative", self.ranked[rows])
        return NetworkTraits(
            kinked, kinked and has_gradient.get(None) is True, randomised, differentiable,
            no_gradient=has_gradient.get(None, False) is None,
            no_smoothed_gradient=list(has_gradient.values())[-1:] == [None],
        )  # fmt: skip

    def run(self, members: Sequence[Member]) -> Iterator[None]:
        """Run the members one after the other, and yield after each."""
        for member in members:
            limit = self.budget.limit_of(member)
            if limit is None:
                self._record(member, self._nothing())
            else:
                self._run(member, self.points if member.start == "best" else None, limit)
            yield

    def raise_flags(self, strongest: Member, randomised: bool) -> None:
        """Raise the flags that depend on all members together."""
        if randomised:
            self._flag(torch.arange(len(self.ranked)), "randomised", self.ranked)
        masked = (self._by_chance < self._by_gradient) & self._attacked.cpu()
        self._flag(torch.arange(len(masked)), "black_box_beats_white_box", masked)
        rows = self._open()
        self._flag(rows, "not_attacked", ~self._attacked[rows.to(self._attacked.device)])
        if self.budget.time_is_over:
            self._flag(rows, "time_over", torch.ones(len(rows), dtype=torch.bool))
            return
        unmoved = (self.overlap == self.k) & (self.problem.region.radius > 0)
        affordable = self.queries + strongest.cost <= self.budget.n_queries
        rows = self._alike(rows[(unmoved.cpu() & affordable)[rows]])[:_N_SAMPLED]
        if len(rows) > 0:
            problem, attack = unbounded(self.problem, strongest.attack, _FAR)
            try:
                search = attack._search(problem, rows, strongest.n_steps, with_info=True)
            except NotDifferentiableError:
                return
            assert search.best.overlap is not None
            self.queries[rows] += search.n_queries
            self._flag(rows, "unconstrained_attack_fails", search.best.overlap == self.k)

    def compare_seeds(self, reference: Member) -> None:
        """Explain the points found with other seeds, where the attribution is random."""
        if "randomised" not in self.flags or not bool(self.flags["randomised"].any()):
            return
        attack, everything = reference.attack, torch.arange(len(self.ranked))
        order = []
        for rows in self.problem.chunks(everything, self.chunk, attack.feature_mask):
            found = precision_over_seeds(
                self.problem, attack.attribution, rows, attack.absolute, attack.feature_mask,
                tuple(p[rows] for p in self.points), self.k,
            )  # fmt: skip
            self._over_seeds.append(found)
            self.queries[rows] += found.n_queries
            order.append(rows)
        # Chunks of equal numbers of groups are not in the order of the examples.
        self._order_of_seeds = torch.cat(order).argsort()

    def _in_order(self, parts: list[Tensor]) -> Tensor | None:
        """Join the values of the chunks of :meth:`compare_seeds`; None where there are none."""
        if not parts:
            return None
        joined = torch.cat(parts)
        return joined[self._order_of_seeds.to(joined.device)]

    def info(self) -> AutoAttackInfo:
        """Return the results."""
        wide = torch.promote_types(self.problem.region.centre[0].dtype, torch.float32)
        precision = fraction(self.overlap.to(wide), self.k)
        seeds = self._over_seeds
        return AutoAttackInfo(
            precision=precision.masked_fill(~self.ranked, float("nan")),
            prediction_kept=self.kept,
            members=tuple(self.names),
            winner=self.winner,
            member_precision=torch.stack(self.found).to(wide),
            n_queries=self.queries,
            flags=count_flags({name: int(rows.sum()) for name, rows in self.flags.items()}),
            noise_floor=self._in_order([s.noise_floor for s in seeds]),
            precision_over_seeds=self._in_order([s.precision for s in seeds]),
        )

    def _open(self) -> Tensor:
        """Return the examples that can still get worse; on the CPU."""
        return (self.ranked & (self.overlap > self._lowest)).cpu().nonzero()[:, 0]

    def _alike(self, rows: Tensor) -> Tensor:
        """Return those of the examples ``rows`` that have as many groups as the first."""
        return next(iter(self.problem.chunks(rows, None, self.feature_mask)), rows)

    def _nothing(self) -> Tensor:
        return torch.full(self.overlap.shape, float("nan"), dtype=torch.float64)

    def _run(self, member: Member, start: Points | None, limit: Limit) -> None:
        problem = replace(self.problem, start=start)
        found = self._nothing()
        for rows in problem.chunks(self._open(), self.chunk, self.feature_mask):
            try:
                if self._can_stack(member, rows):
                    outcomes = stacked_search(member, problem, rows)
                else:
                    outcomes = [single_search(member, problem, rows, limit)]
            except NotDifferentiableError:  # other members need no such derivative
                self._flag(rows, "no_second_derivative", self.ranked[rows])
                continue
            self._attacked[rows.to(self._attacked.device)] |= _is_attack(member, limit)
            for outcome in outcomes:
                found[rows] = torch.fmin(found[rows], outcome.precision.to(found))
                self._take(rows, member, outcome)
        self._record(member, found)

    def _record(self, member: Member, found: Tensor) -> None:
        """Record the precision that a member found, (N,)."""
        self.names.append(member.name)
        self.found.append(found)
        if member.black_box:
            self._by_chance = torch.fmin(self._by_chance, found)
        elif member.start != "best":  # which may be where chance has led
            self._by_gradient = torch.fmin(self._by_gradient, found)

    def _can_stack(self, member: Member, rows: Tensor) -> bool:
        """Return whether all starts of a member may be searched from in one batch."""
        n_rows = len(rows) * member.n_starts
        n_features = sum(c[0].numel() for c in self.problem.region.centre)
        fits = n_rows * n_features <= _MOST_STACKED and n_rows <= (self.chunk or n_rows)
        return member.n_starts > 1 and fits and not self.depends_on_the_batch

    def _take(self, rows: Tensor, member: Member, outcome: Outcome) -> None:
        """Keep the points of an outcome where they are worse than all points before."""
        self.queries[rows] += outcome.n_queries
        self.ranked[rows] &= outcome.ranked
        self._lowest[rows.to(self._lowest.device)] = outcome.lowest_overlap
        better = (outcome.overlap < self.overlap[rows]) & outcome.ranked
        chosen = rows.to(better.device)[better]
        for points, best in zip(self.points, outcome.points, strict=True):
            points[chosen] = best[better].to(points)
        self.overlap[chosen], self.kept[chosen] = outcome.overlap[better], outcome.kept[better]
        self.winner[chosen] = len(self.names)
        for name, examples in outcome.concerned.items():
            if name == "still_falling":
                self.flags.setdefault(name, torch.zeros_like(self.ranked))[chosen] = False
                examples = examples & better
            if name != "zero_gradient" or member.own:
                self._flag(rows, name, examples)

    def _flag(self, rows: Tensor, name: str, examples: Tensor) -> None:
        """Raise a flag for those of the examples ``rows`` that it concerns."""
        raised = self.flags.setdefault(name, torch.zeros_like(self.ranked))
        raised[rows.to(raised.device)] |= examples.to(raised.device)


def _is_attack(member: Member, limit: Limit) -> bool:
    """Return whether a member has followed a gradient for more than a few steps."""
    n_steps = member.n_steps if limit.n_steps is None else limit.n_steps
    searches = not isinstance(member.attack, RandomSearchAttack)
    return searches and n_steps >= min(_FEWEST_STEPS, max(1, member.n_steps)) and not limit.is_over


def _has_gradient(evaluator: Evaluator, points: tuple[Tensor, ...]) -> bool | None:
    """Return whether a weighted sum of the scores has a gradient other than zero.

    None if it has none that torch could compute.
    """
    leaves = tuple(p.detach().requires_grad_() for p in points)
    try:
        scores = evaluator.scores(leaves, graph=True)
        if not scores.requires_grad:
            return False
        weights = torch.linspace(1, 2, scores.shape[1]).to(scores)  # equal weights could cancel
        found = differentiate([(scores * weights).sum()], leaves)
    except NotDifferentiableError:
        return None
    return any(g is not None and bool((g != 0).any()) for g in found)
