"""Rules on inputs that cannot move: nothing is known about their explanations."""

import warnings

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.fault_injection import refusal
from captum_robust.testing.metric_case import ModelCase
from captum_robust.testing.report import require

__all__ = [
    "check_inputs_without_neighbours_have_no_value",
    "check_rows_that_cannot_move_are_not_robust",
]

# Neighbours of float64 are 128 apart here, further than any radius of the checks.
_FAR = 1e18


def check_rows_that_cannot_move_are_not_robust(case: AttackCase) -> None:
    """A row whose ``mask`` frees nothing has an objective of NaN; no free row is a ValueError."""
    inputs = as_tuple(case.model.inputs)
    masks = tuple(torch.ones_like(t) for t in inputs)
    for mask in masks:
        mask[0] = 0
    _, info = case.perturb(mask=format_like(case.model.inputs, masks), return_info=True)
    objective: Tensor = getattr(info, str(case.traits.info))
    require(objective[0].isnan(), f"a row that cannot move has the objective {objective[0]}")
    require(objective[1:].isfinite().all(), f"rows that can move have {objective[1:].tolist()}")
    nothing = format_like(case.model.inputs, tuple(torch.zeros_like(m) for m in masks))
    message = refusal(lambda: case.perturb(mask=nothing))
    require(message is not None, "a mask that frees nothing must raise a ValueError")


def check_inputs_without_neighbours_have_no_value(case: ModelCase) -> None:
    """Inputs with no other number within the radius give NaN or a ValueError, never a score."""
    inputs = case.model.inputs
    far = format_like(inputs, tuple(t + _FAR for t in as_tuple(inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = case.value(inputs=far)
        except ValueError:
            return
    require(value.isnan().all(), f"inputs that cannot move have the values {value.tolist()}")
