"""Estimates of how long units take."""

from collections.abc import Hashable, Mapping
from statistics import fmean

from captum_robust.benchmark.plan.units import Unit

__all__ = ["Durations", "clock"]

# Seconds on one core of a two-core virtual machine in 2026, used until a unit is finished.
_ROUGH, _ROUGH_OTHERS = {"training": 3.0, "auto": 8.0}, 1.0


class Durations:
    """Estimates from the finished units of the same kind, or else of the most similar kind.

    Args:
        seconds: processor time of each finished unit.
    """

    def __init__(self, seconds: Mapping[Unit, float]) -> None:
        known: dict[Hashable, list[float]] = {}
        for unit, taken in seconds.items():
            for kind in _kinds(unit):
                known.setdefault(kind, []).append(taken)
        self._means = {kind: fmean(taken) for kind, taken in known.items()}

    def of(self, unit: Unit) -> float:
        """Return the seconds that a unit will take."""
        for kind in _kinds(unit):
            if kind in self._means:
                return self._means[kind]
        return _ROUGH.get(unit.part.name, _ROUGH_OTHERS)


def _kinds(unit: Unit) -> list[Hashable]:
    """Return the kinds to which a unit belongs, the narrowest first."""
    return [
        (unit.part, unit.start, unit.dataset, unit.method, unit.setting),
        (unit.part, unit.start, unit.dataset, unit.method),
        (unit.part, unit.start, unit.method),
        (unit.part, unit.start),
        (unit.part,),
    ]


def clock(seconds: float) -> str:
    """Format a time as hours, minutes and seconds, such as ``"1:02:03"`` or ``"2:03"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
