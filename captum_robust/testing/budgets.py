"""Rules on attacks with a largest number of attributions per example."""

from collections.abc import Callable
from typing import Any

from captum.attr import Saliency

from captum_robust._utils.captum import as_tuple
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.report import require

__all__ = [
    "check_budget_is_kept",
    "check_larger_budget_is_never_weaker",
    "check_small_budget_is_no_proof",
]

_ROUNDING = 1e-9


class _Counted(Saliency):
    """Saliency that tells how many examples it explains, also where it is copied."""

    def __init__(self, network: Any, tell: Callable[[int], None]) -> None:
        super().__init__(network)
        self.tell = tell

    def attribute(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the saliency."""
        self.tell(len(as_tuple(inputs)[0]))
        return super().attribute(inputs, *args, **kwargs)


def check_budget_is_kept(case: AttackCase) -> None:
    """``budget`` is the largest number of attributions per example."""
    n_examples = len(as_tuple(case.model.inputs)[0])
    for budget in (1, 10, 40):
        counts: list[int] = []
        attack = case.factory(_Counted(case.model.build(), counts.append), case.model.k)
        case.perturb(attack, budget=budget)
        require(
            0 < sum(counts) <= budget * n_examples,
            f"a budget of {budget} took {sum(counts)} attributions of {n_examples} examples",
        )


def check_larger_budget_is_never_weaker(case: AttackCase) -> None:
    """With the same seed, a larger budget is not weaker for any example."""
    before = case.objective(case.model.inputs)
    for budget in (1, 4, 12, 40, 90):
        found = case.objective(case.perturb(budget=budget))
        require(
            not bool((found > before + _ROUNDING).any()),
            f"a budget of {budget} is weaker: {found.tolist()} > {before.tolist()}",
        )
        before = found


def check_small_budget_is_no_proof(case: AttackCase) -> None:
    """Where three random draws find more, in the mean, the flag ``not_attacked`` is raised."""
    by_chance = case.best_of_noise(3).mean()
    for budget in (1, 10, 45):
        moved, info = case.perturb(budget=budget, return_info=True)
        found = case.objective(moved).mean()
        require(
            info.flags.get("not_attacked", 0) > 0 or found <= by_chance + _ROUNDING,
            f"a budget of {budget} left {float(found)} without a flag, and random draws leave "
            f"{float(by_chance)}",
        )
