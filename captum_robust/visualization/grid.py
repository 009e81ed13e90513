"""An attribution map drawn as a grid of cells, with outlined and marked regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_robust.visualization.marks import Mark, draw_marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_map", "draw_regions"]

# Points. A smaller cell is no larger than the line around it.
_SMALLEST_OUTLINED = 6.0
_SMALLEST_MARKER, _LARGEST_MARKER = 4.0, 8.0

_Segment = tuple[tuple[float, float], tuple[float, float]]


def draw_map(axis: Axes, values: NDArray[np.float64], cmap: Any) -> None:
    """Draw a map as an image without ticks, darkest where it is largest."""
    axis.imshow(values, cmap=cmap, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])


def _cell_size(axis: Axes, shape: tuple[int, ...]) -> float:
    """Return the width of a cell in points."""
    box = axis.get_window_extent()
    pixels = min(box.width / shape[1], box.height / shape[0])
    return float(pixels * 72 / axis.figure.dpi)


def draw_regions(
    axis: Axes, mark: Mark, regions: NDArray[np.int64], marked: NDArray[np.bool_]
) -> None:
    """Outline and mark regions of a grid (H, W).

    The axis must have its final position, since the marks are as large as the cells allow.

    Args:
        axis: axis of the map.
        mark: colour, line and marker.
        regions: number of the region of each cell, 0 … n − 1; −1 for a cell in no region.
        marked: the regions that are marked, (n,) bool.
    """
    from matplotlib.collections import LineCollection

    chosen = np.where((regions >= 0) & marked[regions], regions, -1)
    if not marked.any():
        return
    cell = _cell_size(axis, regions.shape)
    width = cell * np.sqrt(np.unique(chosen[chosen >= 0], return_counts=True)[1].max())
    if width >= _SMALLEST_OUTLINED:
        pen = float(np.clip(width / 8, 0.8, 2.0))
        inset = pen / 2 / cell
        segments = list(_outlines(chosen, inset))
        # First the halos of all lines, so that no halo covers a line.
        for colour, line, line_width, order in (
            ("white", "-", pen + 1.6, 3),
            (mark.colour, mark.line, pen, 4),
        ):
            lines = LineCollection(
                segments, colors=colour, linestyles=[line], linewidths=line_width,
                capstyle="butt" if order == 4 else "projecting", zorder=order,
            )  # fmt: skip
            lines.set_gid(f"{mark.name} outline")
            axis.add_collection(lines, autolim=False)
    rows, columns = _centres(chosen)
    size = float(np.clip(0.42 * width, _SMALLEST_MARKER, _LARGEST_MARKER))
    draw_marks(axis, mark, columns, rows, size)


def _centres(chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the cell of each region that is nearest to its centre."""
    centres = []
    for region in np.unique(chosen[chosen >= 0]):
        cells = np.argwhere(chosen == region)
        distance = ((cells - cells.mean(axis=0)) ** 2).sum(axis=1)
        centres.append(cells[distance.argmin()])
    rows, columns = np.array(centres).T
    return rows, columns


def _outlines(chosen: NDArray[np.int64], inset: float) -> Iterator[_Segment]:
    """Yield the sides of the chosen cells that border on another region, moved inwards."""
    padded = np.pad(chosen, 1, constant_values=-1)
    for row, column in np.argwhere(chosen >= 0):
        own = chosen[row, column]

        def same(down: int, right: int, r: int = row, c: int = column, own: int = own) -> bool:
            return bool(padded[r + 1 + down, c + 1 + right] == own)

        # `out` points across the side, `along` along it; (rows, columns).
        for out, along in (
            ((-1, 0), (0, 1)),
            ((0, 1), (1, 0)),
            ((1, 0), (0, 1)),
            ((0, -1), (1, 0)),
        ):
            if same(*out):
                continue
            ends = []
            for sign in (-1, 1):
                ahead = (sign * along[0], sign * along[1])
                if not same(*ahead):  # the outline turns inwards
                    reach = 0.5 - inset
                elif same(ahead[0] + out[0], ahead[1] + out[1]):  # it turns outwards
                    reach = 0.5 + inset
                else:
                    reach = 0.5
                side = 0.5 - inset
                ends.append(
                    (
                        float(column + side * out[1] + reach * ahead[1]),
                        float(row + side * out[0] + reach * ahead[0]),
                    )
                )
            yield ends[0], ends[1]
