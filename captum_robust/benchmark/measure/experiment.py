"""Do a unit: train a model, or measure one that was trained."""

import functools
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust._utils.random import seeded
from captum_robust.benchmark.measure.attacks import attacked, validation_precision
from captum_robust.benchmark.measure.properties import properties
from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import Unit
from captum_robust.benchmark.study.settings import RADII, Terms
from captum_robust.benchmark.study.tabular import ExplainedRows
from captum_robust.benchmark.study.task import Data, Parts
from captum_robust.benchmark.study.tasks import TASKS
from captum_robust.benchmark.study.training import area_under_curve, fit
from captum_robust.metrics import prediction_change_rate

__all__ = ["Experiment", "Protocol"]


@dataclass(frozen=True)
class Protocol:
    """What all results of a store have in common.

    Attributes:
        k: size of the top set that is trained for, attacked and measured.
        rows: distinct test rows whose saliency is attacked.
        costly_rows: the first of them, whose SmoothGrad and integrated gradients are attacked.
        validation_rows: distinct validation rows that are attacked to select a setting.
        epochs: passes over the training rows; None for the number of each data set.
        radii: of the balls, L2.
        device: on which models are trained and attacked; the weights, the order of the rows and
            the noise of a seed are the same on all.
    """

    k: int = 8
    rows: int = 150
    costly_rows: int = 25
    validation_rows: int = 100
    epochs: int | None = None
    radii: tuple[float, ...] = RADII
    device: str = "cpu"

    def as_dict(self) -> dict[str, Any]:
        """What the store keeps and compares."""
        return asdict(self)


class Experiment:
    """Does units, and keeps the last data set and split at hand."""

    def __init__(self, store: Store, protocol: Protocol, root: Path | None) -> None:
        self.store = store
        self.protocol = protocol
        self.root = root
        self.data = functools.lru_cache(maxsize=None)(self._data)
        self.parts = functools.lru_cache(maxsize=1)(self._parts)

    def do(self, unit: Unit) -> Result:
        """The result of a unit; the same whoever does it and whenever, but for times."""
        with seeded(unit.seed):
            if unit.part == "training":
                return self._train(unit)
            if unit.part == "properties":
                return self._properties(unit)
            return self._attack(unit, *unit.part.split())

    def _data(self, dataset: str) -> Data:
        return TASKS[dataset].load(self.root)

    def _parts(self, dataset: str, seed: int) -> Parts:
        device = self.protocol.device
        return Parts(*(_moved(part, device) for part in self.data(dataset).parts(seed)))

    def _terms(self, unit: Unit) -> Terms:
        return TASKS[unit.dataset].terms.on(torch.device(self.protocol.device))

    def _train(self, unit: Unit) -> Result:
        data, task = self.parts(unit.dataset, unit.seed), TASKS[unit.dataset]
        method = task.methods[unit.method]
        setting = method.grid[unit.setting]
        model = self._network(unit)
        n_epochs = (self.protocol.epochs or task.n_epochs) * setting.get("times", 1)
        if unit.start == "vanilla":
            model.load_state_dict(self.store.load_weights(unit.vanilla))
            n_epochs = max(1, n_epochs // 2)
        seconds = fit(
            model, method.criterion(model, self.protocol.k, setting), data.train, n_epochs,
            task.batch_size, unit.seed, setting.get("weight_decay", 0.0), task.learning_rate,
        )  # fmt: skip
        task.finish(model, data.train)
        rows = ExplainedRows.of(data.validation, self.protocol.validation_rows)
        auc, precision = area_under_curve(model, data.validation), float("nan")
        if auc == auc:
            precisions = validation_precision(
                model, rows.inputs, self.protocol.k, unit.seed, self._terms(unit)
            )
            precision = float(precisions.nanmean())
        return {
            "auc": auc,
            "precision": precision,
            "epoch_seconds": seconds,
            "sha256": self.store.save_weights(unit, model.state_dict()),
        }

    def _network(self, unit: Unit) -> nn.Module:
        """With new weights."""
        task = TASKS[unit.dataset]
        method, n_features = task.methods[unit.method], self.data(unit.dataset).n_features
        network = method.network(n_features, method.grid[unit.setting], task.network)
        return network.to(self.protocol.device)

    def model(self, unit: Unit) -> nn.Module:
        """The network that a finished training has left."""
        model = self._network(unit)
        model.load_state_dict(self.store.load_weights(unit.model))
        return model

    def _properties(self, unit: Unit) -> Result:
        model, test = self.model(unit), self.parts(unit.dataset, unit.seed).test
        rows = ExplainedRows.of(test, self.protocol.rows)
        found = properties(model, rows.inputs, self.protocol.k, unit.seed, self._terms(unit))
        magnitudes = found.pop("magnitudes").mean(dim=0)
        return {
            "auc": area_under_curve(model, test),
            "magnitudes": _numbers(magnitudes),
            **{name: _numbers(values) for name, values in found.items()},
        }

    def _attack(self, unit: Unit, attack: str, explanation: str, k: str) -> Result:
        model, test = self.model(unit), self.parts(unit.dataset, unit.seed).test
        terms = self._terms(unit)
        costly = terms.explanations[explanation].costly
        n_rows = self.protocol.costly_rows if costly else self.protocol.rows
        rows = ExplainedRows.of(test, n_rows)
        precision, moved = attacked(
            model, rows.inputs, attack, explanation, int(k), unit.seed, terms
        )
        predict = getattr(model, "predictions", lambda inputs: (model(inputs),))
        with torch.no_grad():
            clean, found = predict(rows.inputs), [predict(points) for points in moved]
        changed = torch.stack([prediction_change_rate(results, clean) for results in found])
        return {
            "precision": [_numbers(values) for values in precision],
            "changed": _numbers(changed.mean(dim=1)),
            "clean_auc": rows.area_under_curve(clean[0]),
            "attacked_auc": [rows.area_under_curve(results[0]) for results in found],
        }


def _moved(part: Any, device: str) -> Any:
    """A part of a data set, a dataclass, with its tensors on a device."""
    values = ((field.name, getattr(part, field.name)) for field in fields(part))
    return replace(part, **{n: v.to(device) for n, v in values if isinstance(v, Tensor)})


def _numbers(values: Tensor) -> list[float]:
    """As few digits as tell float32 numbers apart in a table."""
    return [float(f"{value:.6g}") for value in values.tolist()]
