"""The measures of an explanation that give one value per row, beside the attacks.

A measure added here is computed, stored and shown in the report.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from captum.attr import Attribution
from torch import Tensor

from captum_robust.auditing.configuration import AuditConfig
from captum_robust.metrics import ranking_thickness
from captum_robust.noise import UniformNoise

__all__ = ["ROW_MEASURES", "RowMeasure"]

_N_STEPS = 16


class RowMeasure(NamedTuple):
    """A measure.

    Attributes:
        title: its name in the report.
        meaning: an explanation in a clause.
        measure: one value per row, (N,), from an attribution, the arguments of its ``attribute``
            and the configuration of the audit.
    """

    title: str
    meaning: str
    measure: Callable[[Attribution, dict[str, Any], AuditConfig], Tensor]


def _thickness(attribution: Attribution, arguments: dict[str, Any], config: AuditConfig) -> Tensor:
    noise = UniformNoise(config.norm, config.lower_bound, config.upper_bound)
    explain = partial(attribution.attribute, **arguments)
    return ranking_thickness(
        explain, config.inputs, **config.ranking, perturb_func=noise,
        perturb_radius=config.radii[-1], n_steps=_N_STEPS,
        max_examples_per_batch=config.max_examples_per_batch, seed=config.seed,
        **config.model_arguments,
    )  # fmt: skip


ROW_MEASURES = {
    "thickness": RowMeasure(
        "Thickness",
        "the share of the ball in which the order of a top and a lower feature stays the same on "
        "average",
        _thickness,
    ),
}
