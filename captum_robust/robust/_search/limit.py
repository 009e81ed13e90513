"""A limit that ends a search before its last step."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

__all__ = ["NO_LIMIT", "Limit"]


class Limit(NamedTuple):
    """A limit of a search, whose first steps are those of the search without the limit.

    Attributes:
        n_steps: largest number of steps; None for no limit.
        deadline: the reading of ``time.monotonic()`` after which no step begins.
    """

    n_steps: int | None = None
    deadline: float = math.inf

    @property
    def is_over(self) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline < math.inf and time.monotonic() >= self.deadline

    def ends(self, step: int) -> bool:
        """Return whether no step may follow after ``step`` steps."""
        return (self.n_steps is not None and step >= self.n_steps) or self.is_over


NO_LIMIT = Limit()
