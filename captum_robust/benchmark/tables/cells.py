"""Cells of the tables."""

import math
from collections.abc import Mapping

from captum_robust.benchmark.tables.statistics import mean_std

__all__ = ["cell", "interval", "number"]


def cell(values: Mapping[int, float], digits: int = 3) -> str:
    """``"0.987 ± 0.004"``; without a deviation for one seed, empty for none."""
    centre, spread = mean_std(values)
    if math.isnan(centre):
        return "" if not values else "nan"
    return f"{centre:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")


def interval(difference: tuple[float, float]) -> str:
    """``"+0.012 ± 0.003"``: a difference and half its interval; empty where there is none."""
    gain, half = difference
    if math.isnan(gain):
        return ""
    return f"{gain:+.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")


def number(value: float) -> str:
    """``"0.987"``, or nothing."""
    return "" if math.isnan(value) else f"{value:.3f}"
