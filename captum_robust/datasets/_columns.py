"""How a column of text becomes bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

Bits = tuple[int, ...]


@dataclass(frozen=True)
class Column:
    """One column of a data file and the binary features made of it."""

    name: str
    features: tuple[str, ...]
    accepted: str
    encode: Callable[[str], Bits | None]
    """The bits of a value, one for each feature, or None for a value that is not accepted."""


def levels(name: str, groups: Mapping[str, Iterable[str]], others: Iterable[str] = ()) -> Column:
    """One feature for each group of levels; ``others`` are accepted and set no bit."""
    codes: dict[str, Bits] = {}
    for position, group in enumerate(groups.values()):
        bits = tuple(int(i == position) for i in range(len(groups)))
        codes.update(dict.fromkeys(group, bits))
    codes.update(dict.fromkeys(others, (0,) * len(groups)))
    named = ", ".join(sorted(code or "nothing" for code in codes))
    return Column(name, tuple(groups), f"one of {named}", codes.get)


def thresholds(name: str, bounds: Mapping[str, int]) -> Column:
    """One feature for each bound, set where the whole number in the column reaches the bound."""
    return _numbers(name, bounds, lambda number, bound: number >= bound)


def ceilings(name: str, bounds: Mapping[str, int]) -> Column:
    """One feature for each bound, set where the whole number in the column is below the bound."""
    return _numbers(name, bounds, lambda number, bound: number < bound)


def whole_number(text: str) -> int | None:
    """The number that at most nine ASCII digits write, or None.

    ``int`` alone would take "-5", "1_000" and digits of other scripts, and choke on thousands.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _numbers(name: str, bounds: Mapping[str, int], holds: Callable[[int, int], bool]) -> Column:
    def encode(text: str) -> Bits | None:
        number = whole_number(text)
        if number is None:
            return None
        return tuple(int(holds(number, bound)) for bound in bounds.values())

    return Column(name, tuple(bounds), "a whole number, 0 or more, in at most 9 digits", encode)
