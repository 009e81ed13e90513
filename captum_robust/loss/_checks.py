"""Checks of the arguments of losses; each error names the argument, its value and its range."""

import math
from typing import Any, get_args

__all__ = ["check_choices", "check_positive", "check_ranking", "check_weights", "is_count"]


def check_choices(accepted: Any, **given: Any) -> None:
    """Raise ValueError unless each value is one of those that the literal type lists."""
    for name, value in given.items():
        if value not in get_args(accepted):
            raise ValueError(f"{name} must be one of {get_args(accepted)}, got {value!r}")


def check_ranking(k: int, k_prime: int | None) -> None:
    """Raise ValueError unless 1 <= k' <= k."""
    if not is_count(k):
        raise ValueError(f"k must be an int of at least 1, got {k!r}")
    if k_prime is not None and not (is_count(k_prime) and k_prime <= k):
        raise ValueError(f"k_prime must be an int in 1 … k = {k}, got {k_prime!r}")


def check_weights(**given: float) -> None:
    """Raise ValueError unless each weight is finite and not negative."""
    for name, weight in given.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {weight}")


def check_positive(**given: float) -> None:
    """Raise ValueError unless each value is positive and finite."""
    for name, value in given.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def is_count(number: object) -> bool:
    """Return whether a value is an int of at least 1."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1
