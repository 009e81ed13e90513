"""Everything there is, against the explanations of one attribution."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import Attribution, Saliency
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_robust._utils.captum import Inputs, TargetType, as_tuple, run_forward
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust.attr import is_differentiable
from captum_robust.auditing.result import ENSEMBLE, OWN_GRADIENT, AuditedExplanation, Trial
from captum_robust.certify.network import read_network
from captum_robust.metrics import certified_top_k_radius, precision_at_k, ranking_thickness
from captum_robust.noise import Norm, UniformNoise
from captum_robust.ranking import flatten_attributions, invalid_rows, non_finite_rows, top_k_indices
from captum_robust.robust.auto import AutoERAttack
from captum_robust.robust.er import ERAttack
from captum_robust.robust.evaluation.comparator import ExplanationComparator
from captum_robust.robust.evaluation.robustness_table import PREDICTION_CHANGED, RobustnessTable
from captum_robust.robust.evaluation.scoring import Scorer

__all__ = ["Question", "audited", "outputs_of", "scores_of"]

#: From this many hidden units on, a certificate of 100 rows takes minutes.
_MOST_HIDDEN_UNITS = 256
_N_STEPS_OF_THICKNESS = 16


@dataclass(frozen=True)
class Question:
    """What is asked of every explanation."""

    model: nn.Module
    inputs: Inputs
    target: TargetType
    additional_forward_args: Any
    k: int
    radii: tuple[float, ...]
    norm: Norm
    absolute: bool
    feature_mask: Inputs | None
    lower_bound: float | Tensor
    upper_bound: float | Tensor
    decision_func: Callable[[Tensor], Tensor]
    seed: int
    max_examples_per_batch: int | None

    @property
    def ranking(self) -> dict[str, Any]:
        """What is ranked, in the arguments of attacks and metrics."""
        return {"k": self.k, "absolute": self.absolute, "feature_mask": self.feature_mask}

    @property
    def n_rows(self) -> int:
        """Number of examples."""
        return len(as_tuple(self.inputs)[0])

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Target and additional arguments, where there are any."""
        given = {
            "target": self.target, "additional_forward_args": self.additional_forward_args,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}

    @property
    def n_steps(self) -> int:
        """Number of times that :func:`audited` moves the bar."""
        return len(self.radii) + 1


def scores_of(
    question: Question, attribution: Attribution, arguments: dict[str, Any], points: Inputs
) -> Tensor:
    """The scores (N, n) that are ranked; on the CPU."""
    scorer = Scorer(
        attribution, {**arguments, **question.model_arguments}, question.seed,
        question.max_examples_per_batch,
    )  # fmt: skip
    maps = scorer.maps(points)
    return flatten_attributions(maps, question.feature_mask, question.absolute).cpu()


def audited(
    name: str,
    attribution: Attribution,
    arguments: dict[str, Any],
    question: Question,
    bar: "tqdm[Any]",
) -> AuditedExplanation:
    """Attack the explanations of one attribution, measure them, and prove what can be proven."""
    scores = scores_of(question, attribution, arguments, question.inputs)
    unranked = invalid_rows(scores) | non_finite_rows(as_tuple(question.inputs)).cpu()
    tied = _tied(scores, question.k) & ~unranked
    without = unranked | tied
    trials: list[Trial] = []
    points: Inputs | None = None
    for radius in question.radii:
        bar.set_description(f"{name}: attacks within {radius:g}")
        table = _attacked(name, attribution, arguments, question, radius, points)
        points = table[name, ENSEMBLE].perturbed
        trials += [
            Trial(
                m.attack, radius, _masked(m.values["precision"], without),
                _masked(m.values[PREDICTION_CHANGED], without), dict(m.flags),
            )
            for m in table.measurements
        ]  # fmt: skip
        bar.update()
    assert points is not None
    bar.set_description(f"{name}: thickness and certificate")
    thickness = _thickness(attribution, arguments, question)
    certified, not_certified = _certified(attribution, arguments, question)
    after = scores_of(question, attribution, arguments, _moved(points, question.inputs))
    differentiable = is_differentiable(attribution)
    bar.update()
    return AuditedExplanation(
        name=name,
        arguments=_said(attribution, arguments),
        trials=tuple(trials),
        tied=tuple(tied.tolist()),
        thickness=_masked(thickness, without),
        certified=None if certified is None else _masked(certified, unranked),
        not_certified=not_certified,
        not_attacked="" if differentiable else f"{type(attribution).__name__} has no gradient",
        top_before=_top(scores, question.k, without),
        top_after=_top(after, question.k, without | invalid_rows(after)),
    )


