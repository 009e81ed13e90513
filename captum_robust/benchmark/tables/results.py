"""The results of the selected models of a store, one number per seed."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from captum_robust.benchmark.measure.attacks import ATTACKS
from captum_robust.benchmark.plan.selection import is_accurate, select_each
from captum_robust.benchmark.plan.store import Result, Store, StoreError
from captum_robust.benchmark.plan.units import PROPERTIES, STARTS, TRAINING, Part, Unit
from captum_robust.benchmark.study.explanations import EXPLANATIONS
from captum_robust.benchmark.study.method import Method
from captum_robust.benchmark.study.tasks import TASKS

__all__ = ["VANILLA", "WORST", "Model", "SelectedSetting", "StudyResults", "mean", "of_method"]

#: Name of the worst of all attacks, which is listed as if it were an attack.
WORST = "worst"


class Model(NamedTuple):
    """A method and its initial weights; a row of a table."""

    method: str
    start: str

    def __str__(self) -> str:
        """The method, and the initial weights unless they are random."""
        return self.method if self.start == "random" else f"{self.method} (from vanilla)"


def of_method(method: str) -> Model:
    """Return the model of a method from random weights."""
    return Model(method, "random")


VANILLA = of_method("vanilla")


class SelectedSetting(NamedTuple):
    """The setting that was selected for a seed.

    Attributes:
        setting: point of the grid of the method.
        is_accurate: whether its AUC is close enough to that of the vanilla model.
    """

    setting: str
    is_accurate: bool

    def __str__(self) -> str:
        """The setting, with a star where none was accurate enough."""
        return (self.setting or "none") + ("" if self.is_accurate else " *")


class StudyResults:
    """The records of a store; of each method and seed those of the selected setting.

    Args:
        folder: folder of the store.

    Attributes:
        protocol: the settings that all records share.
        datasets: the data sets with measurements, in the order of the study.

    Raises:
        StoreError: for a folder without measurements, or a damaged store.
    """

    def __init__(self, folder: Path) -> None:
        store = Store(folder)
        self.protocol = store.protocol
        results = store.results()
        self._trainings = {u: r for u, r in results.items() if u.part == TRAINING}
        self._chosen = select_each(self._trainings, list({u.group for u in self._trainings}))
        chosen = set(self._chosen.values())
        self._measured = {
            u: r for u, r in results.items() if u.part != TRAINING and u.model in chosen
        }
        self._records: dict[tuple[str, Model, Part], dict[int, Result]] = {}
        for u, r in sorted(self._measured.items(), key=lambda item: item[0]):
            records = self._records.setdefault((u.dataset, Model(u.method, u.start), u.part), {})
            records[u.seed] = r
        for dataset in {dataset for dataset, _, _ in self._records}:
            self._add_worst(dataset)
        if not self._measured:
            raise StoreError(f"{folder} holds no measurements yet")
        names = {unit.dataset for unit in self._measured}
        self.datasets = [name for name in TASKS if name in names]

    def _add_worst(self, dataset: str) -> None:
        """Add the worst of the attacks, as if it were one, for models with records of all."""
        parts = sorted({p for d, _, p in self._records if d == dataset and p.is_attack})
        for worst in sorted({part._replace(name=WORST) for part in parts}):
            same = [part for part in parts if part._replace(name=WORST) == worst]
            for model in self.models(dataset) if len(same) > 1 else ():
                by_attack = [self.records(dataset, model, part) for part in same]
                seeds = set.intersection(*(set(records) for records in by_attack))
                if seeds:
                    self._records[dataset, model, worst] = {
                        seed: _worst([records[seed] for records in by_attack])
                        for seed in sorted(seeds)
                    }

    @property
    def radius(self) -> float:
        """The radius of the tables of one radius: the middle of all."""
        radii: list[float] = self.protocol["radii"]
        return radii[len(radii) // 2]

    @property
    def at_radius(self) -> int:
        """The place of that radius among all."""
        return len(self.protocol["radii"]) // 2

    def method(self, dataset: str, model: Model) -> Method:
        """Return the training method of a model."""
        return TASKS[dataset].methods[model.method]

    def models(self, dataset: str) -> list[Model]:
        """Return the models with measurements, in the order of the methods."""
        found = {Model(u.method, u.start) for u in self._measured if u.dataset == dataset}
        methods = TASKS[dataset].methods
        return [Model(m, s) for s in STARTS for m in methods if Model(m, s) in found]

    def default_models(self, dataset: str) -> list[Model]:
        """Return the models from random weights of the methods that are trained by default."""
        return [
            m for m in self.models(dataset)
            if m.start == "random" and self.method(dataset, m).by_default
        ]  # fmt: skip

    def attacks(self, dataset: str) -> list[Part]:
        """Return the attacks that were measured, including the worst of them."""
        found = {part for name, _, part in self._records if name == dataset and part.is_attack}
        return sorted(found, key=_order)

    def main_attack(self, dataset: str) -> Part:
        """Return the strongest attack, the last, on the first explanation at the main k."""
        return [p for p in self.main_attacks(dataset).values() if p.name != WORST][-1]

    def main_attacks(self, dataset: str) -> dict[str, Part]:
        """Return the attacks on the first explanation at the main k, by name."""
        parts = [part for part in self.attacks(dataset) if part.k == self.protocol["k"]]
        return {p.name: p for p in parts if p.explanation == parts[0].explanation}

    def records(self, dataset: str, model: Model, part: Part) -> dict[int, Result]:
        """Return the records of a model by seed; none where it was not measured."""
        return self._records.get((dataset, model, part), {})

    def values(
        self, dataset: str, model: Model, part: Part, of: Callable[[Result], float]
    ) -> dict[int, float]:
        """Return a number of the record of each seed."""
        return {seed: of(r) for seed, r in self.records(dataset, model, part).items()}

    def precision(self, dataset: str, model: Model, part: Part, radius: float) -> dict[int, float]:
        """Return P@k of each seed, the mean over the rows that could be ranked."""
        r = self.protocol["radii"].index(radius)
        return self.values(dataset, model, part, lambda result: mean(result["precision"][r]))

    def main_precision(
        self, dataset: str, model: Model, radius: float | None = None
    ) -> dict[int, float]:
        """Return P@k of each seed under the main attack, by default at the main radius."""
        radius = self.radius if radius is None else radius
        return self.precision(dataset, model, self.main_attack(dataset), radius)

    def area_under_curve(self, dataset: str, model: Model) -> dict[int, float]:
        """Return the AUC of each seed on all test rows."""
        return self.values(dataset, model, PROPERTIES, lambda result: float(result["auc"]))

    def mean_property(self, dataset: str, model: Model, name: str) -> dict[int, float]:
        """Return a property of each seed, the mean over the rows."""
        return self.values(dataset, model, PROPERTIES, lambda result: mean(result[name]))

    def settings(self, dataset: str, model: Model) -> dict[int, SelectedSetting]:
        """Return the setting that was selected for each seed."""
        return {
            unit.seed: SelectedSetting(unit.setting, self._is_accurate(unit))
            for group, unit in sorted(self._chosen.items())
            if (group.dataset, group.method, group.start) == (dataset, *model)
        }

    def cost(self, dataset: str, model: Model) -> dict[int, float]:
        """Return the processor time per epoch of the selected setting, relative to vanilla's."""
        return {
            unit.seed: self._trainings[unit]["epoch_seconds"]
            / self._trainings[unit.vanilla]["epoch_seconds"]
            for unit in self._chosen.values()
            if (unit.dataset, unit.method, unit.start) == (dataset, *model)
        }

    def _is_accurate(self, unit: Unit) -> bool:
        return is_accurate(self._trainings[unit], self._trainings[unit.vanilla])


def mean(values: list[float]) -> float:
    """Return the mean of the values that are not NaN; NaN where there are none."""
    known = [value for value in values if value == value]
    return math.fsum(known) / len(known) if known else math.nan


def _worst(records: list[Result]) -> Result:
    """Return the smallest P@k of each row that could be ranked."""

    def smallest(values: Iterable[float]) -> float:
        return min((value for value in values if value == value), default=math.nan)

    by_radius = zip(*(record["precision"] for record in records), strict=True)
    return {"precision": [list(map(smallest, zip(*rows, strict=True))) for rows in by_radius]}


def _order(part: Part) -> tuple[int, int, int]:
    """Sort by large k first, then by the order of the explanations and of the attacks."""
    names = [*ATTACKS, WORST]
    return -part.k, list(EXPLANATIONS).index(part.explanation), names.index(part.name)
