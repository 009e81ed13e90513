"""A model of undirected graphs with edges as inputs, which keeps the symmetry."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from captum_robust._utils.checks import check_count
from captum_robust.graph.triangle import edges_of_entries, gather_entries, n_edges

__all__ = ["UndirectedModel"]


class UndirectedModel(nn.Module):
    r"""A model of dense adjacency matrices as a function of the edges of undirected graphs.

    Each graph is a vector of its n (n − 1) / 2 edges, the upper triangle of its adjacency matrix,
    as in arXiv 2212.14106: one feature per edge. Attributions, metrics, attacks and losses of these
    vectors rank edges, and the graph stays undirected with the same diagonal. A pair of graphs is a
    tuple of two tensors, whose edges are ranked jointly.

    Args:
        model (nn.Module): called with ``n_graphs`` adjacency matrices (N, n, n), symmetric with a
            zero diagonal, and then the additional arguments; its parameters are shared, not copied.
        n_nodes (int): number of nodes n of every graph, at least 2.
        n_graphs (int, optional): number of graphs that the model takes: 2 for a pair. Default: 1.

    Raises:
        ValueError: for numbers out of range, and in calls with tensors of other shapes.

    Examples::

        >>> import torch
        >>> from captum.attr import InputXGradient
        >>> class CommonEdges(nn.Module):
        ...     def forward(self, first, second):
        ...         return (first * second).sum(dim=(1, 2))
        >>> model = UndirectedModel(CommonEdges(), n_nodes=3, n_graphs=2)
        >>> pair = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 1.0, 1.0]])
        >>> model(*pair)                                      # every edge is two entries
        tensor([10.])
        >>> pair = tuple(edges.requires_grad_() for edges in pair)
        >>> [maps.tolist() for maps in InputXGradient(model).attribute(pair)]
        [[[6.0, 4.0, 0.0]], [[6.0, 4.0, 0.0]]]
    """

    def __init__(self, model: nn.Module, n_nodes: int, n_graphs: int = 1) -> None:
        super().__init__()
        check_count("n_nodes", n_nodes, 2)
        check_count("n_graphs", n_graphs, 1)
        self.model = model
        self.n_nodes = n_nodes
        self.n_graphs = n_graphs
        self._places: Tensor
        self.register_buffer("_places", edges_of_entries(n_nodes), persistent=False)

    def forward(self, *inputs: Any) -> Any:
        """Return the output for graphs, as edges (N, n (n − 1) / 2), and further arguments."""
        return self.model(*self._matrices(inputs))

    def predictions(self, *inputs: Any) -> tuple[Tensor, ...]:
        """Return ``model.predictions`` for the graphs, such as all results of a Siamese network.

        For the argument ``predictions`` of attacks, which then keep every prediction.
        """
        model: Any = self.model
        results: tuple[Tensor, ...] = model.predictions(*self._matrices(inputs))
        return results

    def _matrices(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the inputs of the model, with matrices instead of edges."""
        edges, others = inputs[: self.n_graphs], inputs[self.n_graphs :]
        shapes = [tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__ for e in edges]
        if len(edges) < self.n_graphs or any(s[1:] != (n_edges(self.n_nodes),) for s in shapes):
            raise ValueError(
                f"inputs must begin with {self.n_graphs} tensors of edges, of shape "
                f"(N, {n_edges(self.n_nodes)}) for {self.n_nodes} nodes, got {shapes}"
            )
        return (*(gather_entries(e, self._places) for e in edges), *others)
