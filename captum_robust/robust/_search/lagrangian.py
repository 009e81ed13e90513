"""Modes of keeping the prediction: flipped points are refused, or their change has a weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from captum_robust._utils.tensors import Points, flatten
from captum_robust.robust._search.min_norm import min_norm_weights
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.slopes import Slope, as_rows, combination

__all__ = ["PREDICTION_MODES", "Lagrangian", "PredictionMode", "Preserve", "WeightRule"]

Preserve = Literal["reject", "early_stop", "none", "fixed", "gda", "hedge", "qp"]

# Below, a change of the prediction may be the rounding of single precision.
_HOLDS = 1e-5


class WeightRule(ABC):
    """Weights of the objective and of the constraints on the prediction, (N, 1 + K), first 0."""

    def now(self, weights: Tensor, slopes: list[Slope], violations: Tensor) -> Tensor:
        """The weights of the step that is about to be made."""
        return weights

    def is_idle(self, violations: Tensor) -> bool:
        """Return whether constraints with these values get no weight at all."""
        return False

    @abstractmethod
    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        """The weights of the next step.

        ``progress`` (N,) is the change of the objective in units of the fall that its gradient
        promises, ``violations`` (N, K) are the values of the constraints.
        """


class _Fixed(WeightRule):
    """The weights stay."""

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        return weights


class _GradientAscent(WeightRule):
    """The weights of constraints grow by their values."""

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        raised = weights + rate * nn.functional.pad(violations, (1, 0))
        return raised / raised.sum(dim=1, keepdim=True)


class _Hedge(WeightRule):
    """The weights are multiplied by the exponential of the values."""

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        values = torch.cat([progress[:, None], violations], dim=1)
        return (weights.log() + rate * values).softmax(dim=1)


class _SteepestCommon(WeightRule):
    """The weights under which one step lowers all of them at one rate; 0 where one holds."""

    def now(self, weights: Tensor, slopes: list[Slope], violations: Tensor) -> Tensor:
        gradients = as_rows(slopes)
        unit = 1 / gradients.norm(dim=2).clamp_min(1e-300)
        gradients = gradients * unit[:, :, None]
        left_out = nn.functional.pad(violations <= _HOLDS, (1, 0))  # the objective never is
        found: Tensor = min_norm_weights(gradients @ gradients.mT, left_out) * unit
        return found / found.sum(dim=1, keepdim=True)

    def is_idle(self, violations: Tensor) -> bool:
        return bool((violations <= _HOLDS).all())

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        return weights


@dataclass(frozen=True)
class PredictionMode:
    """What a search does with points whose prediction is not that of the example.

    Attributes:
        returns_flipped: whether they may be returned.
        ends_at_flip: whether the search of an example ends at the first of them.
        weights: the rule by which the change of the prediction is weighed against the objective;
            None for a search of the objective alone.
    """

    returns_flipped: bool = False
    ends_at_flip: bool = False
    weights: WeightRule | None = None


#: Every mode of ``preserve_prediction``. A new one is a line here and in :data:`Preserve`.
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
    the dual norm), the largest met so far: gap sums and divergences have no common unit, and thus
    neither the scale of a map nor a constant added to the objective matters. All weights start
    equal. After a step from x':

    - ``"fixed"`` leaves them;
    - ``"gda"``: :math:`\lambda_k \leftarrow \lambda_k + \eta g_k(x')` for the constraints, then
      divided by the sum;
    - ``"hedge"``: every weight times :math:`e^{\eta g_k(x')}` (for the objective
      :math:`g_0 / s_0` as above), then divided by the sum;
    - ``"qp"``: the weights of each step are those of the shortest combination of the gradients at
      unit length: the step lowers all of them at one rate. Of raw gradients the shortest leads, and
      that of a divergence vanishes at the example, where no step would ever be made. Constraints
      that hold to rounding are left out.

    Source: arXiv 2212.14106, appendix C.5.4, equations (23) to (25), whose objective is not scaled.
    """

    def __init__(self, rule: WeightRule, rate: float, weights: Tensor, fall: Tensor) -> None:
        self.rule = rule
        self.rate = rate
        self.weights = weights
        self.fall = fall

    @classmethod
    def equal(cls, rule: WeightRule, rate: float, n_constraints: int, rows: Tensor) -> Lagrangian:
        """The Lagrangian of the examples ``rows``, with all weights equal."""
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
        """Its gradient up to a factor; then the weights of the next step.

        ``progress`` (N,) is how far the objective has changed and ``violations`` (N, K) are the
        values of the constraints; ``slopes`` are the gradients of both, the objective first.
        """
        self.fall = torch.maximum(self.fall, _promised_fall(region, slopes[0]).nan_to_num(posinf=0))
        unit = torch.where(self.fall > 0, 1 / self.fall, 0)
        slopes = [Slope(slopes[0].direction, slopes[0].factor * unit), *slopes[1:]]
        weights = self.rule.now(self.weights, slopes, violations)
        ahead = combination(slopes, weights)
        self.weights = self.rule.after(weights, self.rate, progress * unit, violations)
        return ahead

    def of(self, rows: Tensor) -> Lagrangian:
        """The Lagrangian of the examples ``rows``."""
        return Lagrangian(self.rule, self.rate, self.weights[rows], self.fall[rows])


def _promised_fall(region: Region, slope: Slope) -> Tensor:
    """The fall over the ball of a function with this gradient everywhere; (N,)."""
    order = 1 if region.norm == "Linf" else 2
    lengths = [
        torch.linalg.vector_norm(flatten((g,)).double(), ord=order, dim=1) for g in slope.direction
    ]
    return slope.factor * region.radius * torch.stack(lengths).sum(dim=0)
