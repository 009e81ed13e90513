"""The evaluation settings of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from captum_robust.benchmark.study.explanations import EXPLANATIONS, Explanation

__all__ = ["RADII", "TABULAR", "EvaluationSettings"]

#: L2 radii of the balls.
RADII = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class EvaluationSettings:
    """Evaluation settings of a data set: how its explanations are attacked and measured.

    Attributes:
        explanations: the explanations by name; settings of methods are selected by the first, and
            the smaller studies are about it.
        radii: L2 radii of the balls, ascending.
        bounds: smallest and largest value of an input that an attack may reach.
        fractions: fractions of the features that the measures of faithfulness remove or keep; None
            for every number of features.
        exact_hessian: whether the norm of the Hessian is exact, or an estimate by a finite
            difference.
        chunk: number of rows that are attacked at once on a CPU, whose caches are small; None for
            all rows.
    """

    explanations: Mapping[str, Explanation]
    radii: tuple[float, ...] = RADII
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    fractions: tuple[float, ...] | None = None
    exact_hessian: bool = True
    chunk: int | None = None

    def on(self, device: torch.device) -> "EvaluationSettings":
        """Return the settings for a device; a GPU attacks all rows at once."""
        return self if device.type == "cpu" else replace(self, chunk=None)

    @property
    def radius(self) -> float:
        """The middle radius, for what is measured at one radius only."""
        return self.radii[len(self.radii) // 2]


#: The settings of the tabular data sets.
TABULAR = EvaluationSettings(EXPLANATIONS)
