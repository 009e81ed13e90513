"""The limits of an ensemble: attributions per example, and time."""

from __future__ import annotations

import math
import time

from captum_robust.robust._ensemble.members import Member
from captum_robust.robust._search.limit import Limit

__all__ = ["Budget"]


class Budget:
    """The attributions that every example may take, and the time that the ensemble may take.

    A member is charged its largest cost, whatever it takes for an example, so that all examples
    have the same members. The first member that does not fit is shortened, and it is the last. What
    a smaller budget evaluates is therefore the beginning of what a larger one evaluates, and a
    larger budget never gives a weaker result.

    Args:
        n_queries: largest number of attributions per example; None for no limit.
        seconds: time after which no step begins; None for no limit.
    """

    def __init__(self, n_queries: int | None = None, seconds: float | None = None) -> None:
        self.n_queries = math.inf if n_queries is None else n_queries
        self.is_limited = n_queries is not None or seconds is not None
        self._left = self.n_queries
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def time_is_over(self) -> bool:
        """Return whether the deadline has passed."""
        return Limit(deadline=self._deadline).is_over

    def limit_of(self, member: Member) -> Limit | None:
        """Charge a member, and return its limit; None if it cannot take a single step."""
        n_steps = member.n_steps
        if member.cost > self._left:
            n_steps = int(self._left - member.cost_of_start) // member.cost_of_step
            self._left = 0
            if n_steps < 1:
                return None
        else:
            self._left -= member.cost
        if self.time_is_over:
            return None
        shortened = n_steps < member.n_steps
        return Limit(n_steps if shortened else None, self._deadline)

    def charge(self, n_queries: int) -> bool:
        """Charge attributions that cannot be shortened, and return whether they fit."""
        fits = n_queries <= self._left and not self.time_is_over
        self._left = self._left - n_queries if fits else 0
        return fits
