"""Rules with names, and one error that lists all broken rules."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

__all__ = ["CheckFailure", "Rule", "always", "require", "require_close", "run_all"]

Case = TypeVar("Case")


class CheckFailure(AssertionError):
    """Error of a broken rule, with the reason."""


def require(kept: bool | Tensor, reason: str) -> None:
    """Raise :class:`CheckFailure` unless the rule is kept; works under ``python -O``."""
    if not bool(kept):
        raise CheckFailure(reason)


def require_close(
    found: Tensor | tuple[Tensor, ...],
    expected: Tensor | tuple[Tensor, ...],
    reason: str,
    tolerance: float = 1e-9,
) -> None:
    """Raise unless two results agree up to rounding, NaN with NaN."""
    pair = ((r,) if isinstance(r, Tensor) else r for r in (found, expected))
    for a, b in zip(*pair, strict=True):
        same = a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True)
        require(same, reason)


def always(case: Any) -> bool:
    """Apply to every case."""
    return True


@dataclass(frozen=True)
class Rule(Generic[Case]):
    """A check, and the cases to which it applies by their declared properties."""

    check: Callable[[Case], None]
    applies: Callable[[Case], bool] = always

    @property
    def name(self) -> str:
        """The name of the check."""
        return self.check.__name__


def run_all(checks: Iterable[tuple[str, Callable[[Any], None]]], subject: Any) -> list[str]:
    """Run every check on the subject; return the names, or raise one error for all failures.

    >>> def check_is_even(number):
    ...     require(number % 2 == 0, f"{number} is odd")
    >>> def check_is_small(number):
    ...     require(number < 10, f"{number} is not below 10")
    >>> run_all([("even", check_is_even), ("small", check_is_small)], 4)
    ['even', 'small']
    >>> run_all([("even", check_is_even), ("small", check_is_small)], 5)
    Traceback (most recent call last):
        ...
    captum_robust.testing.report.CheckFailure: 1 of 2 checks failed:
    even: 5 is odd
    """
    passed, failed = [], []
    for name, check in checks:
        try:
            check(subject)
        except CheckFailure as error:
            failed.append(f"{name}: {error}")
        except Exception as error:  # an exception of a contribution is a failure like others
            failed.append(f"{name}: raised {type(error).__name__}: {error}")
        else:
            passed.append(name)
    if not passed and not failed:
        raise ValueError("no check applies to the declared properties")
    if failed:
        n_checks = len(passed) + len(failed)
        raise CheckFailure("\n".join([f"{len(failed)} of {n_checks} checks failed:", *failed]))
    return passed
