"""Results of attacks on explanations: values per example, and tables."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.estimate import Estimate, estimate
from captum_robust._utils.tables import Cell, Table, latex, markdown, write_csv

__all__ = ["NOISE_FLOOR", "PREDICTION_CHANGED", "Measurement", "RobustnessTable"]

#: The metric that every table contains: 1 where the predicted class changed, else 0.
PREDICTION_CHANGED = "prediction changed"
#: In place of an attack: the metrics between two seeds of a random attribution at the same input.
NOISE_FLOOR = "no attack, other seeds"


@dataclass(frozen=True)
class Measurement:
    """Results of one attack on one attribution.

    Attributes:
        attribution (str): name of the attribution.
        attack (str): name of the attack; "no attack, other seeds" for the values of a random
            attribution between two seeds at the unperturbed input, the mean over pairs of four
            seeds, with which the values under attack should be compared.
        values (dict[str, Tensor]): for each metric one value per example, shape (N,), float64, on
            the CPU, including "prediction changed", 0 or 1. All are NaN where an input or an output
            of the model, perturbed or not, is not finite.
        flags (dict[str, int]): reasons for caution, with the number of examples that each concerns:
            the flags of the attack; "unmoved", the attack returned the example itself; and
            "outside_ball", the attack moved it further than the radius.
        perturbed (Tensor or tuple[Tensor, ...], optional): the perturbed inputs, on the CPU, if
            requested.
        over_seeds (dict[str, Tensor]): for each metric of a random attribution the mean over four
            other seeds than that of the attack, of the maps at the perturbed and at the unperturbed
            input with one seed; (N,). Empty for attributions that draw no random numbers.
    """

    attribution: str
    attack: str
    values: dict[str, Tensor]
    flags: dict[str, int]
    perturbed: Inputs | None = None
    over_seeds: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RobustnessTable:
    """Values of attributions × attacks × metrics per example.

    ``table["Saliency", "noise"]`` is a :class:`Measurement`. Means are weighted over the examples
    that have a value; examples without a value are counted separately.

    Attributes:
        measurements (tuple[Measurement, ...]): attribution by attribution; the
            noise floor of a random attribution and noise first.
        radius (float): radius of the ball, in units of the inputs.
        norm (str): norm of the ball.
        weights (Tensor, optional): weights of the examples, shape (N,).
        confidence (float): coverage of the confidence intervals.
        ranges (dict[str, tuple[float, float]]): smallest and largest possible value of metrics
            whose range is known; their intervals lie in it.
    """

    measurements: tuple[Measurement, ...]
    radius: float
    norm: str
    weights: Tensor | None
    confidence: float
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __getitem__(self, names: tuple[str, str]) -> Measurement:
        for measurement in self.measurements:
            if (measurement.attribution, measurement.attack) == names:
                return measurement
        accepted = [(m.attribution, m.attack) for m in self.measurements]
        raise KeyError(f"no attribution and attack {names!r} in the table, which has {accepted}")

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, "prediction changed" last."""
        return list(self.measurements[0].values)

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.measurements[0].values[PREDICTION_CHANGED])

    def estimate(self, attribution: str, attack: str, metric: str) -> Estimate:
        """Return the weighted mean of a metric over the examples, with its confidence interval."""
        return self._estimate(self[attribution, attack], metric)

    def worst(
        self, attribution: str, attack: str, metric: str, n: int = 5, largest: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the n examples with the smallest values of a metric, worst first.

        Args:
            attribution (str): name of the attribution.
            attack (str): name of the attack.
            metric (str): name of the metric.
            n (int, optional): number of examples; fewer if fewer have a value. Default: 5.
            largest (bool, optional): return the largest values instead, for metrics with lower
                values for stabler explanations. Default: False.

        Returns:
            - **indices** (*Tensor*): indices of the examples in the order of evaluation, (n,)
              int64; the lowest first among equal values.
            - **values** (*Tensor*): their values, (n,).
        """
        values = self[attribution, attack].values[metric]
        known = (~values.isnan()).nonzero()[:, 0]
        order = values[known].argsort(descending=largest, stable=True)[: max(n, 0)]
        return known[order], values[known[order]]

    def records(self) -> list[dict[str, Any]]:
        """Return one record per attribution, attack and metric: names, numbers and flags.

        With a random attribution in the table, the records have ``mean_over_seeds``, the mean of
        the metric over other seeds than that of the attack, NaN where there is none.
        """
        return [
            {
                "attribution": m.attribution, "attack": m.attack, "metric": metric,
                **asdict(self._estimate(m, metric)),
                "confidence": self.confidence, "radius": self.radius, "norm": self.norm,
                "flags": self._flags(m),
                **({"mean_over_seeds": self._mean_over_seeds(m, metric)} if self._random else {}),
            }
            for m in self.measurements
            for metric in self.metrics
        ]  # fmt: skip

    def to_markdown(self) -> str:
        """Return a Markdown table of means and intervals, with a caption."""
        return f"{markdown(self._table())}\n\n{self._caption()}"

    def to_latex(self) -> str:
        """Return the table as a LaTeX ``tabular``, after a comment with its caption."""
        return f"% {self._caption()}\n{latex(self._table())}"

    def to_csv(self, path: str | Path) -> None:
        """Write the :meth:`records` to a CSV file, completely or not at all."""
        records = self.records()
        rows = [[_record_cell(value) for value in record.values()] for record in records]
        write_csv(path, Table(list(records[0]), rows))

    def to_pandas(self) -> Any:
        """Return the :meth:`records` as a ``pandas.DataFrame``; needs pandas."""
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ImportError(
                "to_pandas needs pandas: pip install captum-robust[benchmark]"
            ) from error
        return pandas.DataFrame(self.records())

    def _estimate(self, measurement: Measurement, metric: str) -> Estimate:
        share, unknown = (0.0, 1.0), (-math.inf, math.inf)
        bounds = share if metric == PREDICTION_CHANGED else self.ranges.get(metric, unknown)
        return estimate(measurement.values[metric], self.weights, self.confidence, bounds)

    @property
    def _random(self) -> list[str]:
        """Return the metrics that have values over seeds."""
        found = {name for m in self.measurements for name in m.over_seeds}
        return [name for name in self.metrics if name in found]

    def _mean_over_seeds(self, measurement: Measurement, metric: str) -> float:
        values = measurement.over_seeds.get(metric)
        if values is None:
            return float("nan")
        return estimate(values, self.weights, self.confidence).mean

    def _table(self) -> Table:
        rows = [
            [
                m.attribution,
                m.attack,
                *(_cell(self._estimate(m, metric)) for metric in self.metrics),
                *(_mean_cell(self._mean_over_seeds(m, metric)) for metric in self._random),
                self._flags(m),
            ]
            for m in self.measurements
        ]
        over_seeds = [f"{metric}, mean over seeds" for metric in self._random]
        return Table(["attribution", "attack", *self.metrics, *over_seeds, "flags"], rows)

    def _flags(self, measurement: Measurement) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')} {count}/{self.n_examples}"
            for name, count in measurement.flags.items()
        )

    def _caption(self) -> str:
        mean = "Mean" if self.weights is None else "Weighted mean"
        return (
            f"{mean} [{100 * self.confidence:g} % confidence interval] over {self.n_examples} "
            f"examples; {self.norm} ball of radius {self.radius:g}."
        )


def _record_cell(value: str | float) -> Cell:
    return Cell(value) if isinstance(value, str) else Cell(f"{value:g}", value)


def _mean_cell(mean: float) -> str:
    return "" if math.isnan(mean) else f"{mean:#.3g}"


def _cell(found: Estimate) -> str:
    text = f"{found.mean:#.3g} [{found.low:#.3g}, {found.high:#.3g}]"
    return text if found.n_nan == 0 else f"{text} ({found.n_nan} NaN)"