def _attacked(
    name: str,
    attribution: Attribution,
    arguments: dict[str, Any],
    q: Question,
    radius: float,
    start: Inputs | None,
) -> RobustnessTable:
    """Noise, the own gradient where there is one, and the ensemble, from where it came before."""
    bounds: dict[str, Any] = {"lower_bound": q.lower_bound, "upper_bound": q.upper_bound}
    options = {**q.ranking, **bounds, "decision_func": q.decision_func}
    begin = {} if start is None else {"start": _moved(start, q.inputs)}
    attacks: dict[str, Any] = {ENSEMBLE: (partial(AutoERAttack, **options), begin)}
    if is_differentiable(attribution):
        attacks = {OWN_GRADIENT: partial(ERAttack, **options), **attacks}
    comparator = ExplanationComparator(
        {name: (attribution, arguments)}, attacks,
        {"precision": partial(precision_at_k, **q.ranking)}, **bounds,
        decision_func=q.decision_func,
    )  # fmt: skip
    table: RobustnessTable = comparator.evaluate(
        q.inputs, radius, q.target, q.additional_forward_args, norm=q.norm, seed=q.seed,
        max_examples_per_batch=q.max_examples_per_batch, return_perturbed=True,
    )  # fmt: skip
    return table


def _thickness(attribution: Attribution, arguments: dict[str, Any], question: Question) -> Tensor:
    noise = UniformNoise(question.norm, question.lower_bound, question.upper_bound)
    explain = partial(attribution.attribute, **arguments)
    return ranking_thickness(
        explain, question.inputs, **question.ranking, perturb_func=noise,
        perturb_radius=question.radii[-1], n_steps=_N_STEPS_OF_THICKNESS,
        max_examples_per_batch=question.max_examples_per_batch, seed=question.seed,
        **question.model_arguments,
    ).double().cpu()  # fmt: skip


def _certified(
    attribution: Attribution, arguments: dict[str, Any], question: Question
) -> tuple[Tensor | None, str]:
    """The certified radii, or why there are none."""
    if type(attribution) is not Saliency:
        return (
            None,
            f"only Saliency can be proven, and this is {type(attribution).__name__}",
        )
    if set(arguments) - {"abs"}:
        return None, f"Saliency was called with {', '.join(arguments)}"
    if attribution.forward_func is not question.model:
        return None, "the attribution explains a function around the model"
    if question.feature_mask is not None or isinstance(question.inputs, tuple):
        return None, "there is a proof for single features of a single input tensor alone"
    if question.additional_forward_args is not None:
        return None, "there is a proof for models without further arguments alone"
    try:
        _, *hidden, _ = read_network(question.model).widths
    except ValueError as error:
        reason = str(error).partition(", got ")[2].partition(";")[0]
        return None, f"no bound is known for {reason}"
    if sum(hidden) > _MOST_HIDDEN_UNITS:
        return None, (
            f"the network has {sum(hidden)} hidden units, and from {_MOST_HIDDEN_UNITS} on a proof "
            "takes minutes: call captum_robust.metrics.certified_top_k_radius"
        )
    assert isinstance(question.inputs, Tensor)
    absolute = question.absolute or bool(arguments.get("abs", True))
    return certified_top_k_radius(
        question.model, question.inputs, question.k, question.target, question.norm,
        max_radius=question.radii[-1], absolute=absolute,
    ).cpu(), ""  # fmt: skip


def _tied(scores: Tensor, k: int) -> Tensor:
    """Rows whose k-th score equals the next, so that no top k is theirs; (N,) bool."""
    highest = scores.nan_to_num().topk(k + 1, dim=1).values
    return highest[:, k - 1] == highest[:, k]


def _top(scores: Tensor, k: int, without: Tensor) -> tuple[tuple[int, ...], ...]:
    top = top_k_indices(scores.nan_to_num(), k).tolist()
    return tuple(
        () if none else tuple(row) for row, none in zip(top, without.tolist(), strict=True)
    )


def _masked(values: Tensor, without: Tensor) -> tuple[float, ...]:
    return tuple(values.double().cpu().masked_fill(without, float("nan")).tolist())


def _moved(points: Inputs, inputs: Inputs) -> Inputs:
    """Perturbed inputs from the CPU to where the inputs are."""
    if isinstance(points, Tensor):
        return points.to(as_tuple(inputs)[0].device)
    return tuple(p.to(x.device) for p, x in zip(points, as_tuple(inputs), strict=True))


def _said(attribution: Attribution, arguments: dict[str, Any]) -> str:
    """``"NoiseTunnel(Saliency), nt_samples = 20"``."""
    inner = getattr(attribution, "attribution_method", None)
    kind = type(attribution).__name__ + (f"({type(inner).__name__})" if inner is not None else "")
    values = [f"{name} = {_value(value)}" for name, value in arguments.items()]
    return ", ".join([kind, *values])


def _value(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor of shape {tuple(value.shape)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def outputs_of(model: nn.Module, inputs: Inputs, additional_forward_args: Any, seed: int) -> Tensor:
    """The outputs of the model, detached; model and random state are left as found."""
    with left_as_found(model), seeded(seed), torch.no_grad():
        return run_forward(model, as_tuple(inputs), additional_forward_args).detach()
