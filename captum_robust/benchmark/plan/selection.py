"""The selection of the setting of a method on validation rows, by the rule of the paper."""

from collections.abc import Mapping, Sequence

from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.plan.units import Group, Unit

__all__ = ["TOLERANCE", "is_accurate", "select", "select_each"]

#: Largest difference by which the AUC may be lower than that of the vanilla model.
TOLERANCE = 0.01


def is_accurate(result: Result, vanilla: Result) -> bool:
    """Return whether the clean validation AUC is within 0.01 of vanilla's; False for NaN."""
    return bool(result["auc"] >= vanilla["auc"] - TOLERANCE)


def select(trainings: Mapping[Unit, Result], vanilla: Result) -> Unit:
    """Select the training with the best P@k under attack among those that are accurate enough.

    P@k is the mean over the validation rows and the radii. Among equal ones the higher AUC wins,
    then the first. Where none is accurate enough, the highest AUC wins.
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


def select_each(trainings: Mapping[Unit, Result], groups: Sequence[Group]) -> dict[Group, Unit]:
    """Select a training of each group whose vanilla model is finished as well."""
    members: dict[Group, dict[Unit, Result]] = {group: {} for group in groups}
    vanilla: dict[tuple[str, int], Result] = {}
    for unit, result in trainings.items():
        if unit.group in members:
            members[unit.group][unit] = result
        if unit.method == "vanilla":
            vanilla[unit.dataset, unit.seed] = result
    return {
        group: select(found, vanilla[group.dataset, group.seed])
        for group, found in members.items()
        if found and (group.dataset, group.seed) in vanilla
    }


def _or_lowest(value: float) -> float:
    """Replace NaN by the lowest value."""
    return value if value == value else float("-inf")
