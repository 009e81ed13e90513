"""The settings of a search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captum_robust._utils.prediction import Decision
from captum_robust.robust._search.evaluator import Predictions
from captum_robust.robust._search.gradients import GradientMethod
from captum_robust.robust._search.lagrangian import PREDICTION_MODES, PredictionMode, Preserve
from captum_robust.robust._search.steps import StepRule
from captum_robust.robust.constraints import Constraint
from captum_robust.robust.objectives import Objective

__all__ = ["Keep", "SearchSettings"]

Keep = Literal["objective", "precision"]


@dataclass(frozen=True)
class SearchSettings:
    """The parts of an attack that a search works with.

    Attributes:
        objective: the objective that is minimised.
        gradient: the method for its gradient.
        step_rule: the length of the steps.
        preserve_prediction: the treatment of points with another prediction.
        keep: which of the points is returned.
        smooth_relu: sharpness of the smoothed ReLU family, at all steps or at the first and the
            last.
        path_points: points on the segment from the example over which the objective is averaged.
        constraint: measure of the change of the prediction, for the modes that weigh it.
        constraint_rate: learning rate of the weights.
        decision: the rule by which results are the same prediction.
        predictions: all results whose prediction must stay; None for the output alone.
        compile: whether the evaluation of a point with its gradient is compiled.
    """

    objective: Objective
    gradient: GradientMethod
    step_rule: type[StepRule]
    preserve_prediction: Preserve
    keep: Keep
    smooth_relu: float | tuple[float, float] | None
    path_points: int
    constraint: Constraint
    constraint_rate: float
    decision: Decision
    predictions: Predictions | None
    compile: bool = False

    @property
    def k(self) -> int | None:
        """Size of the top set of the objective; None if the objective has none."""
        k: int | None = getattr(self.objective, "k", None)
        return k

    @property
    def mode(self) -> PredictionMode:
        """The mode of keeping the prediction."""
        return PREDICTION_MODES[self.preserve_prediction]

    def beta(self, step: int, n_steps: int) -> float | None:
        """Return the sharpness of the smoothing at a step: constant, or growing geometrically."""
        if not isinstance(self.smooth_relu, tuple):
            return self.smooth_relu
        first, last = self.smooth_relu
        return float(first * (last / first) ** (step / max(1, n_steps - 1)))
