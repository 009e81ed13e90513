"""The axes of plots against the radius of the perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from captum_robust.visualization.canvas import Array
from captum_robust.visualization.curves import Curve, draw_curves, draw_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["SIZE", "check_confidence", "check_curves", "draw_against_radius"]

SIZE = (6.4, 3.8)


def draw_against_radius(
    axis: Axes,
    curves: Sequence[Curve],
    xlabel: str,
    ylabel: str,
    ylim: tuple[float, float] | None,
    title: str | None,
    steps: bool = False,
) -> None:
    """Draw curves or steps with their names; the vertical axis is 0 to 1 where the means are."""
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    means = np.concatenate([curve.mean for curve in curves])
    if ylim is None and np.nanmin(means) >= 0 and np.nanmax(means) <= 1:
        ylim = (0, 1.03)
    if ylim is not None:
        axis.set_ylim(ylim)
    if title is not None:
        axis.set_title(title)
    (draw_steps if steps else draw_curves)(axis, curves)


def check_curves(argument: str, given: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return the curves by name, or raise an error if there are none."""
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{argument} must map the name of each curve to its values, got {given!r}")
    return given


def check_confidence(confidence: float) -> None:
    """Raise an error for a coverage outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
