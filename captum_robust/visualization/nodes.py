"""The nodes of a graph: their number, their names and their positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.visualization.canvas import Array, as_array

__all__ = [
    "Edges", "check_names", "columns_once", "ends_of_edges", "node_positions", "triangle_edges",
]  # fmt: skip

#: Both ends of every edge.
Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


def triangle_edges(values: Tensor) -> tuple[int, Edges]:
    """Return the number n of nodes with n(n − 1)/2 edges, one per value, and the edges."""
    m = values.numel()
    n_nodes = (1 + math.isqrt(1 + 8 * m)) // 2
    if values.dim() != 1 or n_nodes * (n_nodes - 1) != 2 * m:
        raise ValueError(
            "attribution must hold one value for each of the n(n - 1)/2 edges of n nodes, "
            f"got shape {tuple(values.shape)}"
        )
    rows, columns = np.triu_indices(n_nodes, 1)
    return n_nodes, (rows, columns)


def ends_of_edges(edge_index: Array, n_edges: int) -> Edges:
    """Return the two rows of an ``edge_index``."""
    found = as_array(edge_index)
    if found.shape != (2, n_edges) or (found < 0).any() or (found % 1 != 0).any():
        raise ValueError(
            f"edge_index must hold the numbers of both nodes of each edge, shape (2, {n_edges}), "
            f"got shape {found.shape}"
        )
    return found[0].astype(np.int64), found[1].astype(np.int64)


def columns_once(edges: Edges, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return one column of each undirected edge that is given in both directions.

    Directions are one edge if their scores agree in all maps, or one of them has scores of 0, as
    the direction has that does not lead to the explained node. If this does not hold for all pairs
    of directions, the edges are directed, and all columns are returned.

    Args:
        edges: both nodes of every edge.
        scores: scores of the edges in each map, (maps, m).
    """
    column_of = {ends: column for column, ends in enumerate(zip(*map(list, edges), strict=True))}
    kept = np.ones(len(edges[0]), dtype=bool)
    for (first, second), column in column_of.items():
        reverse = column_of.get((second, first), column)
        if reverse <= column:
            continue
        own, other = scores[:, column], scores[:, reverse]
        if (own == other).all() or not other.any():
            kept[reverse] = False
        elif not own.any():
            kept[column] = False
        else:
            return np.arange(len(kept))
    return kept.nonzero()[0]


def check_names(names: Sequence[str] | None, n_nodes: int) -> list[str]:
    """Return the names, or the numbers of the nodes."""
    found = [str(i) for i in range(n_nodes)] if names is None else [str(name) for name in names]
    if len(found) != n_nodes:
        raise ValueError(f"node_names must hold {n_nodes} names, got {len(found)}")
    return found


def node_positions(
    positions: Array | None, regions: Sequence[Any] | None, n_nodes: int, edges: Edges
) -> NDArray[np.float64]:
    """Return the positions of the nodes, (n, 2).

    They are those given, or a circle, region by region. Without positions and regions they are a
    circle for a complete graph, and a spring layout for a sparse one.
    """
    if positions is not None:
        found = as_array(positions)
        if found.shape != (n_nodes, 2) or not np.isfinite(found).all():
            raise ValueError(
                f"positions must be finite, of shape ({n_nodes}, 2), got shape {found.shape}"
            )
        return found
    if regions is not None:
        if len(regions) != n_nodes:
            raise ValueError(f"node_regions must hold {n_nodes} regions, got {len(regions)}")
        return _circle(regions)
    if 2 * len(edges[0]) >= n_nodes * (n_nodes - 1):
        return _circle([0] * n_nodes)
    return _springs(n_nodes, edges)


def _circle(regions: Sequence[Any]) -> NDArray[np.float64]:
    """Return places clockwise from the top, with gaps between the regions."""
    from networkx import circular_layout

    order = list(dict.fromkeys(regions))
    ring: list[Any] = []
    for number, region in enumerate(order):
        ring += [i for i, own in enumerate(regions) if own == region]
        if len(order) > 1:  # two empty places, which are nodes for the layout
            ring += [("gap", number, 0), ("gap", number, 1)]
    places = circular_layout(ring)
    # networkx starts in the east and goes counter-clockwise.
    return np.array([places[i][::-1] for i in range(len(regions))], dtype=np.float64)


def _springs(n_nodes: int, edges: Edges) -> NDArray[np.float64]:
    from networkx import Graph, spring_layout

    graph = Graph()
    graph.add_nodes_from(range(n_nodes))
    graph.add_edges_from(zip(*(end.tolist() for end in edges), strict=True))
    places = spring_layout(graph, seed=0)
    return np.array([places[i] for i in range(n_nodes)], dtype=np.float64)
