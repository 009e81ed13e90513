"""A comparison that collects batches and returns a table."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.captum import Inputs, Perturbation, TargetType, as_tuple, format_like
from captum_robust._utils.movement import UnmovedWarning
from captum_robust._utils.prediction import Decision
from captum_robust.noise import Norm
from captum_robust.ranking import non_finite_rows
from captum_robust.robust._search.evaluator import Predictions
from captum_robust.robust.evaluation.calls import call_attack, noted_zero_gradient
from captum_robust.robust.evaluation.displacement import displacement_flags, untested_rows
from captum_robust.robust.evaluation.ranges import range_of
from captum_robust.robust.evaluation.robustness_table import (
    NOISE_FLOOR,
    PREDICTION_CHANGED,
    Measurement,
    RobustnessTable,
)
from captum_robust.robust.evaluation.scoring import OtherSeeds, Scorer

__all__ = ["Batch", "Comparison", "Metric"]

#: From attributions and reference attributions to one value per example, (N,).
Metric = Callable[[Inputs, Inputs], Tensor]


@dataclass(frozen=True)
class Batch:
    """Examples with their targets, additional arguments and weights."""

    inputs: Inputs
    target: TargetType = None
    additional_forward_args: Any = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.n_examples == 0:
            raise ValueError("inputs must hold at least one example, got none")
        w = self.weights
        if w is not None and (
            tuple(w.shape) != (self.n_examples,) or not bool((w.isfinite() & (w >= 0)).all())
        ):
            raise ValueError(
                f"weights must be finite, not negative and of shape ({self.n_examples},), got {w}"
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Batch:
        """Return the batch that a ``batch_func`` describes."""
        unknown = set(given) - set(cls.__dataclass_fields__)
        if unknown or "inputs" not in given:
            raise ValueError(
                f"batch_func must return a dict with 'inputs' and any of "
                f"{list(cls.__dataclass_fields__)[1:]}, got {list(given)}"
            )
        inputs = given["inputs"]  # collate functions make lists of tuples
        return cls(**{**given, "inputs": tuple(inputs) if isinstance(inputs, list) else inputs})

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(as_tuple(self.inputs)[0])

    @property
    def arguments(self) -> dict[str, Any]:
        """Target and additional arguments, if any."""
        given = {
            "target": self.target, "additional_forward_args": self.additional_forward_args,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


@dataclass
class _Tally:
    """Results of one attack on one attribution in the batches so far."""

    values: list[dict[str, Tensor]] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    perturbed: list[tuple[Tensor, ...]] = field(default_factory=list)
    over_seeds: list[dict[str, Tensor]] = field(default_factory=list)


@dataclass
class Comparison:
    """Attacks bound to attributions, and their results so far."""

    attributions: dict[str, tuple[Attribution, dict[str, Any]]]
    attacks: dict[str, dict[str, tuple[Perturbation, dict[str, Any]]]]  # for each attribution
    metrics: dict[str, Metric]
    decision: Decision
    predictions: Predictions | None
    confidence: float
    radius: float
    norm: Norm
    seed: int
    max_examples_per_batch: int | None
    keep_perturbed: bool

    def __post_init__(self) -> None:
        self._tallies = {(name, a): _Tally() for name, own in self.attacks.items() for a in own}
        self._weights: list[Tensor | None] = []
        self._n_examples: list[int] = []
        self._given: Inputs = ()

    def progress_bar(self, n_batches: int | None, show: bool) -> tqdm[Any]:
        """Return a bar over the attacks on all attributions in all batches."""
        total = None if n_batches is None else n_batches * len(self._tallies)
        return tqdm(total=total, disable=not show, unit="attack")

    def add(self, batch: Batch, progress: Callable[[], Any]) -> None:
        """Attack and explain a batch, and record the values of the metrics."""
        self._given = batch.inputs
        self._weights.append(batch.weights)
        self._n_examples.append(batch.n_examples)
        attacked: dict[tuple[str, int], tuple[Inputs, dict[str, int], Tensor]] = {}
        for name, (attribution, arguments) in self.attributions.items():
            scorer = Scorer(
                attribution, {**arguments, **batch.arguments}, self.seed,
                self.max_examples_per_batch,
            )  # fmt: skip
            reference, before = scorer.maps_and_results(
                batch.inputs, self.predictions, self.decision
            )
            unsound = non_finite_rows((*as_tuple(batch.inputs), *before))
            measure = partial(self._measure, n_examples=batch.n_examples)
            seeds = OtherSeeds(scorer, batch.inputs, measure) if scorer.is_random else None
            if seeds is not None:
                floor = {**seeds.noise_floor, PREDICTION_CHANGED: torch.zeros(batch.n_examples)}
                tally = self._tallies.setdefault((name, NOISE_FLOOR), _Tally())
                tally.values.append(_masked(floor, unsound.cpu()))
                if self.keep_perturbed:
                    tally.perturbed.append(tuple(t.detach().cpu() for t in as_tuple(batch.inputs)))
            for attack_name, (attack, options) in self.attacks[name].items():
                key = (attack_name, id(attack))  # one attack for several attributions perturbs once
                if key not in attacked:
                    attacked[key] = self._attack(attack, options, batch)
                points, flags, untested = attacked[key]
                maps, after = scorer.maps_and_results(points, self.predictions, self.decision)
                values = measure(maps, reference)
                values[PREDICTION_CHANGED] = self._changed(after, before)
                # The map of a ReLU network may be finite where its input is not.
                broken = (unsound | untested | non_finite_rows((*as_tuple(points), *after))).cpu()
                tally = self._tallies[name, attack_name]
                tally.values.append(_masked(values, broken))
                tally.over_seeds.append(_masked(seeds.means(points) if seeds else {}, broken))
                tally.flags.update(flags)
                if self.keep_perturbed:
                    tally.perturbed.append(tuple(t.cpu() for t in as_tuple(points)))
                progress()

    def table(self) -> RobustnessTable:
        """Return the table of all batches."""
        if not self._n_examples:
            raise ValueError("loader must yield at least one batch, got none")
        weights = None
        if any(w is not None for w in self._weights):
            weights = torch.cat(
                [
                    torch.ones(n, dtype=torch.float64) if w is None else w.detach().cpu().double()
                    for w, n in zip(self._weights, self._n_examples, strict=True)
                ]
            )
        measurements = tuple(
            Measurement(
                attribution=name,
                attack=attack_name,
                values=_joined(t.values),
                over_seeds=_joined(t.over_seeds),
                flags=dict(t.flags),
                perturbed=(
                    format_like(self._given, tuple(map(torch.cat, zip(*t.perturbed, strict=True))))
                    if self.keep_perturbed
                    else None
                ),
            )
            for name in self.attributions
            for attack_name in (NOISE_FLOOR, *self.attacks[name])
            if (t := self._tallies.get((name, attack_name))) is not None
        )
        found = {name: range_of(metric) for name, metric in self.metrics.items()}
        ranges = {name: bounds for name, bounds in found.items() if bounds is not None}
        return RobustnessTable(
            measurements, self.radius, self.norm, weights, self.confidence, ranges
        )

    def _attack(
        self, attack: Perturbation, options: dict[str, Any], batch: Batch
    ) -> tuple[Inputs, dict[str, int], Tensor]:
        """Return the perturbed inputs, the flags of the attack, and the examples not tested."""
        offered = {
            **batch.arguments, "norm": self.norm, "seed": self.seed, "return_info": True,
            "max_examples_per_batch": self.max_examples_per_batch,
        }  # fmt: skip
        with noted_zero_gradient() as warned:
            warnings.simplefilter("ignore", UnmovedWarning)  # the flag says so
            points, info = call_attack(attack, batch.inputs, self.radius, options, offered)
        flags = dict(getattr(info, "flags", {}))
        if warned and "zero_gradient" not in flags:
            flags["zero_gradient"] = batch.n_examples
        flags |= displacement_flags(points, batch.inputs, self.radius, self.norm)
        untested = untested_rows(attack, options, points, batch.inputs, self.radius, self.norm)
        return points, flags, untested

    def _measure(self, maps: Inputs, reference: Inputs, n_examples: int) -> dict[str, Tensor]:
        """Return the values of all metrics of two maps."""
        return {
            name: _values(name, metric(maps, reference), n_examples)
            for name, metric in self.metrics.items()
        }

    def _changed(self, results: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> Tensor:
        """Return 1 where the prediction, or one of several, changed, else 0; (N,)."""
        decision = self.decision
        kept = [
            decision.agree(decision.read(now), decision.read(earlier))
            for now, earlier in zip(results, before, strict=True)
        ]
        return (~torch.stack(kept).all(dim=0)).double().cpu()


def _masked(values: dict[str, Tensor], broken: Tensor) -> dict[str, Tensor]:
    """Return values that are NaN for broken examples."""
    return {name: v.double().masked_fill(broken, float("nan")) for name, v in values.items()}


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Join the values of the batches; none where a batch has none."""
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    return {name: torch.cat([part[name] for part in parts]) for name in names}


def _values(name: str, values: Any, n_examples: int) -> Tensor:
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if shape != (n_examples,):
        raise ValueError(
            f"metrics[{name!r}] must return one value per example, shape ({n_examples},), "
            f"got {shape}"
        )
    found: Tensor = values.detach().double().cpu()
    return found
