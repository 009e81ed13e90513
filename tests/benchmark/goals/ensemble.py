"""AutoERAttack against its members one after the other, in attributions computed: a count."""

from collections.abc import Callable
from functools import partial
from math import inf

import torch
from captum.attr import Saliency

from captum_robust.robust import AutoERAttack
from captum_robust.robust._ensemble.ensemble import Ensemble
from captum_robust.robust._ensemble.members import Member, members_of, reference_member
from captum_robust.robust._search.problem import Problem
from tests.benchmark.cases import Case
from tests.benchmark.row import Effort, Measure, Spread, at_least
from tests.benchmark.trained import bank_case, breast_cancer_case, digits_case

__all__ = ["MEASURES"]


def _gain(make: Callable[[], Case], radius: float, effort: Effort) -> Spread:
    """Every member that can run alone, on all examples and to its end, over the ensemble.

    Counted until the ensemble is as strong: its mean precision has fallen to that of the worst of
    the members on each example.
    """
    case = make()
    attack = AutoERAttack(Saliency(case.model), case.k)
    reference = reference_member(attack.attribution, case.k, attack.options)

    def ensemble() -> tuple[Ensemble, list[Member]]:
        problem = Problem.of(
            case.inputs, radius, (-inf, inf), "Linf", None, None, None, 0, case.target, None, {}
        )
        found = Ensemble(problem, case.k, None, None)
        traits = found.examine(reference)
        return found, members_of(attack.attribution, case.k, traits, attack.options)

    together, members = ensemble()
    worst, cost = together.overlap, 0
    for member in members:
        if member.start != "best":
            alone, _ = ensemble()
            list(alone.run([member]))
            worst, cost = torch.minimum(worst, alone.overlap), cost + member.cost
    for _ in together.run(members):
        if int(together.overlap.sum()) <= int(worst.sum()):
            return Spread.of([cost / float(together.queries.double().mean())])
    raise AssertionError("the ensemble is weaker than its members")


def _measure(what: str, make: Callable[[], Case], radius: float) -> Measure:
    find = partial(_gain, make, radius)
    name = f"AutoERAttack, {what}, radius {radius}"
    return Measure(
        13, "ensemble", name, "queries of members / ours", at_least(1.5), find,
        cpu_only="a count, on every device the same",
    )  # fmt: skip


MEASURES = [
    _measure("Bank MLP, ReLU", bank_case, 0.25),
    _measure("Bank MLP, ReLU", bank_case, 0.5),
    _measure("Bank MLP, ReLU", bank_case, 1.0),
    _measure("breast cancer MLP, softplus", breast_cancer_case, 0.25),
    _measure("breast cancer MLP, softplus", breast_cancer_case, 0.5),
    _measure("digits CNN, SiLU", digits_case, 0.1),
    _measure("digits CNN, SiLU", digits_case, 0.2),
]
