"""A graph model as a function of node features and edge weights, in Captum's shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from captum_robust.graph.pyg.call import GraphCall

__all__ = ["Handles", "MaskedGraph"]


@dataclass(frozen=True)
class Handles:
    """The node features and edge weights of a graph that the inputs replace.

    Attributes:
        nodes: indices of the nodes whose features are the first input, or None.
        edges: indices of the edges whose weights are the last input, or None.
        columns: for each of these edges, the column of that input.
    """

    nodes: Tensor | None
    edges: Tensor | None
    columns: Tensor

    def within(self, nodes: Tensor, edges: Tensor) -> Handles:
        """Return the handles in a part of the graph: nodes (V,) bool and edges (E,) bool."""
        node_number, edge_number = nodes.cumsum(dim=0) - 1, edges.cumsum(dim=0) - 1
        return replace(
            self,
            nodes=None if self.nodes is None else node_number[self.nodes],
            edges=None if self.edges is None else edge_number[self.edges],
        )


class MaskedGraph(nn.Module):
    """One output of a graph model for any number of versions of one graph.

    Each row of the inputs is a version of the graph, and the model is called once per row, in
    evaluation mode. Inputs: node features (N, V', F), then edge weights (N, E'), or one of the two.
    """

    def __init__(
        self, model: nn.Module, call: GraphCall, handles: Handles, as_two_classes: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.call = call
        self.handles = handles
        self.as_two_classes = as_two_classes

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return one output per version: (N, C), or (N,) where the model returns single values."""
        return torch.cat([self._output(row) for row in zip(*inputs, strict=True)])

    def version(self, row: tuple[Tensor, ...]) -> tuple[Tensor | None, Tensor | None]:
        """Return the features (V, F) and edge weights (E,) of one version; None where unchanged."""
        features = weights = None
        if self.handles.nodes is not None:
            features = self.call.x.to(row[0]).index_copy(0, self.handles.nodes, row[0])
        if self.handles.edges is not None:
            ones = row[-1].new_ones(self.call.edge_index.shape[1])
            weights = ones.index_copy(0, self.handles.edges, row[-1][self.handles.columns])
        return features, weights

    def _output(self, row: tuple[Tensor, ...]) -> Tensor:
        output = self.call.select(self.call.outputs(self.model, *self.version(row)))
        if self.as_two_classes:  # as torch_geometric.explain treats a single probability
            output = output.reshape(1, 1)
            return torch.cat([1 - output, output], dim=1)
        return output
