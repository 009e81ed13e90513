"""Names written beside what they name, so that no legend has to be looked up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

__all__ = ["label_ends", "label_points"]

_GAP = 9.0  # points between a curve's end, or a point, and its name


def label_ends(axis: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names right of the ends (x, y, name, colour) of curves, moved apart where they would touch.

    Call it when limits and scales are final.
    """
    texts = [
        axis.annotate(
            name, (x, y), (_GAP, 0), textcoords="offset points", va="center",
            annotation_clip=False,
        )
        for x, y, name, _ in ends
    ]  # fmt: skip
    _lay_out(axis)
    heights = np.array([_points(axis, t.get_window_extent().height) for t in texts])
    wanted = np.array([_points(axis, axis.transData.transform((x, y))[1]) for x, y, *_ in ends])
    shifts = _apart(wanted, heights + 1.5) - wanted
    for text, shift, (*_, colour) in zip(texts, shifts, ends, strict=True):
        text.xyann = (_GAP, float(shift))
        if abs(shift) > 4:
            _lead(axis, text, colour)


def label_points(axis: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Names beside points (x, y, name, colour): the nearest place that is still free.

    Call it when limits and scales are final.
    """
    _lay_out(axis)
    centres = np.array([axis.transData.transform((x, y)) for x, y, *_ in points])
    scale = axis.figure.canvas.figure.dpi / 72
    frame = axis.get_window_extent()
    taken = [np.array([*c - 5 * scale, *c + 5 * scale]) for c in centres]
    # Crowded points first, while there is room.
    distances = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    for index in np.argsort(np.sort(distances, axis=1)[:, 1:4].sum(axis=1), kind="stable"):
        x, y, name, colour = points[index]
        text = axis.annotate(
            name, (x, y), (0, 0), textcoords="offset points", ha="center", va="center",
            fontsize="small",
        )  # fmt: skip
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / 2 + scale
        offset, place = _free_place(centres[index], half, taken, np.array(frame.extents), scale)
        text.xyann = tuple(offset / scale)
        taken.append(place)
        if np.hypot(*np.maximum(abs(offset) - half, 0)) > 9 * scale:
            _lead(axis, text, colour)


def _free_place(
    centre: NDArray[np.float64],
    half: NDArray[np.float64],
    taken: list[NDArray[np.float64]],
    frame: NDArray[np.float64],
    scale: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The offset of the centre of a box, and the box: the one that overlaps least, then nearest."""
    best: tuple[float, NDArray[np.float64], NDArray[np.float64]] | None = None
    for distance in np.arange(7, 80, 4) * scale:
        for angle in np.arange(0, 360, 15):
            direction = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
            offset = direction * (distance + np.abs(direction) * half)
            box = np.concatenate([centre + offset - half, centre + offset + half])
            outside = (
                np.maximum(frame[:2] - box[:2], 0).sum() + np.maximum(box[2:] - frame[2:], 0).sum()
            )
            overlap = sum(_overlap(box, other) for other in taken)
            cost = float(overlap + 100 * outside + (overlap > 0) * 1e3 + distance)
            if best is None or cost < best[0]:
                best = (cost, offset, box)
    assert best is not None
    return best[1:]


def _overlap(box: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(np.prod(np.maximum(sides, 0)))


def _apart(wanted: NDArray[np.float64], heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places nearest to those wanted, in their order, at which nothing of these heights touches.

    Neighbours that touch become a block, which stands where its members want it on average.
    """
    order = np.argsort(wanted, kind="stable")
    blocks: list[tuple[list[int], float]] = []  # members from below, and the centre
    for index in order:
        members, centre = [int(index)], float(wanted[index])
        while blocks and _top(*blocks[-1], heights) > centre - heights[members].sum() / 2:
            members = blocks.pop()[0] + members
            offsets = np.cumsum(heights[members]) - heights[members] / 2
            centre = float((wanted[members] - offsets).mean() + heights[members].sum() / 2)
        blocks.append((members, centre))
    places = np.empty_like(wanted)
    for members, centre in blocks:
        bottom = centre - heights[members].sum() / 2
        places[members] = bottom + np.cumsum(heights[members]) - heights[members] / 2
    return places


def _top(members: list[int], centre: float, heights: NDArray[np.float64]) -> float:
    return float(centre + heights[members].sum() / 2)


def _points(axis: Axes, pixels: float) -> float:
    return pixels * 72 / float(axis.figure.canvas.figure.dpi)


def _lead(axis: Axes, text: Annotation, colour: str) -> None:
    """A thin line from a name to what it names."""
    axis.annotate(
        "", text.xy, text.xyann, textcoords="offset points", annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 4},
    )  # fmt: skip


def _lay_out(axis: Axes) -> None:
    """Give the axis its final place; a subfigure is laid out with the figure it is in."""
    axis.figure.canvas.figure.draw_without_rendering()
