"""The marks of kept, lost and gained features, which differ in colour, shape and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from captum_robust.visualization.change import RankingChange

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GAINED", "KEPT", "LOST", "Mark", "Side", "draw_key", "draw_marks", "sides"]


@dataclass(frozen=True)
class Mark:
    """The look of kept, lost or gained features, in the colours of Okabe and Ito."""

    name: str
    colour: str
    marker: str
    line: Any
    hatch: str


KEPT = Mark("kept", "#0072B2", "o", "-", "")
LOST = Mark("lost", "#D55E00", "X", (0, (4, 1.5)), "////")
GAINED = Mark("gained", "#009E73", "^", (0, (1.5, 1)), "....")


class Side(NamedTuple):
    """The content of the picture of before, or of after."""

    heading: str
    scores: NDArray[np.float64]
    marks: tuple[tuple[Mark, NDArray[np.bool_]], ...]


def sides(change: RankingChange) -> tuple[Side, Side]:
    """Return before, with the features that were lost, and after, with those that were gained."""
    kept = (KEPT, change.kept)
    return (
        Side("before", change.before, (kept, (LOST, change.lost))),
        Side(f"after: {change.heading}", change.after, (kept, (GAINED, change.gained))),
    )


def draw_marks(axis: Axes, mark: Mark, x: NDArray[Any], y: NDArray[Any], size: float = 6.0) -> None:
    """Draw one marker per point, ``size`` points wide."""
    if not len(x):  # matplotlib lays an empty line out as if it were in a corner of the figure
        return
    axis.plot(
        x, y, linestyle="none", marker=mark.marker, markersize=size, color=mark.colour,
        markeredgecolor="white", markeredgewidth=size / 10, clip_on=False, zorder=5,
        gid=mark.name,
    )  # fmt: skip


def draw_key(axis: Axes, marks: Sequence[tuple[Mark, NDArray[np.bool_]]]) -> None:
    """Draw the key under the axis: each mark with its name and number."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=mark.colour, linestyle=mark.line, marker=mark.marker, markersize=7)
        for mark, _ in marks
    ]
    labels = [f"{which.sum()} {mark.name}" for mark, which in marks]
    axis.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=len(marks),
        frameon=False, borderpad=0, borderaxespad=0.3, handlelength=1.8, columnspacing=1.0,
        handletextpad=0.5,
    )  # fmt: skip
