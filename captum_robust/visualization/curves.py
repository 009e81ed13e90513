"""Curves of means with confidence bands, in styles that differ without colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_robust._utils.estimate import estimate
from captum_robust.visualization.labels import along, label_ends, label_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["STYLES", "Curve", "Style", "curve_of_means", "draw_curves", "draw_steps"]


class Style(NamedTuple):
    """Colour (of Okabe and Ito), marker and line of a curve."""

    colour: str
    marker: str
    line: Any


STYLES = (
    Style("#0072B2", "o", "-"),
    Style("#D55E00", "s", (0, (5, 1.5))),
    Style("#009E73", "^", (0, (1.5, 1))),
    Style("#CC79A7", "D", (0, (6, 1.5, 1.5, 1.5))),
    Style("#000000", "v", "-"),
    Style("#E69F00", "P", (0, (5, 1.5))),
    Style("#56B4E9", "X", (0, (1.5, 1))),
)


@dataclass(frozen=True)
class Curve:
    """Means at every x, and the ends of the band around them; NaN where a value is missing."""

    name: str
    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curve_of_means(
    name: str,
    x: NDArray[np.float64],
    values: NDArray[np.float64],
    weights: Tensor | None,
    confidence: float,
) -> Curve:
    """Return the mean over the examples of values (R, N), with Student's t interval at each x."""
    found = [estimate(torch.from_numpy(row), weights, confidence) for row in values]
    mean, low, high = (
        np.array([getattr(e, end) for e in found]) for end in ("mean", "low", "high")
    )
    return Curve(name, x, mean, low, high)


def draw_curves(axis: Axes, curves: Sequence[Curve]) -> None:
    """Draw curves and bands, and write the names at their ends; limits must be final."""
    ends = []
    for curve, style in zip(curves, cycle(STYLES), strict=False):
        axis.plot(
            curve.x, curve.mean, color=style.colour, linestyle=style.line, linewidth=1.8,
            marker=style.marker, markersize=6, markeredgecolor="white", markeredgewidth=0.6,
            zorder=3, label=curve.name,
        )  # fmt: skip
        _draw_band(axis, curve, style)
        known = np.flatnonzero(~np.isnan(curve.mean))
        if len(known):
            last = known[-1]
            ends.append((curve.x[last], curve.mean[last], curve.name, style.colour))
    label_ends(axis, ends)


def draw_steps(axis: Axes, curves: Sequence[Curve]) -> None:
    """Draw falling steps and bands, and write the names half-way down; limits must be final."""
    points, paths = [], []
    for curve, style in zip(curves, cycle(STYLES), strict=False):
        axis.plot(
            curve.x, curve.mean, color=style.colour, linestyle=style.line, linewidth=1.8,
            drawstyle="steps-post", zorder=3, label=curve.name,
        )  # fmt: skip
        _draw_band(axis, curve, style, step="post")
        half = int(np.abs(curve.mean - 0.5).argmin())
        points.append((curve.x[half], curve.mean[half], curve.name, style.colour))
        stairs = np.stack([np.repeat(curve.x, 2)[1:], np.repeat(curve.mean, 2)[:-1]], axis=1)
        paths.append(along(stairs, 10))
    label_points(axis, points, paths)


def _draw_band(axis: Axes, curve: Curve, style: Style, step: Literal["post"] | None = None) -> None:
    axis.fill_between(
        curve.x, curve.low, curve.high, color=style.colour, alpha=0.15, linewidth=0, step=step,
        zorder=2,
    )  # fmt: skip
