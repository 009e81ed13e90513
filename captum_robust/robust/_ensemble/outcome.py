"""The result of one member, from one start or from several starts at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points
from captum_robust.robust._ensemble.members import Member
from captum_robust.robust._search.limit import NO_LIMIT, Limit
from captum_robust.robust._search.problem import Problem
from captum_robust.robust._search.search import Search

__all__ = ["Outcome", "single_search", "stacked_search"]


class Outcome(NamedTuple):
    """The result of a search, one row per example.

    Attributes:
        points: the worst points.
        overlap: number of top-k features that are left there; (N,).
        precision: precision at k there, NaN without a ranking; (N,).
        kept: whether the prediction is that of the example; (N,) bool.
        ranked: whether the example has a ranking; (N,) bool.
        n_queries: attributions computed; (N,).
        concerned: the examples that each flag concerns, (N,) bool each.
        lowest_overlap: number of top-k features that no attack can remove.
    """

    points: Points
    overlap: Tensor
    precision: Tensor
    kept: Tensor
    ranked: Tensor
    n_queries: Tensor
    concerned: dict[str, Tensor]
    lowest_overlap: int

    @classmethod
    def of(cls, search: Search) -> Outcome:
        """Return the result of a search of the whole batch."""
        overlap, precision = search.best.overlap, search.best_precision
        assert overlap is not None and precision is not None
        return cls(
            search.best.points, overlap, precision, search.best.kept, ~search.broken,
            search.n_queries, search.concerned, search.lowest_overlap,
        )  # fmt: skip

    def part(self, rows: slice) -> Outcome:
        """Return the result for some rows."""
        return Outcome(
            tuple(p[rows] for p in self.points), self.overlap[rows], self.precision[rows],
            self.kept[rows], self.ranked[rows], self.n_queries[rows],
            {name: examples[rows] for name, examples in self.concerned.items()},
            self.lowest_overlap,
        )  # fmt: skip


def single_search(
    member: Member, problem: Problem, rows: Tensor, limit: Limit = NO_LIMIT
) -> Outcome:
    """Search from the starts of a member one after the other."""
    start = None
    if member.number > 0:
        start = problem.region.of(rows).random_point(problem.seed, member.number)
    search = member.attack._search(
        problem, rows, member.n_steps, member.n_starts, with_info=True, start=start,
        random_start=member.start == "random", limit=limit,
    )  # fmt: skip
    return Outcome.of(search)


def stacked_search(member: Member, problem: Problem, rows: Tensor) -> list[Outcome]:
    """Search from all random starts of a member at once; one outcome per start.

    A step on a small network takes as long for a few hundred rows as for a few.
    """
    region, n_rows = problem.region.of(rows), len(rows)
    starts = [region.random_point(problem.seed, number) for number in range(member.n_starts)]
    search = member.attack._search(
        problem, rows.repeat(member.n_starts), member.n_steps, with_info=True,
        start=tuple(torch.cat(tensors) for tensors in zip(*starts, strict=True)),
        random_start=False,
    )  # fmt: skip
    found = Outcome.of(search)
    parts = range(0, n_rows * member.n_starts, n_rows)
    return [found.part(slice(first, first + n_rows)) for first in parts]
