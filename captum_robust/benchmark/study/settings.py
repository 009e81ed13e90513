"""On what terms explanations are attacked and measured: they differ between tables and pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from captum_robust.benchmark.study.explanations import EXPLANATIONS, Explanation

__all__ = ["RADII", "TABULAR", "Terms"]

#: Radii of the balls, L2.
RADII = (0.25, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Terms:
    """How the explanations of a data set are attacked and measured.

    Attributes:
        explanations: what is explained, by name; the first is the one that settings are selected
            by and that all studies are about.
        radii: of the balls, L2, ascending.
        bounds: smallest and largest value of an input that an attack may reach.
        shares: shares of the features that the measures of faithfulness remove or keep; None for
            every number of them.
        exact_hessian: whether its norm is exact, or the estimate by a finite difference.
        chunk: rows that are attacked at once on a CPU, whose caches are small; None for all.
    """

    explanations: Mapping[str, Explanation]
    radii: tuple[float, ...] = RADII
    bounds: tuple[float, float] = (float("-inf"), float("inf"))
    shares: tuple[float, ...] | None = None
    exact_hessian: bool = True
    chunk: int | None = None

    def on(self, device: torch.device) -> "Terms":
        """The terms for a device: another than a CPU attacks all rows at once."""
        return self if device.type == "cpu" else replace(self, chunk=None)

    @property
    def radius(self) -> float:
        """The middle one, of what is measured at one radius only."""
        return self.radii[len(self.radii) // 2]


#: Those of the tables.
TABULAR = Terms(EXPLANATIONS)
