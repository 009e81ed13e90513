"""Rules of losses in half precision and under autocast."""

import torch

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.testing.loss_case import LossCase
from captum_robust.testing.report import require

__all__ = ["check_autocast_keeps_the_terms", "check_half_precision_keeps_the_terms"]

_FACTOR = 1.5  # between a term and that in single precision
_SMALL = 0.01  # of the largest term: what rounding adds to the others


def check_autocast_keeps_the_terms(case: LossCase) -> None:
    """Under autocast to bfloat16, each of ``last_terms`` is within 1.5 times that of float32."""
    expected = _terms(case, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = _terms(case, torch.float32)
    _compare(found, expected, "under autocast")


def check_half_precision_keeps_the_terms(case: LossCase) -> None:
    """For a model in bfloat16, each of ``last_terms`` is within 1.5 times that of float32."""
    _compare(_terms(case, torch.bfloat16), _terms(case, torch.float32), "in bfloat16")


def _terms(case: LossCase, dtype: torch.dtype) -> dict[str, float]:
    """Return the terms of the loss of a model that has been rounded to bfloat16; or its value."""
    model = case.model.build().to(torch.bfloat16).to(dtype)
    inputs = tuple(t.to(torch.bfloat16).to(dtype) for t in as_tuple(case.model.inputs))
    target = case.target(case.model.labels)
    target = target.to(dtype) if target.is_floating_point() else target
    criterion = case.factory(model)
    given = format_like(case.model.inputs, inputs)
    value = case.value(inputs=given, target=target, criterion=criterion)
    terms = getattr(criterion, "last_terms", None) or {"loss": value}
    return {name: float(term.detach()) for name, term in terms.items()}


def _compare(found: dict[str, float], expected: dict[str, float], where: str) -> None:
    slack = _SMALL * max(abs(v) for v in expected.values())
    for name, value in expected.items():
        low, high = sorted((value / _FACTOR, value * _FACTOR))
        require(
            low - slack <= found[name] <= high + slack,
            f"{where} the term {name!r} is {found[name]:.4g}, in float32 {value:.4g}",
        )
