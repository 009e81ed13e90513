"""Soft constraints on the prediction: measures of the change of the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from captum_robust._utils.checks import check_choice
from captum_robust._utils.prediction import Decision

__all__ = [
    "Constraint",
    "beyond_boundary",
    "check_constraint",
    "kl_divergence",
    "lost_margin",
    "violations_of",
]

Constraint = Literal["kl", "label", "boundary"] | Callable[[Tensor, Tensor], Tensor]

# The fraction of the margin that an attack may use before the boundary counts as near.
_FREE_MARGIN = 0.95
_LABELS = Decision()


def kl_divergence(outputs: Tensor, reference: Tensor) -> Tensor:
    r"""Kullback–Leibler divergence :math:`\sum_c p_c \log (p_c / q_c)` in nats; (N, P).

    p are the probabilities of the ``reference`` outputs, before the perturbation, and q those of
    ``outputs``, after it. Both arguments are logits: (N, C), or (N, C, …) for P predictions, each
    over dimension 1; or single logits, (N,) or (N, 1).

    >>> kl_divergence(torch.tensor([0.0, 2.0]), torch.tensor([2.0, 2.0]))
    tensor([[0.3278],
            [0.0000]], dtype=torch.float64)
    """
    return _kl_divergence_of(reference)(outputs)


def lost_margin(outputs: Tensor, reference: Tensor) -> Tensor:
    r"""Fraction of the margin of the predicted label that is lost; (N, P).

    :math:`\max(0, 1 - m / m_0)`, where m is the logit of the label that ``reference`` predicts
    less the largest other logit, and :math:`m_0` its value for the reference: 0 where the margin
    has not shrunk, 1 at the decision boundary, more beyond. Shapes as in :func:`kl_divergence`.

    >>> lost_margin(torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([[4.0, 0.0], [2.0, 0.0]]))
    tensor([[0.5000],
            [1.5000]], dtype=torch.float64)
    """
    return _lost_margin_of(reference)(outputs)


def beyond_boundary(outputs: Tensor, reference: Tensor) -> Tensor:
    r"""Fraction of the margin that is lost beyond 95 %; (N, P), as :func:`lost_margin`.

    The value is 0 away from the decision boundary. With ``preserve_prediction="qp"``, an attack is
    unconstrained until it is near the boundary, and then slides along the boundary.

    >>> beyond_boundary(torch.tensor([[3.0, 1.0]]), torch.tensor([[4.0, 0.0]]))
    tensor([[0.]], dtype=torch.float64)
    >>> beyond_boundary(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0]]))
    tensor([[0.5500]], dtype=torch.float64)
    """
    return _beyond_boundary_of(reference)(outputs)


def check_constraint(constraint: Constraint) -> None:
    """Raise ValueError unless ``constraint`` is a function or the name of one."""
    if not callable(constraint):
        check_choice("constraint", constraint, tuple(_NAMED))


def violations_of(
    constraint: Constraint, reference: Tensor, decision: Decision = _LABELS
) -> Callable[[Tensor], Tensor]:
    """Return a function of outputs: their violation of a constraint on K predictions, (N, K).

    Where outputs have a tolerance, a named constraint measures how much of it is used. Terms that
    depend on the ``reference`` outputs alone are computed once. The values keep their graph.
    """
    if callable(constraint):
        named = None
    elif decision.tolerance is not None:
        named = _used_tolerance(constraint, decision, reference)
    else:
        named = _NAMED[constraint](reference)

    def violations(outputs: Tensor) -> Tensor:
        if callable(constraint):
            values = constraint(outputs, reference)
        else:
            assert named is not None
            values = named(outputs)
        if values.dim() not in (1, 2) or len(values) != len(outputs):
            raise ValueError(
                f"constraint must return one value per example and prediction, shape "
                f"({len(outputs)}, K) or ({len(outputs)},), got {tuple(values.shape)}"
            )
        return values.reshape(len(values), -1).double()

    return violations


def _kl_divergence_of(reference: Tensor) -> Callable[[Tensor], Tensor]:
    before = _logits(reference).log_softmax(dim=1)
    weights = before.exp()

    def divergence(outputs: Tensor) -> Tensor:
        change = before - _logits(outputs).log_softmax(dim=1)
        return (weights * change).sum(dim=1).reshape(len(outputs), -1)

    return divergence


def _lost_margin_of(reference: Tensor) -> Callable[[Tensor], Tensor]:
    before = _logits(reference)
    label = before.argmax(dim=1, keepdim=True)
    start = _margin(before, label).clamp_min(torch.finfo(before.dtype).tiny)

    def lost(outputs: Tensor) -> Tensor:
        margin = _margin(_logits(outputs), label)
        return (1 - margin / start).clamp_min(0).reshape(len(outputs), -1)

    return lost


def _beyond_boundary_of(reference: Tensor) -> Callable[[Tensor], Tensor]:
    lost = _lost_margin_of(reference)
    return lambda outputs: (lost(outputs) - _FREE_MARGIN).clamp_min(0)


def _used_tolerance(
    constraint: str, decision: Decision, reference: Tensor
) -> Callable[[Tensor], Tensor]:
    """Return a function of outputs: the fraction of the tolerance that is used; (N, 1)."""
    free = _FREE_MARGIN if constraint == "boundary" else 0.0
    return lambda outputs: (decision.used_tolerance(outputs, reference) - free).clamp_min(0)


#: Constraints by name: functions of the reference outputs that return a function of the outputs. A
#: new one takes a line here and a name in :data:`Constraint`.
_NAMED: dict[str, Callable[[Tensor], Callable[[Tensor], Tensor]]] = {
    "kl": _kl_divergence_of,
    "label": _lost_margin_of,
    "boundary": _beyond_boundary_of,
}


def _logits(outputs: Tensor) -> Tensor:
    """Return logits over dimension 1, of at least two classes, in double precision."""
    outputs = outputs.double()
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        outputs = outputs.reshape(len(outputs), 1)
        return torch.cat([-outputs, outputs], dim=1) / 2
    return outputs


def _margin(logits: Tensor, label: Tensor) -> Tensor:
    others = logits.scatter(1, label, float("-inf"))
    return logits.gather(1, label).squeeze(1) - others.amax(dim=1)
