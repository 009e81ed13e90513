"""The audit of one explanation: its attacks, its measures and its certificate."""

from collections.abc import Callable
from functools import partial
from typing import Any

from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust.attr import NotDifferentiableError, is_differentiable
from captum_robust.auditing.certificate import certify
from captum_robust.auditing.configuration import AuditConfig
from captum_robust.auditing.numbers import (
    ENSEMBLE,
    OVER_SEEDS,
    OWN_GRADIENT,
    AuditedExplanation,
    Trial,
)
from captum_robust.auditing.row_measures import ROW_MEASURES
from captum_robust.metrics import precision_at_k
from captum_robust.ranking import (
    flatten_attributions,
    invalid_rows,
    non_finite_rows,
    tied_rows,
    top_k_indices,
)
from captum_robust.robust.auto import AutoERAttack
from captum_robust.robust.er import ERAttack
from captum_robust.robust.evaluation.comparator import ExplanationComparator
from captum_robust.robust.evaluation.robustness_table import PREDICTION_CHANGED, RobustnessTable
from captum_robust.robust.evaluation.scoring import Scorer

__all__ = ["METRICS", "audit_explanation", "scores_of"]

#: The metrics of each attack, functions of attributions and reference attributions, which are made
#: for the configuration of the audit. A metric added here is stored, and the report shows its mean.
METRICS: dict[str, Callable[[AuditConfig], Callable[..., Tensor]]] = {
    "precision": lambda config: partial(precision_at_k, **config.ranking),
}


def scores_of(
    attribution: Attribution, arguments: dict[str, Any], config: AuditConfig, points: Inputs
) -> Tensor:
    """Return the scores that are ranked, (N, n), on the CPU."""
    scorer = Scorer(
        attribution, {**arguments, **config.model_arguments}, config.seed,
        config.max_examples_per_batch,
    )  # fmt: skip
    maps = scorer.maps(points)
    return flatten_attributions(maps, config.feature_mask, config.absolute).cpu()


def audit_explanation(
    name: str,
    attribution: Attribution,
    arguments: dict[str, Any],
    config: AuditConfig,
    bar: "tqdm[Any]",
) -> AuditedExplanation:
    """Attack the explanations of one attribution, measure them, and prove what can be proven."""
    scores = scores_of(attribution, arguments, config, config.inputs)
    unranked = invalid_rows(scores) | non_finite_rows(as_tuple(config.inputs)).cpu()
    tied = tied_rows(scores, config.k) & ~unranked
    without = unranked | tied
    # Measures come first: an error in one of them must not cost the attacks.
    bar.set_description(f"{name}: measures")
    measures = {
        title: _masked(measure.measure(attribution, arguments, config), without)
        for title, measure in ROW_MEASURES.items()
    }
    trials: list[Trial] = []
    points: Inputs | None = None
    for radius in config.radii:
        bar.set_description(f"{name}: attacks within {radius:g}")
        table = _attack(name, attribution, arguments, config, radius, points)
        points = table[name, ENSEMBLE].perturbed
        for m in table.measurements:
            over_seeds = {OVER_SEEDS: m.over_seeds["precision"]} if m.over_seeds else {}
            # A top set that changes with the prediction is no change of the explanation alone.
            changed = m.values[PREDICTION_CHANGED] == 1
            values = {
                metric: _masked(v, without if metric == PREDICTION_CHANGED else without | changed)
                for metric, v in {**m.values, **over_seeds}.items()
            }
            trials.append(Trial(m.attack, radius, values, dict(m.flags)))
        bar.update()
    assert points is not None
    bar.set_description(f"{name}: certificate")
    certified, not_certified = certify(attribution, arguments, config)
    after = scores_of(attribution, arguments, config, _like(points, config.inputs))
    has_gradient = any(trial.attack == OWN_GRADIENT for trial in trials)
    without_one = type(attribution).__name__
    if is_differentiable(attribution):  # but an operation of the network is not, twice
        without_one = f"{without_one} of this network"
    bar.update()
    return AuditedExplanation(
        name=name,
        arguments=_described(attribution, arguments),
        trials=tuple(trials),
        tied=tuple(tied.tolist()),
        measures=measures,
        certified=None if certified is None else _masked(certified, unranked),
        not_certified=not_certified,
        not_attacked="" if has_gradient else f"{without_one} has no gradient",
        top_before=_top(scores, config.k, without),
        top_after=_top(after, config.k, without | invalid_rows(after)),
    )


def _attack(
    name: str,
    attribution: Attribution,
    arguments: dict[str, Any],
    config: AuditConfig,
    radius: float,
    start: Inputs | None,
) -> RobustnessTable:
    """Attack by random noise, by the published attack where it applies, and by all together.

    All together start from the points that they found within a smaller radius.
    """
    options = {**config.ranking, **config.bounds, **config.prediction}
    begin = {} if start is None else {"start": _like(start, config.inputs)}
    attacks: dict[str, Any] = {ENSEMBLE: (partial(AutoERAttack, **options), begin)}
    if is_differentiable(attribution):
        attacks = {OWN_GRADIENT: partial(ERAttack, **options), **attacks}
    metrics = {name: make(config) for name, make in METRICS.items()}

    def evaluate(attacks: dict[str, Any]) -> RobustnessTable:
        comparator = ExplanationComparator(
            {name: (attribution, arguments)}, attacks, metrics, **config.bounds,
            **config.prediction,
        )  # fmt: skip
        table: RobustnessTable = comparator.evaluate(
            config.inputs, radius, config.target, config.additional_forward_args, norm=config.norm,
            seed=config.seed, max_examples_per_batch=config.max_examples_per_batch,
            return_perturbed=True,
        )  # fmt: skip
        return table

    try:
        return evaluate(attacks)
    except NotDifferentiableError:  # all together go on without the gradient
        return evaluate({n: attack for n, attack in attacks.items() if n != OWN_GRADIENT})


def _top(scores: Tensor, k: int, without: Tensor) -> tuple[tuple[int, ...], ...]:
    top = top_k_indices(scores.nan_to_num(), k).tolist()
    return tuple(
        () if none else tuple(row) for row, none in zip(top, without.tolist(), strict=True)
    )


def _masked(values: Tensor, without: Tensor) -> tuple[float, ...]:
    return tuple(values.double().cpu().masked_fill(without, float("nan")).tolist())


def _like(points: Inputs, inputs: Inputs) -> Inputs:
    """Move perturbed inputs from the CPU to the devices of the inputs."""
    if isinstance(points, Tensor):
        return points.to(as_tuple(inputs)[0].device)
    return tuple(p.to(x.device) for p, x in zip(points, as_tuple(inputs), strict=True))


def _described(attribution: Attribution, arguments: dict[str, Any]) -> str:
    """Return a description such as ``"NoiseTunnel(Saliency), nt_samples = 20"``."""
    inner = getattr(attribution, "attribution_method", None)
    kind = type(attribution).__name__ + (f"({type(inner).__name__})" if inner is not None else "")
    values = [f"{name} = {_value(value)}" for name, value in arguments.items()]
    return ", ".join([kind, *values])


def _value(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return f"{value:g}" if isinstance(value, float) else str(value)
