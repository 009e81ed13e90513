"""What an audit chooses where the caller chose nothing."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, TargetType, as_tuple, select_target
from captum_robust._utils.prediction import predicted_labels
from captum_robust.ranking import check_k

__all__ = ["Output", "default_k", "explained_output", "radii_of", "typical_spread"]

_SHARE_OF_SPREAD = 0.1
_SHARES_OF_RADIUS = (0.25, 0.5, 1.0)


class Output(NamedTuple):
    """Which output of the model is explained, and how its prediction is read.

    Attributes:
        target: in Captum's form; None for a model that returns one value an example.
        said: the choice in words.
        expected: the class that is explained, one an example, where there is one; (N,) int64.
        decision: predicted labels (N,) from outputs.
        reading: how the prediction is read, in words.
        guessed: whether that had to be guessed.
    """

    target: TargetType
    said: str
    expected: Tensor | None
    decision: Callable[[Tensor], Tensor]
    reading: str
    guessed: bool


def explained_output(
    outputs: Tensor, target: TargetType, decision_func: Callable[[Tensor], Tensor] | None
) -> Output:
    """The output of a classifier that is explained, from its outputs and what the caller gave.

    Of a model with a single output, that output is explained, and ``target`` are the classes 0 and
    1; of another, the output ``target``, or that of the predicted class.
    """
    single = outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)
    decision, reading, guessed = _decision(outputs, single, decision_func)
    expected = _classes(target, len(outputs))
    if single:
        if expected is not None and bool(((expected != 0) & (expected != 1)).any()):
            raise ValueError(
                "target must be 0 or 1 for a model with a single output, which is the one that is "
                f"explained; got {sorted(set(expected.tolist()))[:5]}"
            )
        only = None if outputs.dim() == 1 else 0
        return Output(only, "the only output", expected, decision, reading, guessed)
    if target is not None:
        select_target(outputs, target)  # says what is wrong with it
        return Output(target, "the given target", expected, decision, reading, guessed)
    if outputs.dim() != 2:
        raise ValueError(
            f"target must be given for outputs of shape {tuple(outputs.shape)}: which is explained?"
        )
    own = outputs.nan_to_num(-math.inf).argmax(dim=1)
    return Output(own, "the predicted class", None, decision, reading, guessed)


def _decision(
    outputs: Tensor, single: bool, given: Callable[[Tensor], Tensor] | None
) -> tuple[Callable[[Tensor], Tensor], str, bool]:
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
    """One class an example, if that is what a target says; on the CPU."""
    try:
        classes = torch.as_tensor(target).detach().cpu()
    except (RuntimeError, TypeError, ValueError):
        return None
    if classes.is_floating_point() or classes.numel() not in (1, n_rows):
        return None
    return classes.reshape(-1).long().expand(n_rows)


def default_k(k: int | None, n_features: int) -> int:
    """``k`` itself, or 8, at most a third of the features."""
    if n_features < 2:
        raise ValueError(f"inputs must have at least two features to rank, got {n_features}")
    chosen = max(1, min(8, n_features // 3)) if k is None else k
    check_k(chosen, n_features)
    return chosen


def radii_of(radius: float | Sequence[float] | None, inputs: Inputs) -> tuple[float, ...]:
    """The radii in ascending order: those given, or a quarter, half and all of the one given.

    None: a tenth of the typical standard deviation of a feature.
    """
    if radius is None:
        radius = float(f"{_SHARE_OF_SPREAD * typical_spread(inputs):.2g}")
    if isinstance(radius, int | float):
        given = [share * radius for share in _SHARES_OF_RADIUS]
    else:
        given = list(radius)
    valid = all(isinstance(r, int | float) and 0 < r < math.inf for r in given)
    if not given or not valid:
        raise ValueError(f"radius must be positive and finite, one or several, got {radius}")
    return tuple(sorted({float(r) for r in given}))


def typical_spread(inputs: Inputs) -> float:
    """Median over the features of their standard deviations, of those that vary; else 1."""
    spreads = spreads_of(inputs)
    return float(spreads.median()) if len(spreads) else 1.0


def spreads_of(inputs: Inputs) -> Tensor:
    """Standard deviations of the features that vary over the finite rows."""
    tensors = as_tuple(inputs)
    rows = torch.cat([t.detach().double().cpu().flatten(1) for t in tensors], dim=1)
    rows = rows[rows.isfinite().all(dim=1)]
    if len(rows) < 2:
        return rows.new_empty(0)
    spreads = rows.std(dim=0)
    return spreads[spreads > 0]
