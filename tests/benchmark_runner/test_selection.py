"""The rule of selection against the rule written out."""

import math

import numpy as np
import pytest

from captum_robust.benchmark.plan.selection import select, select_each
from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import TRAINING, Unit

GRID = [Unit("adult", "wd", f"weight_decay={i}", 0, "random") for i in range(8)]


def by_hand(trainings: dict[Unit, Result], vanilla: Result) -> Unit:
    best = None
    for unit, result in trainings.items():
        if math.isnan(result["auc"]) or result["auc"] < vanilla["auc"] - 0.01:
            continue
        precision = -1.0 if math.isnan(result["precision"]) else result["precision"]
        if best is None or (precision, result["auc"]) > best[0]:
            best = ((precision, result["auc"]), unit)
    if best is not None:
        return best[1]
    aucs = [-1.0 if math.isnan(r["auc"]) else r["auc"] for r in trainings.values()]
    return list(trainings)[aucs.index(max(aucs))]


@pytest.mark.parametrize("seed", range(40))
def test_the_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    auc = rng.choice([0.86, 0.875, 0.8801, 0.89, math.nan], size=8)
    precision = rng.choice([0.5, 0.9, 1.0, math.nan], size=8)
    trainings = {
        unit: {"auc": float(a), "precision": float(p)}
        for unit, a, p in zip(GRID, auc, precision, strict=True)
    }
    vanilla = {"auc": float(rng.choice([0.88, 0.89, 0.91])), "precision": 0.0}
    assert select(trainings, vanilla) == by_hand(trainings, vanilla)


def test_one_hundredth_below_is_still_accurate() -> None:
    trainings = {GRID[0]: {"auc": 0.8701, "precision": 1.0}, GRID[1]: {"auc": 0.9, "precision": 0}}
    assert select(trainings, {"auc": 0.88}) == GRID[0]
    assert select(trainings, {"auc": 0.8802}) == GRID[1]


def test_every_group_is_compared_with_the_vanilla_model_of_its_split(whole: Store) -> None:
    trainings = whole.results(part=TRAINING)
    groups = list({unit.group for unit in trainings})
    chosen = select_each(trainings, groups)
    assert set(chosen) == set(groups)
    for group, unit in chosen.items():
        vanilla = trainings[Unit(group.dataset, "vanilla", "", group.seed, "random")]
        of_group = {u: r for u, r in trainings.items() if u.group == group}
        assert unit == by_hand(of_group, vanilla)


def test_without_the_vanilla_model_nothing_is_selected(whole: Store) -> None:
    trainings = whole.results(part=TRAINING, method="wd")
    assert select_each(trainings, [next(iter(trainings)).group]) == {}
