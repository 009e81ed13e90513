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
    return Column(name, tuple(groups), f"one of {', '.join(sorted(codes))}", codes.get)


def thresholds(name: str, bounds: Mapping[str, int]) -> Column:
    """One feature for each bound, set where the whole number in the column reaches the bound."""

    def encode(text: str) -> Bits | None:
        # int() alone would take "-5", "1_000" and digits of other scripts.
        if not (text.isascii() and text.isdigit()):
            return None
        return tuple(int(int(text) >= bound) for bound in bounds.values())

    return Column(name, tuple(bounds), "a whole number, 0 or more, in digits", encode)
