"""The encoding of a column of text as binary features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Bits = tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """A column of a data file and its binary features."""

    name: str
    features: tuple[str, ...]
    accepted: str
    encode: Callable[[str], Bits | None]
    """Return one bit per feature for a value, or None for a value that is not accepted."""


def levels(name: str, groups: Mapping[str, Iterable[str]], others: Iterable[str] = ()) -> Column:
    """Return a column with one feature per group of levels; ``others`` set no feature."""
    codes: dict[str, Bits] = {}
    for position, group in enumerate(groups.values()):
        bits = tuple(int(i == position) for i in range(len(groups)))
        codes.update(dict.fromkeys(group, bits))
    codes.update(dict.fromkeys(others, (0,) * len(groups)))
    named = ", ".join(sorted(code or "nothing" for code in codes))
    return Column(name, tuple(groups), f"one of {named}", codes.get)


def thresholds(name: str, bounds: Mapping[str, int]) -> Column:
    """Return a column with one feature per bound: the whole number is at least the bound."""
    return _numbers(name, bounds, lambda number, bound: number >= bound)


def ceilings(name: str, bounds: Mapping[str, int]) -> Column:
    """Return a column with one feature per bound: the whole number is less than the bound."""
    return _numbers(name, bounds, lambda number, bound: number < bound)


def whole_number(text: str) -> int | None:
    """Return the number that at most nine ASCII digits represent, or None.

    ``int`` would also accept "-5", "1_000" and digits of other scripts, and fails on thousands of
    digits.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _numbers(name: str, bounds: Mapping[str, int], holds: Callable[[int, int], bool]) -> Column:
    def encode(text: str) -> Bits | None:
        number = whole_number(text)
        if number is None:
            return None
        return tuple(int(holds(number, bound)) for bound in bounds.values())

    return Column(name, tuple(bounds), "a whole number, 0 or more, in at most 9 digits", encode)
