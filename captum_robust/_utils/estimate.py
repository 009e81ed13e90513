"""The mean of one value per example, with its confidence interval."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

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


def estimate(values: Tensor, weights: Tensor | None = None, confidence: float = 0.95) -> Estimate:
    r"""Return the weighted mean of values (N,) with Student's t interval.

    .. math::
        m = \frac{\sum w_i v_i}{\sum w_i}, \quad
        s^2 = \frac{n'}{n' - 1} \frac{\sum w_i^2 (v_i - m)^2}{(\sum w_i)^2}, \quad
        n' = \frac{(\sum w_i)^2}{\sum w_i^2}, \quad
        m \pm t_{n' - 1} s

    The interval is about the mean over all examples like these, drawn independently. It is not
    about another seed of the attack, nor about a stronger attack. With equal weights it is the
    textbook interval :math:`m \pm t_{n-1} \, \mathrm{std} / \sqrt{n}`; otherwise n' is Kish's
    effective number of examples, and the scale of the weights has no effect. The interval may
    reach beyond the range of the metric. Where all values are equal its width is 0, although other
    values may be possible. It is NaN for n' < 2.

    Args:
        values (Tensor): one per example, shape (N,); NaN for examples without a value.
        weights (Tensor, optional): not negative, shape (N,). Default: all equal.
        confidence (float, optional): coverage of the interval, in (0, 1). Default: 0.95.

    Examples::

        >>> found = estimate(torch.tensor([1.0, 0.5, 0.75, float("nan")]))
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.n_nan
        (0.75, 0.129, 1.371, 1)
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
    n_effective = 1 / float(w.square().sum())
    half = math.nan
    if n_effective > 2 - 1e-9:
        variance = float((w.square() * (counted - mean).square()).sum())
        spread = math.sqrt(variance * n_effective / (n_effective - 1))
        half = spread * student_quantile(confidence, n_effective - 1)
    return Estimate(
        mean, mean - half, mean + half, n_examples, n_nan,
        float(counted.min()), float(counted.max()),
    )  # fmt: skip


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
