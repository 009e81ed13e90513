"""Names written beside curves and points, in place of a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Named", "along", "label_ends", "label_points", "lay_out"]

#: A point (x, y) with its name and its colour.
Named = tuple[float, float, str, str]

_GAP = 9.0  # points between the end of a curve and its name
_FAR = 9.0  # a name further away than this gets a line to its curve or point


def label_ends(axis: Axes, ends: Sequence[Named]) -> None:
    """Write names to the right of the ends of curves, moved up or down where they would touch.

    Limits and scales must be final.
    """
    texts = [
        axis.annotate(
            name, (x, y), (_GAP, 0), textcoords="offset points", va="center", annotation_clip=False
        )
        for x, y, name, _ in ends
    ]
    lay_out(axis)
    scale = _pixels_per_point(axis)
    heights = np.array([text.get_window_extent().height for text in texts]) / scale
    wanted = np.array([axis.transData.transform((x, y))[1] for x, y, *_ in ends]) / scale
    foot = axis.get_window_extent().y0 / scale
    for text, shift, (*_, colour) in zip(
        texts, _apart(wanted, heights + 1.5, foot) - wanted, ends, strict=True
    ):
        text.xyann = (_GAP, float(shift))
        if abs(shift) > _FAR:
            _lead(axis, text.xy, text.xyann, colour)


def label_points(
    axis: Axes, points: Sequence[Named], obstacles: Sequence[NDArray[np.float64]] = ()
) -> None:
    """Write names beside points, each at the nearest place that is free.

    Limits and scales must be final. Names cover neither points nor ``obstacles``: places (m, 2) in
    data coordinates, close together.
    """
    lay_out(axis)
    scale = _pixels_per_point(axis)
    to_points = axis.transData.transform
    centres = np.array([to_points((x, y)) for x, y, *_ in points]) / scale
    thin = [to_points(places) / scale for places in obstacles]
    taken = np.concatenate([_boxes(centres, 5.0), *(_boxes(places, 1.0) for places in thin)])
    frame = np.array(axis.get_window_extent().extents) / scale
    # Place the names of the most crowded points first, while there is room.
    distances = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    for index in np.argsort(np.sort(distances, axis=1)[:, 1:4].sum(axis=1), kind="stable"):
        x, y, name, colour = points[index]
        text = axis.annotate(
            name, (x, y), (0, 0), textcoords="offset points", ha="center", va="center"
        )
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / (2 * scale) + 1
        offset = _free_place(centres[index], half, taken, frame)
        text.xyann = (float(offset[0]), float(offset[1]))
        place = np.concatenate([centres[index] + offset - half, centres[index] + offset + half])
        taken = np.concatenate([taken, place[None]])
        edge = offset - np.clip(offset, -half, half)  # the place of the box nearest to the point
        if np.hypot(*edge) > _FAR:
            _lead(axis, text.xy, edge, colour)


def along(path: NDArray[np.float64], n: int = 60) -> NDArray[np.float64]:
    """Return places close together on a path (m, 2)."""
    at = np.linspace(0, len(path) - 1, n * (len(path) - 1))
    return np.stack([np.interp(at, np.arange(len(path)), path[:, i]) for i in (0, 1)], axis=1)


def _free_place(
    centre: NDArray[np.float64],
    half: NDArray[np.float64],
    taken: NDArray[np.float64],
    frame: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the nearest offset of the centre of a box at which it overlaps nothing, or least."""
    distance, angle = np.meshgrid(np.arange(7.0, 80.0, 3.0), np.radians(np.arange(0, 360, 15)))
    direction = np.stack([np.cos(angle).ravel(), np.sin(angle).ravel()], axis=1)
    offsets = direction * (distance.ravel()[:, None] + abs(direction) * half)
    low, high = centre + offsets - half, centre + offsets + half
    sides = np.minimum(high[:, None], taken[:, 2:]) - np.maximum(low[:, None], taken[:, :2])
    overlap = np.prod(np.maximum(sides, 0), axis=2).sum(axis=1)
    outside = np.maximum(frame[:2] - low, 0) + np.maximum(high - frame[2:], 0)
    cost = distance.ravel() + overlap + 1000 * (overlap > 0) + 100 * outside.sum(axis=1)
    best: NDArray[np.float64] = offsets[cost.argmin()]
    return best


def _boxes(centres: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """Return squares (n, 4): left, bottom, right, top."""
    return np.concatenate([centres - half, centres + half], axis=1)


def _apart(
    wanted: NDArray[np.float64], heights: NDArray[np.float64], foot: float
) -> NDArray[np.float64]:
    """Return the places nearest to those wanted, in their order, at which no names touch.

    Neighbours that touch become a block, at the average of the places that its members want, but
    never below ``foot``.
    """
    blocks: list[tuple[list[int], float]] = []  # members from below, and the lowest edge
    for index in np.argsort(wanted, kind="stable"):
        members = [int(index)]
        bottom = max(float(wanted[index] - heights[index] / 2), foot)
        while blocks and blocks[-1][1] + heights[blocks[-1][0]].sum() > bottom:
            members = blocks.pop()[0] + members
            middles = np.cumsum(heights[members]) - heights[members] / 2
            bottom = max(float((wanted[members] - middles).mean()), foot)
        blocks.append((members, bottom))
    places = np.empty_like(wanted)
    for members, bottom in blocks:
        places[members] = bottom + np.cumsum(heights[members]) - heights[members] / 2
    return places


def _lead(axis: Axes, point: Any, offset: Any, colour: str) -> None:
    """Draw a thin line from a point to a name at an offset, in points."""
    axis.annotate(
        "", point, (float(offset[0]), float(offset[1])), textcoords="offset points",
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 4},
    )  # fmt: skip


def _pixels_per_point(axis: Axes) -> float:
    return float(axis.figure.canvas.figure.dpi) / 72


def lay_out(axis: Axes) -> None:
    """Lay out everything drawn so far, including the figure around a subfigure."""
    axis.figure.canvas.figure.draw_without_rendering()
