"""The mean of one value per example, with its confidence interval."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from captum_robust._utils.intervals import share_interval

__all__ = ["Estimate", "estimate", "student_quantile"]


@dataclass(frozen=True)
class Estimate:
    """A weighted mean over examples with its confidence interval.

    Attributes:
        mean (float): weighted mean of the values that are not NaN.
        low (float): lower end of the confidence interval of the mean.
        high (float): upper end.
        n_examples (int): number of examples, including those without a value.
        n_nan (int): number of examples without a value, which no other number includes.
        smallest (float): smallest value.
        largest (float): largest value.
    """

    mean: float
    low: float
    high: float
    n_examples: int
    n_nan: int
    smallest: float
    largest: float


def estimate(
    values: Tensor,
    weights: Tensor | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    r"""Return the weighted mean of values (N,) with a confidence interval.

    For values of an unknown range it is Student's t interval:

    .. math::
        m = \frac{\sum w_i v_i}{\sum w_i}, \quad
        s^2 = \frac{n'}{n' - 1} \frac{\sum w_i^2 (v_i - m)^2}{(\sum w_i)^2}, \quad
        n' = \frac{(\sum w_i)^2}{\sum w_i^2}, \quad
        m \pm t_{n' - 1} s

    The interval is about the mean over all examples like these, drawn independently. It is not
    about another seed of the attack, nor about a stronger attack. With equal weights it is the
    textbook interval :math:`m \pm t_{n-1} \, \mathrm{std} / \sqrt{n}`; otherwise n' is Kish's
    effective number of examples, and the scale of the weights has no effect. Where all values are
    equal its width is 0, although other values may be possible. It is NaN for n' < 2.

    With ``bounds``, the range of the metric, the interval lies in this range. If both are finite,
    one value at each end, with the mean weight, is added to the values, as Agresti and Coull (1998)
    do for shares: a value that was not found in n examples may still have a share of about 3 / n.
    The width is therefore not 0 where all values are equal. If all values are ends of the range and
    weights are equal, the interval is the exact one of a share (Clopper and Pearson 1934).

    Args:
        values (Tensor): one per example, shape (N,); NaN for examples without a value.
        weights (Tensor, optional): not negative, shape (N,). Default: all equal.
        confidence (float, optional): coverage of the interval, in (0, 1). Default: 0.95.
        bounds (tuple[float, float], optional): smallest and largest possible value. Default:
            unknown.

    Examples::

        >>> found = estimate(torch.tensor([1.0, 0.5, 0.75, float("nan")]))
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.n_nan
        (0.75, 0.129, 1.371, 1)
        >>> found = estimate(torch.tensor([1.0, 0.5, 0.75, float("nan")]), bounds=(0, 1))
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3)
        (0.75, 0.131, 1.0)
        >>> round(estimate(torch.ones(8), bounds=(0, 1)).low, 3)
        0.631
    """
    known = ~values.isnan()
    v = values[known].double()
    w = torch.ones_like(v) if weights is None else weights[known].to(v)
    n_examples, n_nan, total = len(values), int((~known).sum()), float(w.sum())
    if total == 0:
        nan = math.nan
        return Estimate(nan, nan, nan, n_examples, n_nan, nan, nan)
    counted = v[w > 0]
    w = w[w > 0] / total
    mean = float((w * counted).sum())
    low, high = _interval(counted, w, confidence, bounds)
    return Estimate(mean, low, high, n_examples, n_nan, float(counted.min()), float(counted.max()))


def _interval(
    values: Tensor, weights: Tensor, confidence: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Return the ends of the interval of a mean; the sum of the weights is 1."""
    smallest, largest = map(float, bounds)
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        low, high = _student(values, weights, confidence)
        return max(low, smallest), min(high, largest)  # NaN stays NaN
    mean = float((weights * values).sum())
    found = (values - smallest) / (largest - smallest)
    if bool((weights == weights[0]).all()) and bool(((found == 0) | (found == 1)).all()):
        ends = share_interval(int(found.sum()), len(found), confidence)
        low, high = (smallest + (largest - smallest) * end for end in ends)
    else:
        further = weights.square().sum().expand(2)  # the weight of one of n' examples
        wider = torch.cat([weights, further]) / (1 + further.sum())
        low, high = _student(torch.cat([values, values.new_tensor(bounds)]), wider, confidence)
    # The values that were added move the middle of the interval.
    return max(smallest, min(low, mean)), min(largest, max(high, mean))


def _student(values: Tensor, weights: Tensor, confidence: float) -> tuple[float, float]:
    """Return Student's t interval; the sum of the weights is 1."""
    mean = float((weights * values).sum())
    n_effective = 1 / float(weights.square().sum())
    if n_effective <= 2 - 1e-9:
        return math.nan, math.nan
    variance = float((weights.square() * (values - mean).square()).sum())
    spread = math.sqrt(variance * n_effective / (n_effective - 1))
    half = spread * student_quantile(confidence, n_effective - 1)
    return mean - half, mean + half


def student_quantile(confidence: float, degrees: float) -> float:
    r"""Return the t with :math:`P(|T| \le t)` = ``confidence`` for Student's T.

    It is found by Newton's method, for ``degrees`` of freedom of about 1 or more, to at least seven
    digits up to a million degrees. The probability is concave in t > 0, so the steps from the
    quantile of the normal distribution, which is smaller, converge from below.
    """
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    scale = math.exp(log_scale) / math.sqrt(degrees * math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    t = NormalDist().inv_cdf((1 + confidence) / 2)
    for _ in range(100):
        # T = √ν tan φ has the smooth density cos^(ν−1) φ, up to the scale.
        end = math.atan(t / math.sqrt(degrees))
        angles = (nodes + 1) * end / 2
        area = end / 2 * float((weights * np.cos(angles) ** (degrees - 1)).sum())
        probability = 2 * scale * math.sqrt(degrees) * area
        density = 2 * scale * (1 + t * t / degrees) ** (-(degrees + 1) / 2)
        step = (confidence - probability) / density
        t += step
        if step <= 1e-12 * t:
            break
    return t
