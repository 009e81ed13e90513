"""Batches of graphs of different sizes with one graph per row, for losses, metrics and attacks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_robust.graph.pyg.edge_weights import weighted_messages

if TYPE_CHECKING:
    from torch_geometric.data import Batch

__all__ = ["PaddedGraphs", "padded_graphs"]

Structure = tuple[Tensor, Tensor, Tensor]


def padded_graphs(batch: Batch) -> tuple[Tensor, Tensor, Structure]:
    r"""Return the graphs of a PyTorch Geometric batch, one per row, padded to the largest.

    Dimension 0 of a ``Batch`` counts the nodes of all graphs; in Captum and in this library it
    counts the examples.

    Args:
        batch (Batch): N graphs with node features ``x`` and ``edge_index``.

    Returns:
        - **features** (*Tensor*): node features (N, V, F), 0 beyond the nodes of a graph.
        - **weights** (*Tensor*): edge weights (N, E), all 1.
        - **structure** (*tuple*): the ``additional_forward_args`` of :class:`PaddedGraphs`: the
          existing nodes (N, V) bool, the edges (N, 2, E), and the existing edges (N, E) bool.

    Raises:
        ValueError: for a batch without features.

    Examples::

        >>> from torch_geometric.data import Batch, Data
        >>> pair = Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0], [1]]))
        >>> triple = Data(x=torch.ones(3, 3), edge_index=torch.tensor([[0, 1], [1, 2]]))
        >>> features, weights, structure = padded_graphs(Batch.from_data_list([pair, triple]))
        >>> features.shape, weights.shape, structure[0].sum(dim=1)
        (torch.Size([2, 3, 3]), torch.Size([2, 2]), tensor([2, 3]))
    """
    from torch_geometric.utils import to_dense_batch

    if batch.x is None or batch.edge_index is None:
        raise ValueError("batch must have node features x and edge_index")
    features, nodes = to_dense_batch(batch.x, batch.batch, batch_size=batch.num_graphs)
    graph_of_edge = batch.batch[batch.edge_index[0]]
    order = graph_of_edge.argsort(stable=True)
    own = batch.edge_index - batch.ptr[graph_of_edge]
    edge_index, edges = to_dense_batch(
        own.T[order], graph_of_edge[order], batch_size=batch.num_graphs
    )
    return features, features.new_ones(edges.shape), (nodes, edge_index.mT, edges)


class PaddedGraphs(nn.Module):
    r"""A model of sparse batches that is called with padded graphs.

    Call it with the results of :func:`padded_graphs`: ``forward(features, *structure)`` or, with
    edge weights, ``forward(features, weights, *structure)``. It builds the batch and calls
    ``model(x, edge_index, batch=batch)``. Each argument has one row per graph, so losses, metrics,
    attacks and Captum divide, repeat and select whole graphs. Padding does not influence the output
    and has a gradient of 0. Choose k, and k' of a loss, so that every graph has that many features.

    Args:
        model (nn.Module): returns one output per graph, (N, C).
        edge_weights (bool, optional): the second input holds weights that multiply the messages of
            the edges (:func:`weighted_messages`). Default: False.

    Examples::

        >>> from captum_robust.loss import R2ETLoss
        >>> from torch_geometric.data import Batch, Data
        >>> from torch_geometric.nn import GCN, global_mean_pool
        >>> class Classifier(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = GCN(3, 8, num_layers=2, out_channels=2, act="softplus")
        ...     def forward(self, x, edge_index, batch):
        ...         return global_mean_pool(self.conv(x, edge_index), batch)
        >>> graphs = [Data(x=torch.randn(n, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))
        ...           for n in (2, 4, 3)]
        >>> features, weights, structure = padded_graphs(Batch.from_data_list(graphs))
        >>> model = Classifier()
        >>> criterion = R2ETLoss(PaddedGraphs(model), k=3)
        >>> loss = criterion(features, torch.tensor([0, 1, 1]), structure)
        >>> loss.backward()
    """

    def __init__(self, model: nn.Module, edge_weights: bool = False) -> None:
        super().__init__()
        self.model = model
        self.edge_weights = edge_weights

    def forward(self, features: Tensor, *arguments: Tensor) -> Tensor:
        """Return the outputs of the model, one row per graph."""
        if len(arguments) != 3 + self.edge_weights:
            raise ValueError(
                f"arguments must be {'weights, ' if self.edge_weights else ''}nodes, edge_index "
                f"and edges, as padded_graphs returns them, got {len(arguments)}"
            )
        nodes, edge_index, edges = arguments[-3:]
        sizes = nodes.sum(dim=1)
        first = sizes.cumsum(dim=0) - sizes
        edges_of_batch = (edge_index + first[:, None, None]).transpose(0, 1)[:, edges]
        batch = torch.arange(len(nodes), device=nodes.device).repeat_interleave(sizes)
        weighted: Any = nullcontext()
        if self.edge_weights:
            weighted = weighted_messages(self.model, edges_of_batch, arguments[0][edges])
        with weighted:
            outputs: Tensor = self.model(features[nodes], edges_of_batch, batch=batch)
        return outputs
