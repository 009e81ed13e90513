"""Ratios of time: interleaved, rotated rounds on one thread, without garbage collection."""

import gc
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from tests.benchmark.device import seconds
from tests.benchmark.row import Effort, Spread

__all__ = ["IDLE", "difference_ratio", "ratio", "slope"]

Result = TypeVar("Result")

#: Why no slope is measured on a GPU.
IDLE = "sizes that leave a GPU idle take equally long"

_LONG_ENOUGH = 0.02  # seconds of one timing; what is shorter is repeated


def ratio(
    above: Callable[[], Result],
    below: Callable[[], Result],
    effort: Effort,
    same: Callable[[Result, Result], None] | None = None,
    share: float = 1.0,
) -> Spread:
    """Time of ``above`` divided by that of ``below``, once ``same`` has accepted their results.

    Args:
        above: what is divided.
        below: what it is divided by.
        effort: how long to measure.
        same: raises AssertionError if the two results differ.
        share: the part of the work of ``below`` that ``above`` does; its time is scaled up.
    """
    if same is not None:
        same(above(), below())
    rounds = _seconds_per_call((above, below), effort)
    return Spread.of([a / share / b for a, b in rounds])


def difference_ratio(
    long: Callable[[], object],
    short: Callable[[], object],
    below: Callable[[], object],
    effort: Effort,
) -> Spread:
    """Time of ``long`` less that of ``short``, divided by that of ``below``."""
    rounds = _seconds_per_call((long, short, below), effort)
    return Spread.of([(a - b) / c for a, b, c in rounds])


def slope(
    candidates: Sequence[Callable[[], object]], sizes: Sequence[int], effort: Effort
) -> Spread:
    """Slope of log time over log size, by least squares in every round."""
    x = [math.log(size) for size in sizes]
    rounds = _seconds_per_call(candidates, effort)
    fits = [statistics.linear_regression(x, [math.log(t) for t in times]) for times in rounds]
    return Spread.of([fit.slope for fit in fits])


def _seconds_per_call(
    candidates: Sequence[Callable[[], object]], effort: Effort
) -> list[list[float]]:
    """Time of one call of every candidate (columns) in every round (rows)."""
    rounds: list[list[float]] = []
    with _no_collection():
        repeats = [_enough(candidate) for candidate in candidates]
        began = seconds()
        while len(rounds) < effort.min_rounds or (
            len(rounds) < effort.max_rounds and seconds() - began < effort.seconds
        ):
            times = [0.0] * len(candidates)
            for place in range(len(candidates)):
                number = (place + len(rounds)) % len(candidates)
                times[number] = _timed(candidates[number], repeats[number]) / repeats[number]
            rounds.append(times)
    return rounds


def _enough(candidate: Callable[[], object]) -> int:
    """Number of calls that take long enough to be timed; warms up on the way."""
    calls = 1
    while (took := _timed(candidate, calls)) < _LONG_ENOUGH:
        calls = max(2 * calls, math.ceil(calls * _LONG_ENOUGH / max(took, 1e-6)))
    return calls


def _timed(candidate: Callable[[], object], calls: int) -> float:
    began = seconds()
    for _ in range(calls):
        candidate()
    return seconds() - began


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
