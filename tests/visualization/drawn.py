"""What stands in a picture, read from its artists; and top-k sets by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np


def top(scores: Any, k: int) -> set[int]:
    """The k largest, the lower index first among equals."""
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))
    return set(order[:k])


def points(axis: Any, name: str) -> list[tuple[float, float]]:
    """Where the marks of a name stand."""
    lines = [line for line in axis.get_lines() if line.get_gid() == name]
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]


def cells(axis: Any, name: str) -> set[tuple[int, int]]:
    """Rows and columns of the marked cells of a grid."""
    found = points(axis, name)
    places = {(round(y), round(x)) for x, y in found}
    assert len(places) == len(found)
    return places


def segments(axis: Any, name: str) -> list[np.ndarray]:
    """The lines of an outline, or of edges."""
    collections = [c for c in axis.collections if c.get_gid() == name]
    return [np.asarray(s) for c in collections for s in c.get_segments()]
