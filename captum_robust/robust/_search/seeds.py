"""The ranking of a random attribution under other seeds than that of the attack."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.tensors import Points
from captum_robust.metrics.precision import precision_at_k
from captum_robust.robust._search.evaluator import Draws
from captum_robust.robust._search.problem import Problem

__all__ = ["OverSeeds", "other_seeds", "precision_over_seeds"]

_N_SEEDS = 4


class OverSeeds(NamedTuple):
    """Precision at k of random maps, averaged over other seeds than that of the attack.

    Attributes:
        noise_floor: between the maps of two seeds at the example; (N,).
        precision: between the maps of one seed at the example and at the point found; (N,).
        n_queries: attributions computed for each example.
    """

    noise_floor: Tensor
    precision: Tensor
    n_queries: int


def other_seeds(seed: int) -> range:
    """Return the seeds by which a result for ``seed`` is compared."""
    return range(seed + 1, seed + 1 + _N_SEEDS)


def precision_over_seeds(
    problem: Problem,
    attribution: Attribution,
    rows: Tensor,
    absolute: bool,
    feature_mask: Inputs | None,
    points: Points,
    k: int,
) -> OverSeeds:
    """Explain the examples ``rows`` and the points found for them with other seeds."""
    region = problem.region.of(rows)
    references: list[Tensor] = []
    scores: list[Tensor] = []
    for seed in other_seeds(problem.seed):
        draws = Draws(seed)
        evaluator = problem.evaluator(attribution, rows, absolute, feature_mask, draws=draws)
        for found, at in ((references, region.centre), (scores, points)):
            found.append(evaluator.scores(region.as_inputs(at), graph=False).detach())

    pairs = [precision_at_k(b, a, k) for a, b in combinations(references, 2)]
    moved = [precision_at_k(m, r, k) for m, r in zip(scores, references, strict=True)]
    return OverSeeds(torch.stack(pairs).mean(0), torch.stack(moved).mean(0), 2 * _N_SEEDS)
