"""Accuracy against robustness, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from captum_robust.visualization.canvas import Array, Canvas, as_array, one_axis, show
from captum_robust.visualization.labels import along, label_points

__all__ = ["plot_tradeoff"]

_FRONT, _REST = "#0072B2", "0.45"


def plot_tradeoff(
    models: Mapping[str, tuple[Array, Array]],
    xlabel: str = "accuracy",
    ylabel: str = "P@k under attack",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = (6.4, 4.2),
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot accuracy against robustness, one point per model, with the Pareto front.

    Models on the front are filled and joined by steps: no other model is as good in both values and
    better in one. The other models are hollow. Points below and to the left of the steps are
    dominated.
    The bars of several runs are one standard deviation (divisor n − 1).

    Args:
        models (Mapping[str, tuple]): for each model its accuracy and its robustness, higher is
            better: two numbers, or two sequences with one number per run, whose means are shown.
        xlabel (str, optional): the measure of accuracy.
        ylabel (str, optional): the measure of robustness.
        title (str, optional): title of the plot.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for no model, and for values that are not finite or not two per model.

    Examples::

        >>> models = {"vanilla": (0.88, 0.66), "R2ET": (0.87, 0.99), "SSR": (0.87, 0.57)}
        >>> figure, axis = plot_tradeoff(models, use_pyplot=False)
        >>> [line.get_gid() for line in axis.get_lines() if line.get_gid()]
        ['front', 'dominated']
    """
    if not isinstance(models, Mapping) or not models:
        raise ValueError(f"models must map names to (accuracy, robustness), got {models!r}")
    means, spreads = np.empty((len(models), 2)), np.zeros((len(models), 2))
    for row, (name, pair) in enumerate(models.items()):
        runs = [np.atleast_1d(as_array(values)) for values in pair]
        if len(runs) != 2 or not all(r.ndim == 1 and len(r) and np.isfinite(r).all() for r in runs):
            raise ValueError(
                f"models[{name!r}] must be finite accuracy and robustness, numbers or one per run, "
                f"got {pair!r}"
            )
        means[row] = [r.mean() for r in runs]
        spreads[row] = [r.std(ddof=1) if len(r) > 1 else 0.0 for r in runs]
    on_front = _front(means)

    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    axis.errorbar(
        means[:, 0], means[:, 1], xerr=spreads[:, 0], yerr=spreads[:, 1], fmt="none", ecolor="0.75",
        elinewidth=0.9, zorder=1,
    )  # fmt: skip
    corners = means[on_front][means[on_front][:, 0].argsort()]
    for which, gid, face, edge in (
        (on_front, "front", _FRONT, _FRONT), (~on_front, "dominated", "white", _REST),
    ):  # fmt: skip
        axis.plot(
            *means[which].T, linestyle="none", marker="o" if gid == "front" else "s", markersize=7,
            markerfacecolor=face, markeredgecolor=edge, zorder=3, gid=gid,
        )  # fmt: skip
    axis.margins(0.12)
    axis.autoscale_view()
    # The front continues to the left and down, where the best model dominates.
    left, bottom = axis.get_xlim()[0], axis.get_ylim()[0]
    stairs = [(left, corners[0, 1]), tuple(corners[0])]
    for (x, _), (next_x, next_y) in pairwise(corners):
        stairs += [(x, next_y), (next_x, next_y)]
    path = np.array([*stairs, (corners[-1, 0], bottom)])
    axis.plot(
        path[:, 0], path[:, 1], color=_FRONT, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2,
        scalex=False, scaley=False,
    )  # fmt: skip
    axis.set_xlabel(f"{xlabel} →")
    axis.set_ylabel(f"{ylabel} →")
    axis.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axis.set_title(title)
    names = [
        (*mean, name, _FRONT if front else _REST)
        for name, mean, front in zip(models, means, on_front, strict=True)
    ]
    bars = [
        along(np.stack([mean - reach, mean + reach]))
        for mean, spread in zip(means, spreads, strict=True)
        for reach in np.diag(spread)
        if reach.any()
    ]
    label_points(axis, names, [along(path), *bars])
    show(use_pyplot)
    return figure, axis


def _front(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points (n, 2) no other reaches in both coordinates and exceeds in one."""
    front = np.zeros(len(points), dtype=bool)
    best = (-np.inf, -np.inf)  # the highest so far, going from right to left
    for index in np.lexsort((-points[:, 1], -points[:, 0])):
        x, y = points[index]
        if y > best[1] or (x, y) == best:
            front[index], best = True, (x, y)
    return front
