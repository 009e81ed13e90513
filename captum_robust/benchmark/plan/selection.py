"""The paper's rule that chooses the setting of a method, on validation rows only."""

from collections.abc import Mapping, Sequence

from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.plan.units import Group, Unit

__all__ = ["TOLERANCE", "is_accurate", "selected", "selection"]

#: How far the AUC may lie below the vanilla model's.
TOLERANCE = 0.01


def is_accurate(result: Result, vanilla: Result) -> bool:
    """Whether the clean validation AUC is within 0.01 of the vanilla model's; not if it is NaN."""
    return bool(result["auc"] >= vanilla["auc"] - TOLERANCE)


def selected(trainings: Mapping[Unit, Result], vanilla: Result) -> Unit:
    """The training with the best P@k under attack among those that are accurate enough.

    P@k is the mean over the validation rows and the radii. Equal ones: the higher AUC, then the
    first given. Where none is accurate enough: the highest AUC.
    """
    accurate = [unit for unit, result in trainings.items() if is_accurate(result, vanilla)]
    if not accurate:
        return max(trainings, key=lambda unit: _or_lowest(trainings[unit]["auc"]))
    return max(
        accurate,
        key=lambda unit: (
            _or_lowest(trainings[unit]["precision"]), _or_lowest(trainings[unit]["auc"])
        ),
    )  # fmt: skip


def selection(trainings: Mapping[Unit, Result], groups: Sequence[Group]) -> dict[Group, Unit]:
    """The training that is selected of each group, where the vanilla one is finished as well."""
    members: dict[Group, dict[Unit, Result]] = {group: {} for group in groups}
    vanilla: dict[tuple[str, int], Result] = {}
    for unit, result in trainings.items():
        if unit.group in members:
            members[unit.group][unit] = result
        if unit.method == "vanilla":
            vanilla[unit.dataset, unit.seed] = result
    return {
        group: selected(found, vanilla[group.dataset, group.seed])
        for group, found in members.items()
        if found and (group.dataset, group.seed) in vanilla
    }


def _or_lowest(value: float) -> float:
    """A value that can be compared: NaN is the worst."""
    return value if value == value else float("-inf")
