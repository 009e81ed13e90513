"""The exact confidence interval of a share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

__all__ = ["share_interval"]

_HALVINGS = 60


def share_interval(n_found: int, n: int, confidence: float) -> tuple[float, float]:
    r"""Return the exact interval of a share of which ``n_found`` of n examples were found.

    The ends are the shares p with :math:`P(X \ge x) = \alpha / 2` and :math:`P(X \le x) = \alpha /
    2` for binomial X (Clopper and Pearson 1934): it covers the share at least as often as it says.

    >>> low, high = share_interval(8, 8, 0.95)
    >>> round(low, 3), high
    (0.631, 1.0)
    """
    tail = (1 - confidence) / 2
    log_n = math.lgamma(n + 1)

    def at_least(x: int, share: float) -> float:
        """Return the probability of x or more."""
        i = torch.arange(x, n + 1, dtype=torch.float64)
        ways = log_n - torch.lgamma(i + 1) - torch.lgamma(n - i + 1)
        logs = ways + i * math.log(share) + (n - i) * math.log1p(-share)
        return float(logs.logsumexp(dim=0).exp())

    low = _root(lambda p: at_least(n_found, p) < tail) if n_found > 0 else 0.0
    high = _root(lambda p: 1 - at_least(n_found + 1, p) > tail) if n_found < n else 1.0
    return low, high


def _root(is_below: Callable[[float], bool]) -> float:
    """Return the point of (0, 1) up to which a condition is true."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2
