"""The output of a model that is explained, and the prediction that attacks must keep."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, TargetType, as_tuple, run_forward, select_target
from captum_robust._utils.prediction import Decision
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust._utils.variation import output_varies

__all__ = ["ExplainedOutput", "check_steady", "explained_output", "outputs_of"]

#: The tolerance of a regression without one, as a fraction of the spread of each output.
_FRACTION_OF_SPREAD = 0.1
#: Single outputs that are all beyond this value are no logits: their sigmoid is 1 up to 1e-13.
_NO_LOGIT = 30.0

#: A decision, the same in words, and what was guessed.
Rule = tuple[Decision, str, tuple[str, str] | None]


class ExplainedOutput(NamedTuple):
    """The output that is explained, and the way in which the prediction is read.

    Attributes:
        target: the output in Captum's form; None for a model that returns one value per example.
        description: the choice in words.
        classes: the class that is explained, one per example, where there is one; (N,) int64.
        decision: the rule by which the prediction of a perturbed row is that of the row.
        reading: the rule in words.
        guess: what was guessed about it, as a title and a text; None where nothing was.
    """

    target: TargetType
    description: str
    classes: Tensor | None
    decision: Decision
    reading: str
    guess: tuple[str, str] | None

    def read(self, outputs: Tensor) -> Tensor:
        """Return the predicted labels, or the outputs of a regression; one row per example."""
        read = self.decision.read(self.decision.of_target(outputs, self.target))
        return read.detach().cpu().reshape(len(outputs), -1)


def outputs_of(model: nn.Module, inputs: Inputs, additional_forward_args: Any, seed: int) -> Tensor:
    """Return the outputs of the model, detached; model and random state are left as found."""
    with left_as_found(model), seeded(seed), torch.no_grad():
        return run_forward(model, as_tuple(inputs), additional_forward_args).detach()


def check_steady(model: nn.Module, inputs: Inputs, additional_forward_args: Any, seed: int) -> None:
    """Raise ValueError for a model whose outputs depend on chance or on the other rows."""
    points, arguments = as_tuple(inputs), {"extra": additional_forward_args}

    def evaluate(rows: Tensor) -> Tensor:
        own = kwargs_of_examples(arguments, rows, len(points[0]))
        return run_forward(model, tuple(t[rows.to(t.device)] for t in points), own["extra"])

    with left_as_found(model):
        varies = output_varies(evaluate, len(points[0]), seed)
    if varies:
        raise ValueError(
            "model must give a row one output, whatever the random numbers and the other rows, got "
            "two outputs for one row: turn off dropout and batch statistics"
        )


def explained_output(
    outputs: Tensor,
    target: TargetType,
    decision_func: Callable[[Tensor], Tensor] | None,
    tolerance: float | Tensor | None = None,
    labels: Tensor | None = None,
) -> ExplainedOutput:
    """Choose the output of a model that is explained, and the rule that keeps its prediction.

    A single output is explained whatever the target, and ``target`` holds the classes 0 and 1. Of
    several outputs, ``target`` is explained, or by default the predicted class. ``labels`` or
    ``target`` that are no classes show a regression.
    """
    single = outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)
    if decision_func is not None and tolerance is not None:
        raise ValueError("decision_func and tolerance exclude each other, got both")
    given = decision_func is not None or tolerance is not None
    regression = tolerance is not None or (
        not given and _is_regression(outputs, single, labels, target)
    )
    if regression:
        rule = _regression(outputs, tolerance)
    else:
        rule = _decision(outputs, single, decision_func)
    classes = None if regression else _classes(target, len(outputs))
    if single:
        if classes is not None and bool(((classes != 0) & (classes != 1)).any()):
            raise ValueError(
                "target must be 0 or 1 for a model with a single output, which is the one that is "
                f"explained; got {sorted(set(classes.tolist()))[:5]}. For a regression pass "
                "tolerance, how far the output may move"
            )
        only = None if outputs.dim() == 1 else 0
        return ExplainedOutput(only, "the only output", classes, *rule)
    if target is not None:
        select_target(outputs, target)  # raises an error for a wrong one
        return ExplainedOutput(target, "the given target", classes, *rule)
    if outputs.dim() != 2 or regression:
        raise ValueError(
            f"target must be given for outputs of shape {tuple(outputs.shape)}: which is explained?"
        )
    predicted = outputs.nan_to_num(-math.inf).argmax(dim=1)
    return ExplainedOutput(predicted, "the predicted class", None, *rule)


def _is_regression(
    outputs: Tensor, single: bool, labels: Tensor | None, target: TargetType
) -> bool:
    """Return whether labels, targets or a single output show that outputs are no logits."""
    for values in (labels, target):
        if isinstance(values, Tensor) and values.numel() > 1:
            fractions = values.is_floating_point() and not torch.equal(values, values.round())
            many = values is labels and single and len(values.unique()) > 2
            if fractions or many:
                return True
    known = outputs[outputs.isfinite()]
    if not single or len(known) < 2:
        return False
    return bool((known > _NO_LOGIT).all() or (known < -_NO_LOGIT).all())


def _regression(outputs: Tensor, given: float | Tensor | None) -> Rule:
    """Return the rule that outputs stay near those of the row; by default a tenth of their spread.

    Raises:
        ValueError: if the outputs have no spread.
    """
    if given is not None:
        return Decision(tolerance=given), f"each output moves by at most {_number(given)}", None
    spread = outputs.detach().double().cpu().flatten(1 if outputs.dim() > 1 else 0)
    spread = spread.reshape(len(outputs), -1)
    derived = _FRACTION_OF_SPREAD * spread[spread.isfinite().all(dim=1)].std(dim=0)
    if not bool((derived > 0).all()):
        raise ValueError(
            "tolerance must be given, how far an output of a regression may move: the outputs of "
            "these rows do not differ"
        )
    tolerance: float | Tensor = float(derived) if derived.numel() == 1 else derived
    reading = f"each output moves by at most {_number(tolerance)}, a tenth of its spread"
    guess = (
        "The model was read as a regression",
        f"The values are no classes, so a prediction counts as kept while each output moves by at "
        f"most {_number(tolerance)}, a tenth of the standard deviation of the outputs of these "
        "rows. Pass tolerance for another limit, in units of the output.",
    )
    return Decision(tolerance=tolerance), reading, guess


def _number(values: float | Tensor) -> str:
    return ", ".join(f"{v:.3g}" for v in torch.as_tensor(values).reshape(-1).tolist())


def _decision(outputs: Tensor, single: bool, given: Callable[[Tensor], Tensor] | None) -> Rule:
    """Return the rule that predicted labels stay."""
    if given is not None:
        return Decision(given), "decision_func of the caller", None
    if outputs.dim() > 2:
        return Decision(), "the largest output at the explained position", None
    if not single:
        return Decision(), "the largest output", None
    known = outputs[outputs.isfinite()]
    if len(known) and bool(((known >= 0) & (known <= 1)).all()):
        guess = (
            "Outputs were read as probabilities",
            "All outputs lie between 0 and 1, so the predicted class is 1 where the output exceeds "
            "0.5. If they are logits, pass decision_func: otherwise the attacks keep a prediction "
            "that is not that of the model.",
        )
        return Decision(_above_half), "class 1 where the output exceeds 0.5", guess
    return Decision(), "class 1 where the output exceeds 0", None


def _above_half(outputs: Tensor) -> Tensor:
    return outputs.reshape(len(outputs)) > 0.5


def _classes(target: Any, n_rows: int) -> Tensor | None:
    """Return one class per example on the CPU, if the target holds classes."""
    try:
        classes = torch.as_tensor(target).detach().cpu()
    except (RuntimeError, TypeError, ValueError):
        return None
    if classes.is_floating_point() or classes.numel() not in (1, n_rows):
        return None
    return classes.reshape(-1).long().expand(n_rows)
