"""A measure, what it found, and how that compares with its goal."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from tests.benchmark.device import on_gpu

__all__ = [
    "Bound",
    "Effort",
    "Measure",
    "Row",
    "Spread",
    "When",
    "at_least",
    "at_most",
    "number",
    "size",
]

#: Which runs a measure belongs to: all of them, those with ``--full``, or those on a GPU, of
#: batches that fill one.
When = Literal["always", "full", "gpu"]


@dataclass(frozen=True)
class Effort:
    """Length of a measurement; ``seconds`` is the time for rounds beyond the fewest."""

    seconds: float
    min_rounds: int
    max_rounds: int
    quick: bool = False


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the rounds, or three times the one value of a count."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)

    def __str__(self) -> str:
        if self.lower == self.upper:
            return number(self.median)
        return f"{number(self.median)} ({number(self.lower)} … {number(self.upper)})"


@dataclass(frozen=True)
class Bound:
    """A goal: the range in which the median should lie; without limits, nothing is asked."""

    low: float = -inf
    high: float = inf

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __bool__(self) -> bool:
        return isfinite(self.low) or isfinite(self.high)

    def __str__(self) -> str:
        if self.low == self.high:
            return f"= {number(self.low)}"
        if isfinite(self.low) and isfinite(self.high):
            return f"{number(self.low)} … {number(self.high)}"
        if isfinite(self.low):
            return f"≥ {number(self.low)}"
        return f"≤ {number(self.high)}" if self else "–"


def at_least(value: float) -> Bound:
    """A goal for a gain: how many times faster, say."""
    return Bound(low=value)


def at_most(value: float) -> Bound:
    """A goal for a cost."""
    return Bound(high=value)


@dataclass(frozen=True)
class Measure:
    """One row to be: ``find`` returns what was measured, or None where it cannot be measured.

    ``goal`` is the number of the goal in the study of what is possible; ``group`` selects measures
    on the command line; ``ratio`` says what is divided by what. ``cpu_only`` says why there is
    nothing to measure on a GPU.
    """

    goal: int
    group: str
    what: str
    ratio: str
    bound: Bound
    find: Callable[[Effort], Spread | None]
    when: When = "always"
    cpu_only: str = ""

    def row(self, effort: Effort) -> "Row":
        if self.cpu_only and on_gpu():
            return Row(self, None, skipped=self.cpu_only)
        try:
            return Row(self, self.find(effort))
        except AssertionError as error:
            return Row(self, None, differs=str(error))
        except Exception as error:  # which is not to cost the other rows
            return Row(self, None, failed=f"{type(error).__name__}: {error}")


@dataclass(frozen=True)
class Row:
    """A measure and what it found, or else how the two sides differ, failed, or why it was not."""

    measure: Measure
    found: Spread | None
    differs: str = ""
    failed: str = ""
    skipped: str = ""

    @property
    def verdict(self) -> str:
        if self.differs:
            return "results differ"
        if self.failed:
            return "failed"
        if self.skipped:
            return f"– {self.skipped}"
        if self.found is None:
            return "not measured"
        if not self.measure.bound:
            return "no goal"
        return "reached" if self.measure.bound.holds(self.found.median) else "missed"

    def as_dict(self) -> dict[str, object]:
        found = self.found
        return {
            "goal": self.measure.goal,
            "group": self.measure.group,
            "what": self.measure.what,
            "ratio": self.measure.ratio,
            "median": found and found.median,
            "lower_quartile": found and found.lower,
            "upper_quartile": found and found.upper,
            "bound": str(self.measure.bound),
            "verdict": self.verdict,
            "differs": self.differs,
            "failed": self.failed,
        }


def size(count: int) -> str:
    """A count with its thousands apart.

    >>> size(150528)
    '150 528'
    """
    return f"{count:_}".replace("_", " ")


def number(value: float) -> str:
    """Three digits of a number, without an exponent.

    >>> number(0.04567), number(15.0), number(1234.4)
    ('0.0457', '15', '1234')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
