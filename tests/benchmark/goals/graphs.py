"""Pairs of graphs of 190 nodes: ERAttack on a batch of them, and a step of R2ET training.

A step of the attack costs the same whichever it is: five stand for the fifty that are asked for,
which a GPU takes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_robust.graph import adjacency
from tests.benchmark.cases import Case, pair_case
from tests.benchmark.goals.attack import Setting, attack_of, gain_over_one_by_one
from tests.benchmark.goals.training import measures_of_r2et
from tests.benchmark.memory import peak_ratio
from tests.benchmark.models import PairOfGraphs
from tests.benchmark.row import Bound, Effort, Measure, Spread, When, at_least, at_most
from tests.benchmark.timing import ratio

__all__ = ["MEASURES"]

_N_ALONE = 2


def _pair_by_pair(case: Case, n_steps: int) -> Callable[[], Any]:
    """Our attack, one pair at a time."""
    each = [attack_of(_one(case, n), n_steps) for n in range(_N_ALONE)]
    return lambda: [attack() for attack in each]


def _one(case: Case, n: int) -> Case:
    inputs = case.inputs.detach()[n : n + 1].requires_grad_()
    return Case(case.model, inputs, case.target[n : n + 1], case.k)


def _gain_of_a_batch(setting: Setting, effort: Effort) -> Spread:
    case = setting.make(setting.batch)
    ours = attack_of(case, setting.n_steps)
    share = _N_ALONE / setting.batch
    return ratio(_pair_by_pair(case, setting.n_steps), ours, effort, share=share)


def _growth(effort: Effort) -> Spread | None:
    """Peak memory of 50 steps over that of 5."""
    case = pair_case(2)
    long, short = (attack_of(case, n, with_info=False) for n in (50, 5))
    return peak_ratio(long, short)


def _cost_of_edges(effort: Effort) -> Spread:
    """Gradient by the edges, over that by the matrices that the network takes in itself."""
    case = pair_case(16)
    model = case.model
    assert isinstance(model, PairOfGraphs)
    pair = [adjacency(e).requires_grad_() for e in case.inputs.detach().chunk(2, dim=1)]
    inner = model.of_edges.model

    def by_edges() -> Tensor:
        return torch.autograd.grad(model(case.inputs).sum(), case.inputs)[0]

    def by_matrices() -> Tensor:
        logit = inner(*pair)
        return torch.autograd.grad(torch.cat([-logit, logit], dim=1).sum(), pair)[0]

    return ratio(by_edges, by_matrices, effort)


def _attacks(what: str, setting: Setting, when: When = "always") -> list[Measure]:
    one_by_one = partial(gain_over_one_by_one, setting)
    pairs_alone = partial(_gain_of_a_batch, setting)
    return [
        Measure(5, "graphs", what, "one by one / ours", at_least(5), one_by_one, when),
        Measure(5, "graphs", what, "ours, pair by pair / ours", at_least(5), pairs_alone, when),
    ]


MEASURES = [
    *_attacks("100 pairs, 5 of 50 steps", Setting(pair_case, 100, 5, _N_ALONE)),
    *_attacks("100 pairs, 50 steps", Setting(pair_case, 100, 50, _N_ALONE), when="gpu"),
    Measure(5, "graphs", "pairs, 5 → 50 steps", "growth of memory", at_most(1.1), _growth),
    Measure(5, "graphs", "16 pairs", "saliency, edges / matrices", at_most(1.3), _cost_of_edges),
    *measures_of_r2et(
        "16 pairs", pair_case, 16, at_most(8), Bound(), at_least(2), goal=5, group="graphs"
    ),
    *measures_of_r2et(
        "256 pairs", pair_case, 256, at_most(8), Bound(), at_least(2), "gpu", goal=5, group="graphs"
    ),
]
