"""The top-k edges of a graph before and after an attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from captum_robust.visualization.canvas import Array, Canvas, open_canvas, show
from captum_robust.visualization.change import as_map, ranking_change
from captum_robust.visualization.marks import draw_key, draw_marks, sides
from captum_robust.visualization.nodes import (
    Edges,
    check_names,
    columns_once,
    ends_of_edges,
    node_positions,
    triangle_edges,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection

__all__ = ["visualize_graph_rankings"]

_MOST_NAMES = 24
# More of the other edges would look like a grey disc.
_MOST_EDGES = 400


def visualize_graph_rankings(
    attribution: Array,
    reference_attribution: Array,
    k: int,
    edge_index: Array | None = None,
    absolute: bool = False,
    node_names: Sequence[str] | None = None,
    node_regions: Sequence[Any] | None = None,
    positions: Array | None = None,
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] | None = None,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Draw a graph before and after an attack, with its top k edges marked.

    On the left are the edges that were kept (blue, solid, circle) and lost (orange, dashed, cross),
    on the right those kept and gained (green, dotted, triangle), in a layout of ``networkx``.
    The other edges of an ``edge_index`` are thin and grey; more than 400 of them are not drawn.

    Args:
        attribution (Tensor or ndarray): scores of the edges after the attack, (m,).
        reference_attribution (Tensor or ndarray): scores before the attack, (m,).
        k (int): size of the top sets, 1 <= k < m.
        edge_index (Tensor or ndarray, optional): both ends of every edge, (2, m) integers, as in
            PyTorch Geometric. Each column is ranked. Where both directions of all edges have the
            same scores, or one of them has scores of 0, as in the masks of
            :class:`~captum_robust.graph.ExplainedGraph` with ``undirected=True``, they are one
            edge: it is ranked and drawn once. Default: all pairs of n nodes, m = n(n − 1)/2, in the
            order of ``torch.triu_indices(n, n, offset=1)``.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        node_names (Sequence[str], optional): names of the nodes; up to 24 are written.
        node_regions (Sequence, optional): region of each node, such as its lobe; the nodes are
            drawn on a circle region by region, with the names of the regions around it.
        positions (Tensor or ndarray, optional): where the nodes are drawn, (n, 2). Default: on a
            circle.
        title (str, optional): title of the figure.
        plt_fig_axis (tuple, optional): figure and its two axes. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and list of the two **axes**.

    Raises:
        ValueError: for scores, edges, names or positions that do not fit together, for scores
            without a ranking (not finite or constant), and for k out of its range.

    Examples::

        >>> import torch
        >>> before, after = torch.arange(10.0), torch.arange(10.0).roll(1)      # 5 nodes
        >>> figure, axes = visualize_graph_rankings(after, before, k=4, use_pyplot=False)
        >>> axes[1].get_title()
        'after: P@4 = 0.75'
    """
    maps = [
        as_map(attribution, "attribution"),
        as_map(reference_attribution, "reference_attribution"),
    ]
    if edge_index is None:
        n_nodes, edges = triangle_edges(maps[0])
    else:
        edges = ends_of_edges(edge_index, maps[0].numel())
        if maps[0].shape == maps[1].shape:
            columns = columns_once(edges, torch.stack(maps).flatten(1).double().numpy())
            edges = edges[0][columns], edges[1][columns]
            maps = [m.flatten()[torch.from_numpy(columns)] for m in maps]
        given = [len(of) for of in (node_names, node_regions, positions) if of is not None]
        n_nodes = max([1 + int(end.max()) for end in edges] + given)
    change = ranking_change(maps[0], maps[1], k, absolute)
    names = check_names(node_names, n_nodes)
    places = node_positions(positions, node_regions, n_nodes, edges)

    size = (6.4, 3.5) if fig_size is None else fig_size
    figure, axes = open_canvas(plt_fig_axis, use_pyplot, size, 1, 2)
    for axis, side in zip(axes, sides(change), strict=True):
        axis.plot(places[:, 0], places[:, 1], "o", color="0.25", markersize=3, zorder=2)
        if node_regions is not None and positions is None:
            _write_regions(axis, places, node_regions)
        elif n_nodes <= _MOST_NAMES:
            _write_names(axis, places, names)
        others = ~(change.top_before | change.top_after)
        if edge_index is not None and others.sum() <= _MOST_EDGES:
            _draw_edges(axis, places, edges, others, color="0.8", linewidth=0.6)
        for mark, which in side.marks:
            lines = _draw_edges(axis, places, edges, which, color=mark.colour, linewidth=1.8)
            lines.set(linestyle=mark.line, zorder=3, gid=f"{mark.name} edges")
            middle = (places[edges[0][which]] + places[edges[1][which]]) / 2
            draw_marks(axis, mark, middle[:, 0], middle[:, 1], 6)
        draw_key(axis, side.marks)
        axis.set_title(side.heading)
        axis.margins(0.08)
        axis.set_aspect("equal", adjustable="datalim")
        axis.set_axis_off()
    if title is not None:
        figure.suptitle(title)
    show(use_pyplot)
    return figure, axes


def _draw_edges(
    axis: Axes, places: NDArray[np.float64], edges: Edges, which: NDArray[np.bool_], **style: Any
) -> LineCollection:
    from matplotlib.collections import LineCollection

    ends = np.stack([places[edges[0][which]], places[edges[1][which]]], axis=1)
    lines = LineCollection(list(ends), **style)
    axis.add_collection(lines)
    return lines


def _write_names(axis: Axes, places: NDArray[np.float64], names: list[str]) -> None:
    """Write the names beside the nodes, away from the middle of the graph."""
    middle = places.mean(axis=0)
    for place, name in zip(places, names, strict=True):
        _write_outwards(axis, place, place - middle, name, 6)


def _write_regions(axis: Axes, places: NDArray[np.float64], regions: Sequence[Any]) -> None:
    """Write the regions around the circle, each at the middle of its arc."""
    for region in dict.fromkeys(regions):
        own = places[[r == region for r in regions]]
        axis.plot(1.07 * own[:, 0], 1.07 * own[:, 1], color="0.6", linewidth=1.5, zorder=1)
        middle = own.mean(axis=0)
        middle = 1.07 * middle / max(float(np.hypot(*middle)), 1e-9)
        _write_outwards(axis, middle, middle, str(region), 4)


def _write_outwards(
    axis: Axes, place: NDArray[np.float64], direction: NDArray[np.float64], text: str, gap: float
) -> None:
    right, up = direction / max(float(np.hypot(*direction)), 1e-9)
    axis.annotate(
        text, tuple(place), (gap * right, gap * up), textcoords="offset points", fontsize="small",
        ha="left" if right > 0.3 else "right" if right < -0.3 else "center",
        va="bottom" if up > 0.3 else "top" if up < -0.3 else "center",
    )  # fmt: skip
