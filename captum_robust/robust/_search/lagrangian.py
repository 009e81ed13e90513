"""Modes of ``preserve_prediction``: reject changed predictions, or weigh them as constraints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from captum_robust._utils.tensors import Points, unflatten, wide_dtype
from captum_robust.robust._search.min_norm import min_norm_weights
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.slopes import Slope, as_rows

__all__ = ["PREDICTION_MODES", "Lagrangian", "PredictionMode", "Preserve", "WeightRule"]

Preserve = Literal["reject", "early_stop", "none", "fixed", "gda", "hedge", "qp"]

# A smaller change of the prediction may be a rounding error of single precision.
_HOLDS = 1e-5


class WeightRule:
    """Rule for the weights of the objective (column 0) and of K constraints, (N, 1 + K)."""

    #: True if the objective is measured in units of the fall that its gradient promises.
    scales_objective: ClassVar[bool] = True

    def now(self, weights: Tensor, gradients: Tensor, violations: Tensor) -> Tensor:
        """Return the weights of the current step, along ``gradients`` (N, 1 + K, n)."""
        return weights

    def is_idle(self, violations: Tensor) -> bool:
        """Return whether constraints with these values have no weight."""
        return False

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        """Return the weights of the next step.

        ``progress`` (N,) is the change of the objective in units of the fall that its gradient
        promises, ``violations`` (N, K) are the values of the constraints.
        """
        return weights


class _Fixed(WeightRule):
    """Constant weights."""


class _GradientAscent(WeightRule):
    """Weights of constraints that grow by the values of the constraints."""

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        raised = weights + rate * nn.functional.pad(violations, (1, 0))
        return raised / raised.sum(dim=1, keepdim=True)


class _Hedge(WeightRule):
    """Weights that are multiplied by the exponential of the values."""

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        values = torch.cat([progress[:, None], violations], dim=1)
        return (weights.log() + rate * values).softmax(dim=1)


class _SteepestCommon(WeightRule):
    """Weights with which a step lowers all values at one rate; 0 for satisfied constraints."""

    scales_objective = False

    def now(self, weights: Tensor, gradients: Tensor, violations: Tensor) -> Tensor:
        unit = 1 / gradients.norm(dim=2).clamp_min(1e-300)
        counts = nn.functional.pad(violations > _HOLDS, (1, 0), value=True)  # always the objective
        if counts.shape[1] == 2:  # the shortest combination of two unit vectors is half of each
            found = counts.to(unit)
        else:
            gradients = gradients * unit[:, :, None]
            found = min_norm_weights(gradients @ gradients.mT, ~counts)
        weights = found * unit
        return weights / weights.sum(dim=1, keepdim=True)

    def is_idle(self, violations: Tensor) -> bool:
        return bool((violations <= _HOLDS).all())


@dataclass(frozen=True)
class PredictionMode:
    """Treatment of points whose prediction is not that of the example.

    Attributes:
        returns_flipped: whether such points may be returned.
        ends_at_flip: whether the search of an example ends at the first such point.
        weights: the rule by which the change of the prediction is weighed against the objective;
            None for a search of the objective alone.
    """

    returns_flipped: bool = False
    ends_at_flip: bool = False
    weights: WeightRule | None = None


#: All modes of ``preserve_prediction``. A new mode takes a line here and one in :data:`Preserve`.
PREDICTION_MODES: dict[Preserve, PredictionMode] = {
    "reject": PredictionMode(),
    "early_stop": PredictionMode(ends_at_flip=True),
    "none": PredictionMode(returns_flipped=True),
    "fixed": PredictionMode(weights=_Fixed()),
    "gda": PredictionMode(weights=_GradientAscent()),
    "hedge": PredictionMode(weights=_Hedge()),
    "qp": PredictionMode(weights=_SteepestCommon()),
}


class Lagrangian:
    r"""The objective and the constraints, weighed against each other, one row per example.

    .. math::
        L = \lambda_0 \frac{g_0 - g_0(x)}{s_0} + \sum_k \lambda_k g_k, \quad
        \lambda \ge 0, \; \sum_k \lambda_k = 1

    :math:`s_0` is the fall of the objective that its gradient promises over the ball (radius times
    the dual norm), the largest so far. Gap sums and divergences have no common unit; divided by
    :math:`s_0`, neither the scale of a map nor a constant added to the objective matters. All
    weights start equal. After a step from x':

    - ``"fixed"`` does not change the weights;
    - ``"gda"``: :math:`\lambda_k \leftarrow \lambda_k + \eta g_k(x')` for the constraints, then
      divided by the sum;
    - ``"hedge"``: every weight times :math:`e^{\eta g_k(x')}` (for the objective
      :math:`g_0 / s_0` as above), then divided by the sum;
    - ``"qp"``: the weights of each step are those of the shortest combination of the gradients at
      unit length: the step lowers all of them at one rate. With raw gradients the shortest would
      have the largest weight; that of a divergence is zero at the example, so that no step would be
      made. Constraints that are satisfied up to rounding are left out.

    Source: arXiv 2212.14106, appendix C.5.4, equations (23) to (25), whose objective is not scaled.
    """

    def __init__(self, rule: WeightRule, rate: float, weights: Tensor, fall: Tensor) -> None:
        self.rule = rule
        self.rate = rate
        self.weights = weights
        self.fall = fall

    @classmethod
    def equal(cls, rule: WeightRule, rate: float, n_constraints: int, rows: Tensor) -> Lagrangian:
        """Return the Lagrangian of the examples ``rows``, with all weights equal."""
        weights = torch.full(
            (len(rows), 1 + n_constraints),
            1 / (1 + n_constraints),
            dtype=torch.double,
            device=rows.device,
        )
        return cls(rule, rate, weights, torch.zeros_like(weights[:, 0]))

    def gradient(
        self, region: Region, progress: Tensor, violations: Tensor, slopes: list[Slope]
    ) -> Points:
        """Return the gradient up to a factor, and update the weights for the next step.

        ``progress`` (N,) is how far the objective has changed and ``violations`` (N, K) are the
        values of the constraints; ``slopes`` are the gradients of both, the objective first.
        """
        gradients, unit = as_rows(slopes), None
        if self.rule.scales_objective:
            promised = _promised_fall(region, gradients[:, 0])
            self.fall = torch.maximum(self.fall, promised.nan_to_num(posinf=0))
            unit = torch.where(self.fall > 0, 1 / self.fall, 0)
            gradients[:, 0] *= unit[:, None]
        weights = self.rule.now(self.weights, gradients, violations)
        # Only the direction counts; divided by the longest part, it does not underflow.
        longest = (weights * gradients.norm(dim=2)).amax(dim=1, keepdim=True)
        parts = weights / longest.clamp_min(1e-300)
        ahead = (parts[:, None] @ gradients)[:, 0]
        progress = progress if unit is None else progress * unit
        self.weights = self.rule.after(weights, self.rate, progress, violations)
        return tuple(
            a.to(wide_dtype(g))
            for a, g in zip(unflatten(ahead, slopes[0].direction), slopes[0].direction, strict=True)
        )

    def of(self, rows: Tensor) -> Lagrangian:
        """Return the Lagrangian of the examples ``rows``."""
        return Lagrangian(self.rule, self.rate, self.weights[rows], self.fall[rows])


def _promised_fall(region: Region, gradient: Tensor) -> Tensor:
    """Return the fall over the ball of a function with constant gradient (N, n); (N,)."""
    sizes = [c[0].numel() for c in region.centre]
    order = 1 if region.norm == "Linf" else 2
    lengths = [torch.linalg.vector_norm(g, ord=order, dim=1) for g in gradient.split(sizes, dim=1)]
    return region.radius * torch.stack(lengths).sum(dim=0)
