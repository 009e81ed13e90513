"""Line charts as SVG: the geometry is here, the colours are in the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

__all__ = ["Chart", "Line", "LineStyle", "Mark", "Tick"]

WIDTH, HEIGHT = 380, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 14, 14, 46
_MIN_GAP = 34  # between labels on the horizontal axis


#: Colour and mark of a line in the style sheet; a ``"thin"`` line has no mark.
LineStyle = Literal["grey", "blue", "orange", "green", "thin"]


class Mark(NamedTuple):
    """A point, in the units of the picture."""

    x: float
    y: float


class Tick(NamedTuple):
    """A position on an axis with its label, which is empty where there is no room for it."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """Values y at x, and the band from ``low`` to ``high`` around them, if any."""

    name: str
    style: LineStyle
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """Lines in one frame; the vertical axis reaches from 0 to 1.

    Attributes:
        title: text above the chart.
        description: what the chart shows, for readers who do not see it.
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.
        lines: the lines in the order in which they are drawn, the most important last.
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
        """Bounds of the picture, as SVG writes them."""
        return f"0 0 {WIDTH} {HEIGHT}"

    @property
    def frame(self) -> dict[str, int]:
        """Edges of the plot inside the picture."""
        return {
            "left": _LEFT, "right": WIDTH - _RIGHT, "top": _TOP, "bottom": HEIGHT - _BOTTOM,
        }  # fmt: skip

    @property
    def ticks_of_x(self) -> list[Tick]:
        """Ticks of the horizontal axis; labels that would touch are left out, except the last."""
        places = [self._x(v) for v in self.x_ticks]
        shown = {len(places) - 1} if places else set()
        nearest = -math.inf
        for i, place in enumerate(places[:-1]):
            if place - nearest >= _MIN_GAP and places[-1] - place >= _MIN_GAP:
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
        """Return the points of a line that have a value."""
        return [Mark(self._x(x), _y(y)) for x, y in self._known(line, line.y)]

    def path(self, line: Line) -> str:
        """Return the line as the data of an SVG path."""
        return " ".join(f"{'L' if i else 'M'}{m.x} {m.y}" for i, m in enumerate(self.marks(line)))

    def band(self, line: Line) -> str:
        """Return the band as the data of an SVG path; empty for a line without a band."""
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
