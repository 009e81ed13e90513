"""Line charts as SVG: geometry here, colours in the style sheet, so that they follow the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Chart", "Line", "Mark", "Tick"]

WIDTH, HEIGHT = 380, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 14, 46
_CLOSEST = 34  # of labels on the horizontal axis


class Mark(NamedTuple):
    """A point in the units of the picture."""

    x: float
    y: float


class Tick(NamedTuple):
    """A place on an axis, and its label; empty where there is no room."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """Values y at x; ``style`` is the name of a colour and a mark in the style sheet.

    ``low`` and ``high`` are the edges of a band around the line.
    """

    name: str
    style: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """Lines over a shared axis; the vertical one reaches from 0 to 1.

    Attributes:
        title: above the chart.
        description: what it shows, for those who do not see it.
        x_label, y_label: of the axes.
        lines: drawn in this order, the most important last.
        x_ticks: values that are labelled on the horizontal axis.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_ticks: Sequence[float]
    width: int = field(default=WIDTH, init=False)
    height: int = field(default=HEIGHT, init=False)

    @property
    def view_box(self) -> str:
        """Of the picture."""
        return f"0 0 {WIDTH} {HEIGHT}"

    @property
    def frame(self) -> dict[str, int]:
        """Edges of the area of the plot."""
        return {
            "left": _LEFT, "right": WIDTH - _RIGHT, "top": _TOP, "bottom": HEIGHT - _BOTTOM,
        }  # fmt: skip

    @property
    def ticks_of_x(self) -> list[Tick]:
        """Ticks of the horizontal axis; labels that would touch are left out, the last never."""
        places = [self._x(v) for v in self.x_ticks]
        shown = {len(places) - 1} if places else set()
        nearest = -math.inf
        for i, place in enumerate(places[:-1]):
            if place - nearest >= _CLOSEST and places[-1] - place >= _CLOSEST:
                shown.add(i)
                nearest = place
        return [
            Tick(place, f"{value:g}" if i in shown else "")
            for i, (place, value) in enumerate(zip(places, self.x_ticks, strict=True))
        ]

    @property
    def ticks_of_y(self) -> list[Tick]:
        """Ticks of the vertical axis."""
        return [Tick(_y(v), f"{v:g}") for v in (0, 0.25, 0.5, 0.75, 1)]

    def marks(self, line: Line) -> list[Mark]:
        """The points of a line that have a value."""
        return [Mark(self._x(x), _y(y)) for x, y in self._known(line, line.y)]

    def path(self, line: Line) -> str:
        """The line as the data of an SVG path."""
        return " ".join(f"{'L' if i else 'M'}{m.x} {m.y}" for i, m in enumerate(self.marks(line)))

    def band(self, line: Line) -> str:
        """The band as the data of an SVG path; empty where there is none."""
        high = [(self._x(x), _y(v)) for x, v in self._known(line, line.high)]
        low = [(self._x(x), _y(v)) for x, v in self._known(line, line.low)]
        if len(high) < 2 or len(low) < 2:
            return ""
        return "M" + " L".join(f"{x} {y}" for x, y in [*high, *reversed(low)]) + " Z"

    @staticmethod
    def _known(line: Line, values: Sequence[float]) -> list[tuple[float, float]]:
        pairs = zip(line.x, values, strict=False)
        return [(x, v) for x, v in pairs if not math.isnan(v)]

    def _x(self, value: float) -> float:
        end = max((x for line in self.lines for x in line.x), default=1.0) or 1.0
        return round(_LEFT + (WIDTH - _RIGHT - _LEFT) * value / end, 2)


def _y(value: float) -> float:
    bottom = HEIGHT - _BOTTOM
    return round(bottom - (bottom - _TOP) * min(max(float(value), 0.0), 1.0), 2)
