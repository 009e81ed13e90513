"""What a store says about the selected models, one number a seed."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from captum_robust.benchmark.measure.attacks import ATTACKS
from captum_robust.benchmark.plan.selection import is_accurate, selection
from captum_robust.benchmark.plan.store import Result, Store, StoreError
from captum_robust.benchmark.plan.units import STARTS, Unit
from captum_robust.benchmark.study.explanations import EXPLANATIONS
from captum_robust.benchmark.study.methods import METHODS
from captum_robust.benchmark.study.tasks import TASKS

__all__ = ["WORST", "Findings", "Model", "mean"]

#: What the worst of all attacks is called where they are listed.
WORST = "worst"


class Model(NamedTuple):
    """A method and what its weights began with; a line of a table."""

    method: str
    start: str

    def __str__(self) -> str:
        """The method, and the start unless it is the usual one."""
        return self.method if self.start == "random" else f"{self.method} (from vanilla)"


class Findings:
    """The records of a store, of each method and seed only the selected setting.

    Attributes:
        protocol: what all records have in common.
        datasets: those with measurements, in the order of the study.
    """

    def __init__(self, folder: Path) -> None:
        store = Store(folder)
        self.protocol = store.protocol
        results = store.results()
        self._trainings = {u: r for u, r in results.items() if u.part == "training"}
        self._chosen = selection(self._trainings, list({u.group for u in self._trainings}))
        chosen = set(self._chosen.values())
        self._measured = {
            u: r for u, r in results.items() if u.part != "training" and u.model in chosen
        }
        self._by_line: dict[tuple[str, Model, str], dict[int, Result]] = {}
        for u, r in sorted(self._measured.items(), key=lambda item: item[0]):
            line = self._by_line.setdefault((u.dataset, Model(u.method, u.start), u.part), {})
            line[u.seed] = r
        for dataset in {dataset for dataset, _, _ in self._by_line}:
            self._add_worst(dataset)
        if not self._measured:
            raise StoreError(f"{folder} holds no measurements yet")
        names = {unit.dataset for unit in self._measured}
        self.datasets = [name for name in TASKS if name in names]

    def _add_worst(self, dataset: str) -> None:
        """The worst of the attacks, as if it were one, where a model has met them all."""
        parts = sorted({p for d, _, p in self._by_line if d == dataset and p != "properties"})
        for what in sorted({part.partition(" ")[2] for part in parts}):
            same = [part for part in parts if part.partition(" ")[2] == what]
            for model in self.models(dataset) if len(same) > 1 else ():
                by_attack = [self._records(dataset, model, part) for part in same]
                seeds = set.intersection(*(set(records) for records in by_attack))
                if seeds:
                    self._by_line[dataset, model, f"{WORST} {what}"] = {
                        seed: _worst([records[seed] for records in by_attack])
                        for seed in sorted(seeds)
                    }

    @property
    def radius(self) -> float:
        """The one that tables of one radius are about: the middle of all."""
        radii: list[float] = self.protocol["radii"]
        return radii[len(radii) // 2]

    def models(self, dataset: str) -> list[Model]:
        """Those with measurements, in the order of the methods."""
        found = {Model(u.method, u.start) for u in self._measured if u.dataset == dataset}
        methods = dict.fromkeys((*METHODS, *TASKS[dataset].methods))
        return [Model(m, s) for s in STARTS for m in methods if Model(m, s) in found]

    def parts(self, dataset: str) -> list[str]:
        """What was measured beside the properties: attacks, the worst of them too, with k."""
        found = {part for name, _, part in self._by_line if name == dataset} - {"properties"}
        return sorted(found, key=_order)

    def main_part(self, dataset: str) -> str:
        """The strongest attack, which is the last, on the first explanation, at the main k."""
        k = f" {self.protocol['k']}"
        parts = [p for p in self.parts(dataset) if p.endswith(k) and not p.startswith(WORST)]
        first = parts[0].split()[1]
        return [part for part in parts if part.split()[1] == first][-1]

    def values(
        self, dataset: str, model: Model, part: str, of: Callable[[Result], float]
    ) -> dict[int, float]:
        """A number of each seed's record."""
        return {seed: of(r) for seed, r in self._records(dataset, model, part).items()}

    def precision(self, dataset: str, model: Model, part: str, radius: float) -> dict[int, float]:
        """P@k of each seed, the mean over the rows that could be ranked."""
        r = self.protocol["radii"].index(radius)
        return self.values(dataset, model, part, lambda result: mean(result["precision"][r]))

    def area_under_curve(self, dataset: str, model: Model) -> dict[int, float]:
        """AUC of each seed on the whole test set."""
        return self.values(dataset, model, "properties", lambda result: float(result["auc"]))

    def settings(self, dataset: str, model: Model) -> dict[int, str]:
        """The setting that was selected for each seed; a star where none was accurate enough."""
        return {
            unit.seed: unit.setting + ("" if self._is_accurate(unit) else " *")
            for group, unit in sorted(self._chosen.items())
            if (group.dataset, group.method, group.start) == (dataset, *model)
        }

    def cost(self, dataset: str, model: Model) -> dict[int, float]:
        """Processor time of an epoch of the selected setting, relative to the vanilla model's."""
        return {
            unit.seed: self._trainings[unit]["epoch_seconds"]
            / self._trainings[unit.vanilla]["epoch_seconds"]
            for unit in self._chosen.values()
            if (unit.dataset, unit.method, unit.start) == (dataset, *model)
        }

    def rows(
        self, dataset: str, model: Model, name: str, other: str
    ) -> list[tuple[list[float], list[float]]]:
        """Two properties of every row, one pair of lists a seed."""
        records = self._records(dataset, model, "properties").values()
        return [(r[name], r[other]) for r in records]

    def magnitudes(self, dataset: str, model: Model) -> list[list[float]]:
        """Sorted gradient magnitudes of each seed."""
        records = self._records(dataset, model, "properties").values()
        return [r["magnitudes"] for r in records]

    def _records(self, dataset: str, model: Model, part: str) -> dict[int, Result]:
        return self._by_line.get((dataset, model, part), {})

    def _is_accurate(self, unit: Unit) -> bool:
        return is_accurate(self._trainings[unit], self._trainings[unit.vanilla])


def mean(values: list[float]) -> float:
    """Mean of those that are numbers; NaN where none is."""
    numbers = [value for value in values if value == value]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def _worst(records: list[Result]) -> Result:
    """The smallest P@k of each row that could be ranked."""

    def smallest(values: Iterable[float]) -> float:
        return min((value for value in values if value == value), default=math.nan)

    by_radius = zip(*(record["precision"] for record in records), strict=True)
    return {"precision": [list(map(smallest, zip(*rows, strict=True))) for rows in by_radius]}


def _order(part: str) -> tuple[int, int, int]:
    """Large k first, then the explanations and the attacks in their order."""
    attack, explanation, k = part.split()
    return -int(k), list(EXPLANATIONS).index(explanation), [*ATTACKS, WORST].index(attack)
