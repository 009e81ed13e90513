"""Cells of the tables of a run."""

import math
from collections.abc import Mapping

from captum_robust._utils.tables import Cell
from captum_robust.benchmark.tables.statistics import mean_std

__all__ = ["exact", "gain", "mean_and_spread"]


def mean_and_spread(values: Mapping[int, float], digits: int = 3) -> Cell:
    """Make a cell such as ``"0.987 ± 0.004"``: mean and standard deviation over the seeds.

    The deviation is left out for one seed, and the text is empty for none.
    """
    mean, spread = mean_std(values)
    if math.isnan(mean):
        return Cell("nan" if values else "", mean)
    text = f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")
    return Cell(text, mean)


def gain(difference: tuple[float, float]) -> Cell:
    """Make a cell such as ``"+0.012 ± 0.003"``: a difference and half its interval.

    The text is empty where there is no difference.
    """
    mean, half = difference
    if math.isnan(mean):
        return Cell("", mean)
    return Cell(f"{mean:+.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}"), mean)


def exact(number: float) -> Cell:
    """Make a cell of a number that has few digits, such as a radius or a count."""
    return Cell(f"{number:g}", number)
