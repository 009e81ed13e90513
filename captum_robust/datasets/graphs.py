"""Brain networks on a common set of regions, as vectors of edges."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from captum_robust.graph import adjacency


@dataclass(frozen=True, eq=False)
class BrainGraphs:
    """Undirected graphs in which node i is always the same region.

    Attributes:
        edges: Weights of the edges, float32, shape (N, m), m = n_nodes (n_nodes - 1) / 2, in the
            order of ``torch.triu_indices(n_nodes, n_nodes, offset=1)``; 0 is no edge.
        targets: Class of each graph, int64, shape (N,), from 0.
        n_nodes: Number of regions, 2 or more.
        name: Short name, such as ``"adhd200"``.
        source: Origin and terms of use of the graphs.

    Raises:
        ValueError: If the shapes do not agree with ``n_nodes`` and with each other.

    Example:
        >>> import torch
        >>> graphs = BrainGraphs(torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([0]), 3, "toy")
        >>> graphs.adjacency()
        tensor([[[0., 1., 0.],
                 [1., 0., 2.],
                 [0., 2., 0.]]])
    """

    edges: Tensor
    targets: Tensor
    n_nodes: int
    name: str
    source: str = ""

    def __post_init__(self) -> None:
        n_edges = self.n_nodes * (self.n_nodes - 1) // 2
        if self.n_nodes < 2 or self.edges.ndim != 2 or self.edges.shape[1] != n_edges:
            raise ValueError(
                f"edges: got shape {tuple(self.edges.shape)} for {self.n_nodes} nodes, accepted: "
                f"(N, {n_edges}), and 2 nodes or more"
            )
        if self.targets.shape != (len(self),):
            raise ValueError(
                f"targets: got shape {tuple(self.targets.shape)}, accepted: ({len(self)},)"
            )

    def __len__(self) -> int:
        return len(self.edges)

    def adjacency(self) -> Tensor:
        """Return the symmetric matrices, shape (N, n_nodes, n_nodes), with a zero diagonal."""
        return adjacency(self.edges, self.n_nodes)

    def subset(self, rows: Tensor) -> BrainGraphs:
        """Return the graphs with the given indices, or where a mask is true."""
        return replace(self, edges=self.edges[rows], targets=self.targets[rows])
