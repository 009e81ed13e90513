"""The ranges of the metrics of this library that compare two attributions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from captum_robust.metrics import (
    attribution_mse,
    center_of_mass_shift,
    pearson_correlation,
    precision_at_k,
    prediction_change_rate,
    spearman_correlation,
)

__all__ = ["range_of"]

_RANGES: dict[Callable[..., Any], tuple[float, float]] = {
    precision_at_k: (0.0, 1.0),
    prediction_change_rate: (0.0, 1.0),
    pearson_correlation: (-1.0, 1.0),
    spearman_correlation: (-1.0, 1.0),
    attribution_mse: (0.0, math.inf),
    center_of_mass_shift: (0.0, math.inf),
}


def range_of(metric: Callable[..., Any]) -> tuple[float, float] | None:
    """Return the smallest and the largest possible value of a metric, or None if not known."""
    while isinstance(metric, partial):
        metric = metric.func
    try:
        return _RANGES.get(metric)
    except TypeError:  # a metric that is not hashable
        return None
