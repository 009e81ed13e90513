"""The output of a model that is explained, and the prediction that attacks must keep."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, TargetType, as_tuple, run_forward, select_target
from captum_robust._utils.prediction import predicted_labels
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found

__all__ = ["ExplainedOutput", "explained_output", "outputs_of"]


class ExplainedOutput(NamedTuple):
    """The output that is explained, and the way in which the prediction is read.

    Attributes:
        target: the output in Captum's form; None for a model that returns one value per example.
        description: the choice in words.
        classes: the class that is explained, one per example, where there is one; (N,) int64.
        decision: predicted labels (N,) from outputs.
        reading: the way in which the prediction is read, in words.
        is_guessed: whether that is a guess.
    """

    target: TargetType
    description: str
    classes: Tensor | None
    decision: Callable[[Tensor], Tensor]
    reading: str
    is_guessed: bool


def outputs_of(model: nn.Module, inputs: Inputs, additional_forward_args: Any, seed: int) -> Tensor:
    """Return the outputs of the model, detached; model and random state are left as found."""
    with left_as_found(model), seeded(seed), torch.no_grad():
        return run_forward(model, as_tuple(inputs), additional_forward_args).detach()


def explained_output(
    outputs: Tensor, target: TargetType, decision_func: Callable[[Tensor], Tensor] | None
) -> ExplainedOutput:
    """Choose the output of a classifier that is explained.

    A single output is explained whatever the target, and ``target`` holds the classes 0 and 1. Of
    several outputs, ``target`` is explained, or by default the predicted class.
    """
    single = outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)
    decision = _decision(outputs, single, decision_func)
    classes = _classes(target, len(outputs))
    if single:
        if classes is not None and bool(((classes != 0) & (classes != 1)).any()):
            raise ValueError(
                "target must be 0 or 1 for a model with a single output, which is the one that is "
                f"explained; got {sorted(set(classes.tolist()))[:5]}"
            )
        only = None if outputs.dim() == 1 else 0
        return ExplainedOutput(only, "the only output", classes, *decision)
    if target is not None:
        select_target(outputs, target)  # raises an error for a wrong one
        return ExplainedOutput(target, "the given target", classes, *decision)
    if outputs.dim() != 2:
        raise ValueError(
            f"target must be given for outputs of shape {tuple(outputs.shape)}: which is explained?"
        )
    predicted = outputs.nan_to_num(-math.inf).argmax(dim=1)
    return ExplainedOutput(predicted, "the predicted class", None, *decision)


def _decision(
    outputs: Tensor, single: bool, given: Callable[[Tensor], Tensor] | None
) -> tuple[Callable[[Tensor], Tensor], str, bool]:
    """Return predicted labels from outputs, this choice in words, and whether it is a guess."""
    if given is not None:
        return given, "decision_func of the caller", False
    if not single:
        return predicted_labels, "the largest output", False
    known = outputs[outputs.isfinite()]
    if len(known) and bool(((known >= 0) & (known <= 1)).all()):
        return _above_half, "class 1 where the output exceeds 0.5", True
    return predicted_labels, "class 1 where the output exceeds 0", False


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
