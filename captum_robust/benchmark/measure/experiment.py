"""The work of a unit: train a model, or measure one that was trained."""

import functools
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust._utils.random import seeded
from captum_robust.benchmark.measure.attacks import attack_rows, validation_precision
from captum_robust.benchmark.measure.properties import measure_properties
from captum_robust.benchmark.measure.rows import ExplainedRows
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.runner import Worker
from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Unit
from captum_robust.benchmark.study.settings import EvaluationSettings
from captum_robust.benchmark.study.task import Data, Parts
from captum_robust.benchmark.study.tasks import TASKS
from captum_robust.benchmark.study.training import area_under_curve, fit
from captum_robust.metrics import prediction_change_rate

__all__ = ["Experiment"]


class Experiment(Worker):
    """The worker of a run, which keeps the data sets and the last split in memory.

    Args:
        store: store of the checkpoints.
        protocol: settings that all results share.
        root: folder of the original data files; None for the default places.
    """

    def __init__(self, store: Store, protocol: Protocol, root: Path | None) -> None:
        self.store = store
        self.protocol = protocol
        self.root = root
        self.data = functools.lru_cache(maxsize=None)(self._data)
        self.parts = functools.lru_cache(maxsize=1)(self._parts)

    def do(self, unit: Unit) -> Result:
        """Return the result of a unit; everything in it but times is reproducible."""
        with seeded(unit.seed):
            if unit.part == TRAINING:
                return self._train(unit)
            if unit.part == PROPERTIES:
                return self._properties(unit)
            return self._attack(unit)

    def n_features(self, dataset: str) -> int:
        """Return the number of features of a data set, which is loaded if need be."""
        return self.data(dataset).n_features

    def _data(self, dataset: str) -> Data:
        return TASKS[dataset].load(self.root)

    def _parts(self, dataset: str, seed: int) -> Parts:
        device = self.protocol.device
        return Parts(*(_moved(part, device) for part in self.data(dataset).parts(seed)))

    def _settings(self, unit: Unit) -> EvaluationSettings:
        return TASKS[unit.dataset].settings.on(torch.device(self.protocol.device))

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
                model, rows.inputs, self.protocol.k, unit.seed, self._settings(unit)
            )
            precision = float(precisions.nanmean())
        return {
            "auc": auc,
            "precision": precision,
            "epoch_seconds": seconds,
            "sha256": self.store.save_weights(unit, model.state_dict()),
        }

    def _network(self, unit: Unit) -> nn.Module:
        """Return a network with new weights."""
        task = TASKS[unit.dataset]
        method, n_features = task.methods[unit.method], self.data(unit.dataset).n_features
        network = method.network(n_features, method.grid[unit.setting], task.network)
        return network.to(self.protocol.device)

    def model(self, unit: Unit) -> nn.Module:
        """Return the network of a finished training."""
        model = self._network(unit)
        model.load_state_dict(self.store.load_weights(unit.model))
        return model

    def _properties(self, unit: Unit) -> Result:
        model, test = self.model(unit), self.parts(unit.dataset, unit.seed).test
        rows = ExplainedRows.of(test, self.protocol.rows)
        found = measure_properties(
            model, rows.inputs, self.protocol.k, unit.seed, self._settings(unit)
        )
        magnitudes = found.pop("magnitudes").mean(dim=0)
        return {
            "auc": area_under_curve(model, test),
            "magnitudes": _numbers(magnitudes),
            **{name: _numbers(values) for name, values in found.items()},
        }

    def _attack(self, unit: Unit) -> Result:
        model, test = self.model(unit), self.parts(unit.dataset, unit.seed).test
        attack, explanation, k = unit.part
        settings = self._settings(unit)
        is_costly = settings.explanations[explanation].is_costly
        rows = ExplainedRows.of(
            test, self.protocol.costly_rows if is_costly else self.protocol.rows
        )
        precision, moved = attack_rows(
            model, rows.inputs, attack, explanation, k, unit.seed, settings
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
    """Return a part of a data set, a dataclass, with its tensors on a device."""
    values = ((field.name, getattr(part, field.name)) for field in fields(part))
    return replace(part, **{n: v.to(device) for n, v in values if isinstance(v, Tensor)})


def _numbers(values: Tensor) -> list[float]:
    """Round to the digits that a table needs of float32 numbers."""
    return [float(f"{value:.6g}") for value in values.tolist()]
