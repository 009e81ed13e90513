"""Rules on the prediction that an attack keeps: dense outputs, regressions, training mode."""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn
from torch.nn import functional as F

from captum_robust._utils.captum import as_tuple, run_forward
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.report import require

__all__ = [
    "check_dense_prediction_is_that_of_the_target",
    "check_outputs_stay_within_the_tolerance",
    "check_training_mode_is_seen",
]

_CLASS = 1
_N_ELSEWHERE = 16
_STEPS = 8


def check_dense_prediction_is_that_of_the_target(case: AttackCase) -> None:
    """Of outputs (N, C, H, W), the prediction at the explained position is kept, no other one.

    Elsewhere the model predicts another class at every other input, so that an attack that keeps
    all positions finds nothing.
    """
    steps = case.effort(_STEPS)
    alone = case.perturb(target=_CLASS, **steps)
    dense = _Dense(case.model.build())
    attack = case.factory(Saliency(dense), case.model.k)
    found = case.perturb(attack, target=(_CLASS, 0, _N_ELSEWHERE), **steps)
    changed = (case.labels(found) != case.labels(case.model.inputs)).nonzero()[:, 0].tolist()
    require(not changed, f"another prediction at the explained position of the examples {changed}")
    require(
        _has_moved(case, found) or not _has_moved(case, alone),
        "nothing is found, although the explained position allows it",
    )


def check_outputs_stay_within_the_tolerance(case: AttackCase) -> None:
    """With ``tolerance``, no output moves by more than it, and the labels do not count."""
    outputs = _outputs(case, case.model.inputs)
    tolerance = 0.2 * float(outputs.std(dim=0).min())
    attack = case.factory(Saliency(case.model.build()), case.model.k, tolerance=tolerance)
    moved = case.perturb(attack, **case.effort(_STEPS))
    largest = float((_outputs(case, moved) - outputs).abs().max())
    require(largest <= tolerance, f"an output moved by {largest}, the tolerance is {tolerance}")


def check_training_mode_is_seen(case: AttackCase) -> None:
    """Dropout that no flag of a module shows raises the flag ``training_mode``."""
    flags = []
    for drop in (False, True):
        attack = case.factory(Saliency(_noisy(case.model.build(), drop)), case.model.k)
        _, info = case.perturb(attack, return_info=True)
        flags.append("training_mode" in info.flags)
    require(flags[1], "dropout as a function raises no flag training_mode")
    require(not flags[0], "a model in evaluation mode raises the flag training_mode")


class _Dense(nn.Module):
    """(N, C, 1, W): the outputs of a model at the last position, unstable ones at all others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Tensor:
        outputs: Tensor = self.model(*inputs)
        rows = inputs[0].detach().reshape(len(outputs), -1)
        x = rows @ torch.arange(1.0, 1 + rows.shape[1]).to(rows).sqrt()  # steps do not cancel
        turns = torch.arange(1.0, 1 + outputs.shape[1] * _N_ELSEWHERE, device=x.device)
        elsewhere = torch.sin(turns.square() * (1e7 * x[:, None] + 1)).to(outputs)
        positions = elsewhere.view(len(outputs), outputs.shape[1], -1)
        return torch.cat([positions, outputs[:, :, None]], dim=2)[:, :, None]


def _noisy(model: nn.Module, drop: bool) -> Callable[..., Tensor]:
    """Return a function with dropout of the first input, whose many values differ for sure."""
    return lambda x, *others: model(F.dropout(x, 0.5, training=drop), *others)


def _outputs(case: AttackCase, points: Any) -> Tensor:
    with torch.no_grad():
        arguments = case.model.draw_arguments() or None
        return run_forward(case.model.build(), as_tuple(points), arguments)


def _has_moved(case: AttackCase, points: Any) -> bool:
    pairs = zip(as_tuple(points), as_tuple(case.model.inputs), strict=True)
    return any(not torch.equal(p, x) for p, x in pairs)
