"""Soft constraints on the prediction: how far it has moved, and what that weighs in the attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from captum_robust._utils.checks import check_choice
from captum_robust.robust._search.gradients import Slope, as_rows, combination
from captum_robust.robust._search.min_norm import min_norm_weights
from captum_robust.robust._search.region import Region

__all__ = [
    "Constraint",
    "Lagrangian",
    "beyond_boundary",
    "check_constraint",
    "kl_divergence",
    "lost_margin",
    "violations_of",
]

Constraint = Literal["kl", "label", "boundary"] | Callable[[Tensor, Tensor], Tensor]

# The share of the margin that an attack may use before the boundary counts as near.
_FREE_MARGIN = 0.95

# Below, a change of the prediction may be the rounding of single precision.
_HOLDS = 1e-5


def kl_divergence(outputs: Tensor, reference: Tensor) -> Tensor:
    r"""Kullback–Leibler divergence :math:`\sum_c p_c \log (p_c / q_c)` in nats; (N, P).

    p are the probabilities of the ``reference``, before, and q those of ``outputs``, after. Both
    are logits: (N, C), or (N, C, …) for P predictions, each over dimension 1; or single logits,
    (N,) or (N, 1).

    >>> kl_divergence(torch.tensor([0.0, 2.0]), torch.tensor([2.0, 2.0]))
    tensor([[0.3278],
            [0.0000]], dtype=torch.float64)
    """
    before, after = (_logits(o).log_softmax(dim=1) for o in (reference, outputs))
    return (before.exp() * (before - after)).sum(dim=1).reshape(len(outputs), -1)


def lost_margin(outputs: Tensor, reference: Tensor) -> Tensor:
    r"""Share of the margin of the predicted label that is lost; (N, P).

    :math:`\max(0, 1 - m / m_0)`, m the logit of the label that ``reference`` predicts less the
    largest other one, and :math:`m_0` its value for the reference: 0 where the label is as sure as
    it was or surer, 1 at the decision boundary, more beyond. Forms as in :func:`kl_divergence`.

    >>> lost_margin(torch.tensor([[3.0, 1.0], [1.0, 2.0]]), torch.tensor([[4.0, 0.0], [2.0, 0.0]]))
    tensor([[0.5000],
            [1.5000]], dtype=torch.float64)
    """
    before, after = _logits(reference), _logits(outputs)
    label = before.argmax(dim=1, keepdim=True)
    start = _margin(before, label)
    lost = 1 - _margin(after, label) / start.clamp_min(torch.finfo(start.dtype).tiny)
    return lost.clamp_min(0).reshape(len(outputs), -1)


def beyond_boundary(outputs: Tensor, reference: Tensor) -> Tensor:
    r"""Share of the margin that is lost beyond 95 %; (N, P), as :func:`lost_margin`.

    0 until the decision boundary is near, so that it binds nowhere else: with
    ``preserve_prediction="qp"`` an attack runs free up to the boundary and then slides along it.

    >>> beyond_boundary(torch.tensor([[3.0, 1.0]]), torch.tensor([[4.0, 0.0]]))
    tensor([[0.]], dtype=torch.float64)
    >>> beyond_boundary(torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 0.0]]))
    tensor([[0.5500]], dtype=torch.float64)
    """
    return (lost_margin(outputs, reference) - _FREE_MARGIN).clamp_min(0)


def check_constraint(constraint: Constraint) -> None:
    """Raise ValueError unless it is the name of a constraint, or a function."""
    if not callable(constraint):
        check_choice("constraint", constraint, tuple(_NAMED))


def violations_of(constraint: Constraint, outputs: Tensor, reference: Tensor) -> Tensor:
    """How far outputs violate the constraint on each of K predictions; (N, K), with its graph."""
    measure = constraint if callable(constraint) else _NAMED[constraint]
    values = measure(outputs, reference)
    if values.dim() not in (1, 2) or len(values) != len(outputs):
        raise ValueError(
            f"constraint must return one value an example and prediction, shape ({len(outputs)}, "
            f"K) or ({len(outputs)},), got {tuple(values.shape)}"
        )
    return values.reshape(len(values), -1).double()


_NAMED = {"kl": kl_divergence, "label": lost_margin, "boundary": beyond_boundary}


def _logits(outputs: Tensor) -> Tensor:
    """Logits over dimension 1, of at least two classes, in double precision."""
    outputs = outputs.double()
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        outputs = outputs.reshape(len(outputs), 1)
        return torch.cat([-outputs, outputs], dim=1) / 2
    return outputs


def _margin(logits: Tensor, label: Tensor) -> Tensor:
    others = logits.scatter(1, label, float("-inf"))
    return logits.gather(1, label).squeeze(1) - others.amax(dim=1)


class Lagrangian:
    r"""The objective and the constraints, weighed against each other, one row an example.

    .. math::
        L = \lambda_0 \frac{g_0 - g_0(x)}{s_0} + \sum_k \lambda_k g_k, \quad
        \lambda \ge 0, \; \sum_k \lambda_k = 1

    :math:`s_0` is the fall of the objective that its gradient promises over the ball (radius times
    the dual norm), the largest met so far: gap sums and divergences have no common unit, and thus
    neither the scale of a map nor a constant added to the objective matters. All weights start
    equal. After a step from x':

    - ``"fixed"`` leaves them;
    - ``"gda"``: :math:`\lambda_k \leftarrow \lambda_k + \eta g_k(x')` for the constraints, then
      divided by the sum;
    - ``"hedge"``: every weight times :math:`e^{\eta g_k(x')}` (for the objective
      :math:`g_0 / s_0` as above), then divided by the sum;
    - ``"qp"``: the weights of each step are the minimum-norm weights
      of the gradients at unit length: the step lowers all of them at one rate. Of raw gradients the
      shortest leads, and that of a divergence vanishes at the example, where no step would ever be
      made. Constraints that hold to rounding are left out.

    Source: arXiv 2212.14106, appendix C.5.4, equations (23) to (25), whose objective is not scaled.
    """

    def __init__(self, rule: str, rate: float, weights: Tensor, fall: Tensor) -> None:
        self.rule = rule
        self.rate = rate
        self.weights = weights
        self.fall = fall

    @classmethod
    def equal(cls, rule: str, rate: float, n_constraints: int, like: Tensor) -> Lagrangian:
        """The Lagrangian of as many examples as ``like`` has, with all weights equal."""
        share = 1 / (1 + n_constraints)
        weights = torch.full(
            (len(like), 1 + n_constraints), share, dtype=torch.double, device=like.device
        )
        return cls(rule, rate, weights, torch.zeros_like(weights[:, 0]))

    def gradient(
        self, region: Region, progress: Tensor, violations: Tensor, slopes: list[Slope]
    ) -> tuple[Tensor, ...]:
        """Its gradient up to a factor; then the weights of the next step.

        ``progress`` (N,) is how far the objective has changed and ``violations`` (N, K) are the
        values of the constraints; ``slopes`` are the gradients of both, the objective first.
        """
        self.fall = torch.maximum(self.fall, _promised_fall(region, slopes[0]).nan_to_num(posinf=0))
        unit = torch.where(self.fall > 0, 1 / self.fall, 0)
        objective = Slope(slopes[0].direction, slopes[0].factor * unit)
        slopes = [objective, *slopes[1:]]
        if self.rule == "qp":
            self.weights = _balanced(as_rows(slopes), violations <= _HOLDS)
        ahead = combination(slopes, self.weights)
        if self.rule == "gda":
            raised = self.weights + self.rate * nn.functional.pad(violations, (1, 0))
            self.weights = raised / raised.sum(dim=1, keepdim=True)
        elif self.rule == "hedge":
            values = torch.cat([(progress * unit)[:, None], violations], dim=1)
            self.weights = (self.weights.log() + self.rate * values).softmax(dim=1)
        return ahead

    def of(self, rows: Tensor) -> Lagrangian:
        """The Lagrangian of the examples ``rows``."""
        return Lagrangian(self.rule, self.rate, self.weights[rows], self.fall[rows])


def _balanced(gradients: Tensor, holds: Tensor) -> Tensor:
    """Weights of gradients whose combination descends along all at one rate; 0 where one holds."""
    unit = 1 / gradients.norm(dim=2).clamp_min(1e-300)
    gradients = gradients * unit[:, :, None]
    left_out = nn.functional.pad(holds, (1, 0))  # the objective never is
    weights: Tensor = min_norm_weights(gradients @ gradients.mT, left_out) * unit
    return weights / weights.sum(dim=1, keepdim=True)


def _promised_fall(region: Region, slope: Slope) -> Tensor:
    """The fall over the ball of a function with this gradient everywhere; (N,)."""
    order = 1 if region.norm == "Linf" else 2
    lengths = [g.double().flatten(1).norm(p=order, dim=1) for g in slope.direction]
    return slope.factor * region.radius * torch.stack(lengths).sum(dim=0)
