"""Figures and axes in the conventions of ``captum.attr.visualization``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Array", "Canvas", "as_array", "one_axis", "open_canvas", "show"]

#: Values of a picture: a tensor on any device, an array, or numbers in a list.
Array = Any

#: Figure and axes, as Captum's visualizations take and return them.
Canvas = tuple["Figure", Any]


def as_array(values: Array) -> NDArray[np.float64]:
    """Return a copy in double precision, on the CPU, without gradients."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy().copy()
    if isinstance(values, (list, tuple)) and any(isinstance(v, Tensor) for v in values):
        return torch.stack([torch.as_tensor(v).detach().cpu().double() for v in values]).numpy()
    return np.array(values, dtype=np.float64)


def open_canvas(
    plt_fig_axis: Canvas | None,
    use_pyplot: bool,
    fig_size: tuple[float, float],
    n_rows: int = 1,
    n_columns: int = 1,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """Return the caller's figure and axes, or new ones; row by row."""
    if plt_fig_axis is None:
        if use_pyplot:
            from matplotlib import pyplot

            figure = pyplot.figure(figsize=fig_size, layout="constrained")
        else:
            from matplotlib.figure import Figure

            figure = Figure(figsize=fig_size, layout="constrained")
        grid = figure.subplots(n_rows, n_columns, squeeze=False, **options)
        return figure, list(grid.flat)
    figure, given = plt_fig_axis
    axes = list(np.ravel(np.array(given, dtype=object)))
    if len(axes) != n_rows * n_columns:
        raise ValueError(
            f"plt_fig_axis must hold a figure and {n_rows * n_columns} axes, got {len(axes)} axes"
        )
    return figure, axes


def one_axis(
    plt_fig_axis: Canvas | None, use_pyplot: bool, fig_size: tuple[float, float]
) -> tuple[Figure, Axes]:
    """Return the caller's figure and its one axis, or new ones."""
    figure, axes = open_canvas(plt_fig_axis, use_pyplot, fig_size)
    return figure, axes[0]


def show(use_pyplot: bool) -> None:
    """Show the figure if ``use_pyplot``, as Captum does."""
    if use_pyplot:
        from matplotlib import pyplot

        pyplot.show()
