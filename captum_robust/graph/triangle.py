"""An undirected graph as the vector of its edges: the upper triangle of the adjacency matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "adjacency",
    "edges_of_entries",
    "gather_entries",
    "n_edges",
    "n_nodes_of",
    "upper_triangle",
]

# Two computations of the same correlation may differ in the last digits.
_SYMMETRIC = 1e-5


def n_edges(n_nodes: int) -> int:
    """Return the number of pairs of nodes, n (n − 1) / 2.

    >>> n_edges(190)
    17955
    """
    return n_nodes * (n_nodes - 1) // 2


def n_nodes_of(n_pairs: int) -> int:
    """Return the number of nodes with ``n_pairs`` pairs.

    >>> n_nodes_of(17955)
    190
    """
    n_nodes = (1 + math.isqrt(1 + 8 * n_pairs)) // 2
    if n_pairs < 1 or n_edges(n_nodes) != n_pairs:
        raise ValueError(
            "edges must have n (n - 1) / 2 columns for n nodes, such as 1, 3, 6 or 10, "
            f"got {n_pairs}"
        )
    return n_nodes


def upper_triangle(adjacency: Tensor) -> Tensor:
    """Return the edges of undirected graphs, row by row: (0, 1), (0, 2), … (n − 2, n − 1).

    Differentiable. The diagonal is ignored.

    Args:
        adjacency (Tensor): symmetric matrices, weighted or not, shape (N, n, n), n > 1.

    Returns:
        - **edges** (*Tensor*): shape (N, n (n − 1) / 2), in the order of
          ``torch.triu_indices(n, n, offset=1)``.

    Raises:
        ValueError: for another shape, or a matrix that is not symmetric (a directed graph).

    Examples::

        >>> upper_triangle(torch.tensor([[[0., 1., 2.], [1., 0., 3.], [2., 3., 0.]]]))
        tensor([[1., 2., 3.]])
    """
    shape = tuple(adjacency.shape)
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 2:
        raise ValueError(f"adjacency must have shape (N, n, n) with n > 1, got {shape}")
    given = adjacency.detach()
    if not torch.allclose(given, given.mT, rtol=_SYMMETRIC, atol=_SYMMETRIC, equal_nan=True):
        raise ValueError("adjacency must hold symmetric matrices, got one of a directed graph")
    row, column = torch.triu_indices(shape[1], shape[1], offset=1, device=adjacency.device)
    return adjacency[:, row, column]


def adjacency(edges: Tensor, n_nodes: int | None = None) -> Tensor:
    """Return symmetric adjacency matrices with a zero diagonal from the edges of graphs.

    Differentiable any number of times. The gradient of an edge is the sum over its two entries. The
    gradient of a matrix itself is not symmetric, so a step along it gives a directed graph.

    Args:
        edges (Tensor): shape (N, n (n − 1) / 2), in the order of :func:`upper_triangle`.
        n_nodes (int, optional): n. Default: derived from the number of edges.

    Returns:
        - **adjacency** (*Tensor*): shape (N, n, n).

    Raises:
        ValueError: for a number of edges that does not fit n nodes.

    Examples::

        >>> adjacency(torch.tensor([[1., 2., 3.]]))
        tensor([[[0., 1., 2.],
                 [1., 0., 3.],
                 [2., 3., 0.]]])
    """
    found = n_nodes_of(edges.shape[1]) if edges.dim() == 2 else 0
    if found == 0 or n_nodes not in (None, found):
        expected = f"(N, {n_edges(n_nodes)})" if n_nodes else "(N, n (n - 1) / 2)"
        raise ValueError(f"edges must have shape {expected}, got {tuple(edges.shape)}")
    return gather_entries(edges, edges_of_entries(found).to(edges.device))


def edges_of_entries(n_nodes: int) -> Tensor:
    """Return the index of the edge of every matrix entry, n (n − 1) / 2 on the diagonal; (n²,)."""
    row, column = torch.triu_indices(n_nodes, n_nodes, offset=1)
    places = torch.full((n_nodes, n_nodes), n_edges(n_nodes))
    places[row, column] = places[column, row] = torch.arange(n_edges(n_nodes))
    return places.flatten()


def gather_entries(edges: Tensor, places: Tensor) -> Tensor:
    """Return matrices of the edges at ``places``; the index behind the last is 0; (N, n, n)."""
    n_nodes = math.isqrt(len(places))
    return F.pad(edges, (0, 1)).index_select(1, places).view(-1, n_nodes, n_nodes)
