"""The top-k entries of an adjacency matrix before and after an attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.visualization.canvas import Array, Canvas, open_canvas, show
from captum_robust.visualization.change import as_map, ranking_change
from captum_robust.visualization.grid import draw_map, draw_regions
from captum_robust.visualization.labels import lay_out
from captum_robust.visualization.marks import draw_key, sides
from captum_robust.visualization.nodes import check_names, triangle_edges

__all__ = ["visualize_adjacency_rankings"]

_MOST_NAMES, _MOST_NUMBERS = 24, 12


def visualize_adjacency_rankings(
    attribution: Array,
    reference_attribution: Array,
    k: int,
    absolute: bool = False,
    node_names: Sequence[str] | None = None,
    cmap: Any = "Greys",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] | None = None,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Show the attributions of an adjacency matrix before and after an attack, the top k marked.

    The marks are those of :func:`visualize_image_rankings`; darker is more important.

    Args:
        attribution (Tensor or ndarray): attribution map after the attack: (n(n − 1)/2,), one score
            per edge of an undirected graph in the order of ``torch.triu_indices(n, n, offset=1)``,
            drawn as the upper triangle; or (n, n), where every entry is ranked row by row,
            including the diagonal.
        reference_attribution (Tensor or ndarray): attribution map before the attack, of the same
            shape.
        k (int): size of the top sets, 1 <= k < number of entries.
        absolute (bool, optional): rank, and show, :math:`|I|`. Default: False.
        node_names (Sequence[str], optional): names of the n nodes. Default: their numbers.
        cmap (str or Colormap, optional): colours of the maps. Default: white to black.
        title (str, optional): title of the figure.
        plt_fig_axis (tuple, optional): figure and its two axes. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and list of the two **axes**.

    Raises:
        ValueError: for maps or names that do not fit together, for a map without a ranking (not
            finite or constant), and for k out of its range.

    Examples::

        >>> import torch
        >>> before, after = torch.arange(10.0), torch.arange(10.0).flip(0)      # 5 nodes
        >>> figure, axes = visualize_adjacency_rankings(after, before, k=4, use_pyplot=False)
        >>> axes[1].get_title()
        'after: P@4 = 0'
    """
    maps = [
        as_map(attribution, "attribution"),
        as_map(reference_attribution, "reference_attribution"),
    ]
    n_nodes, regions = _cells(maps[0])
    change = ranking_change(maps[0], maps[1], k, absolute)
    names = check_names(node_names, n_nodes)

    size = (6.4, 3.9) if fig_size is None else fig_size
    figure, axes = open_canvas(plt_fig_axis, use_pyplot, size, 1, 2)
    most = _MOST_NUMBERS if node_names is None else _MOST_NAMES
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, n_nodes) if n_nodes <= s * most)
    for axis, side in zip(axes, sides(change), strict=True):
        draw_map(axis, np.where(regions >= 0, side.scores[regions], np.nan), cmap)
        draw_key(axis, side.marks)
        axis.set_title(side.heading)
        # On top, where the corner of the upper triangle is, and away from the key.
        axis.xaxis.set_ticks_position("top")
        rotation = 90 if max(map(len, names)) > 2 else 0
        axis.set_xticks(range(0, n_nodes, step), names[::step], rotation=rotation)
        axis.set_yticks(range(0, n_nodes, step), names[::step])
        axis.tick_params(length=2, labelsize="small")
    if title is not None:
        figure.suptitle(title)
    lay_out(axes[0])
    for axis, side in zip(axes, sides(change), strict=True):
        for mark, which in side.marks:
            draw_regions(axis, mark, regions, which)
    show(use_pyplot)
    return figure, axes


def _cells(values: Tensor) -> tuple[int, NDArray[np.int64]]:
    """Return the number of nodes, and the place in the map of each cell of the matrix, or −1."""
    if values.dim() == 2:
        if values.shape[0] != values.shape[1]:
            raise ValueError(
                f"attribution must be a square matrix or its triangle, got {tuple(values.shape)}"
            )
        return len(values), np.arange(values.numel()).reshape(values.shape)
    n_nodes, (rows, columns) = triangle_edges(values)
    regions = np.full((n_nodes, n_nodes), -1)
    regions[rows, columns] = np.arange(values.numel())
    return n_nodes, regions
