"""Modes of keeping the prediction: flipped points are refused, or their change has a weight."""

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

# Below, a change of the prediction may be the rounding of single precision.
_HOLDS = 1e-5


class WeightRule:
    """Weights of the objective and of the constraints on the prediction, (N, 1 + K), first 0."""

    #: Whether the objective is measured in units of the fall that its gradient promises.
    scales_objective: ClassVar[bool] = True

    def now(self, weights: Tensor, gradients: Tensor, violations: Tensor) -> Tensor:
        """The weights of the step that is about to be made along ``gradients`` (N, 1 + K, n)."""
        return weights

    def is_idle(self, violations: Tensor) -> bool:
        """Return whether constraints with these values get no weight at all."""
        return False

    def after(self, weights: Tensor, rate: float, progress: Tensor, violations: Tensor) -> Tensor:
        """The weights of the next step.

        ``progress`` (N,) is the change of the objective in units of the fall that its gradient
        promises, ``violations`` (N, K) are the values of the constraints.
        """
        return weights


class _Fixed(WeightRule):
    """The weights stay."""


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

    scales_objective = False

    def now(self, weights: Tensor, gradients: Tensor, violations: Tensor) -> Tensor:
        unit = 1 / gradients.norm(dim=2).clamp_min(1e-300)
        counts = nn.functional.pad(violations > _HOLDS, (1, 0), value=True)  # the objective always
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
        gradients, unit = as_rows(slopes), None
        if self.rule.scales_objective:
            promised = _promised_fall(region, gradients[:, 0])
            self.fall = torch.maximum(self.fall, promised.nan_to_num(posinf=0))
            unit = torch.where(self.fall > 0, 1 / self.fall, 0)
            gradients[:, 0] *= unit[:, None]
        weights = self.rule.now(self.weights, gradients, violations)
        # Divided by its longest part: only the direction counts, which must not underflow.
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
        """The Lagrangian of the examples ``rows``."""
        return Lagrangian(self.rule, self.rate, self.weights[rows], self.fall[rows])


def _promised_fall(region: Region, gradient: Tensor) -> Tensor:
    """The fall over the ball of a function with the gradient (N, n) everywhere; (N,)."""
    sizes = [c[0].numel() for c in region.centre]
    order = 1 if region.norm == "Linf" else 2
    lengths = [torch.linalg.vector_norm(g, ord=order, dim=1) for g in gradient.split(sizes, dim=1)]
    return region.radius * torch.stack(lengths).sum(dim=0)
