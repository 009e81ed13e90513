"""Statistics over seeds: means, paired tests, rank correlations, Pareto fronts."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "correlation",
    "difference",
    "mean_std",
    "on_common_seeds",
    "paired_p_value",
    "pareto_front",
]

Values = Mapping[int, float]  # by seed
_Name = TypeVar("_Name")


def on_common_seeds(by_name: Mapping[_Name, Values]) -> dict[_Name, dict[int, float]]:
    """Return the values at the seeds that all names have, so that means can be compared."""
    seeds = set.intersection(*(set(values) for values in by_name.values())) if by_name else set()
    return {
        name: {seed: values[seed] for seed in sorted(seeds)} for name, values in by_name.items()
    }


def mean_std(values: Values) -> tuple[float, float]:
    """Return mean and standard deviation (divisor N − 1) over the seeds; NaN for too few seeds."""
    numbers = np.array(list(values.values()), dtype=float)
    if not len(numbers):
        return math.nan, math.nan
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else math.nan


def paired_p_value(values: Values, others: Values) -> float:
    """Return the two-sided p-value of the paired t-test over the seeds that both have.

    It is 1 where all pairs are equal, and NaN for fewer than two pairs.
    """
    from scipy.stats import ttest_rel

    a, b = _paired(values, others)
    if len(a) < 2:
        return math.nan
    if np.array_equal(a, b):
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal differences: p = 0
        return float(ttest_rel(a, b).pvalue)


def difference(values: Values, others: Values) -> tuple[float, float]:
    """Return the mean difference over common seeds, and half its 95 % confidence interval (t)."""
    from scipy.stats import t

    a, b = _paired(values, others)
    n_seeds = len(a)
    if n_seeds == 0:
        return math.nan, math.nan
    gains = a - b
    if n_seeds == 1:
        return float(gains[0]), math.nan
    half = t.ppf(0.975, n_seeds - 1) * gains.std(ddof=1) / math.sqrt(n_seeds)
    return float(gains.mean()), float(half)


def pareto_front(points: Mapping[_Name, Sequence[float]]) -> set[_Name]:
    """Return the points that no other reaches in all coordinates and exceeds in one."""

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        pairs = list(zip(a, b, strict=True))
        return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)

    return {
        name
        for name, point in points.items()
        if not any(beats(other, point) for other in points.values())
    }


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation of the finite pairs; NaN where one side is constant."""
    from scipy.stats import spearmanr

    pairs = np.array([x, y], dtype=float)
    a, b = pairs[:, np.isfinite(pairs).all(axis=0)]
    if len(a) < 3 or (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    return float(spearmanr(a, b).statistic)


def _paired(values: Values, others: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    seeds = [seed for seed in values if seed in others]
    return np.array([values[s] for s in seeds]), np.array([others[s] for s in seeds])
