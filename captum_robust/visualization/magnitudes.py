"""Sorted magnitudes of attributions by rank."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np

from captum_robust.ranking import check_k
from captum_robust.visualization.canvas import Array, Canvas, as_array, one_axis, show
from captum_robust.visualization.curves import STYLES
from captum_robust.visualization.labels import label_ends

__all__ = ["plot_magnitudes"]


def plot_magnitudes(
    attributions: Mapping[str, Array],
    k: int,
    ylabel: str = "|gradient|",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = (6.4, 3.8),
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot sorted magnitudes of attributions by rank, with the boundary of the top k.

    A curve is the median over the examples of their r-th largest :math:`|I|`; its band reaches from
    the lower to the upper quartile. The steeper the fall at the boundary, the larger the change of
    the attribution that a ranking survives. After the experiments of arXiv 2212.14106.

    Args:
        attributions (Mapping[str, Tensor or ndarray]): for each curve the attributions of N
            examples, (N, ...); those that are not finite are left out.
        k (int): size of the top set, 1 <= k < n.
        ylabel (str, optional): label of the vertical axis.
        title (str, optional): title of the plot.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**; the vertical axis is logarithmic.

    Raises:
        ValueError: for no curve, a curve without a finite map, and for k out of its range.

    Examples::

        >>> import torch
        >>> maps = {"vanilla": torch.tensor([[1.0, -4.0, 2.0], [2.0, 4.0, 1.0]])}
        >>> figure, axis = plot_magnitudes(maps, k=1, use_pyplot=False)
        >>> axis.get_lines()[0].get_ydata().tolist()
        [4.0, 2.0, 1.0]
    """
    if not isinstance(attributions, Mapping) or not attributions:
        raise ValueError(f"attributions must map names to maps (N, ...), got {attributions!r}")
    sorted_maps = {}
    for name, maps in attributions.items():
        rows = np.abs(as_array(maps))
        rows = rows.reshape(len(rows), -1) if rows.ndim > 1 else rows[None]
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            raise ValueError(f"attributions[{name!r}] must hold at least one finite map")
        check_k(k, rows.shape[1])
        sorted_maps[name] = -np.sort(-rows, axis=1)

    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    axis.set_yscale("log", nonpositive="mask")
    ends = []
    for (name, rows), style in zip(sorted_maps.items(), cycle(STYLES), strict=False):
        ranks = np.arange(1, rows.shape[1] + 1)
        low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
        axis.plot(ranks, middle, color=style.colour, linestyle=style.line, linewidth=1.8, zorder=3)
        axis.fill_between(ranks, low, high, color=style.colour, alpha=0.15, linewidth=0)
        last = int(np.flatnonzero(middle > 0)[-1]) if (middle > 0).any() else 0
        ends.append((ranks[last], middle[last], name, style.colour))
    axis.axvline(k + 0.5, color="0.3", linewidth=0.8, linestyle=(0, (1, 1)))
    axis.annotate(
        f"top {k} ", (k + 0.5, 1), xycoords=axis.get_xaxis_transform(), ha="right", va="top"
    )
    n_ranks = max(rows.shape[1] for rows in sorted_maps.values())
    axis.set_xlim(0.5, n_ranks + 0.5)
    axis.set_xlabel("rank of the feature")
    axis.set_ylabel(ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axis.set_title(title)
    label_ends(axis, ends)
    show(use_pyplot)
    return figure, axis
