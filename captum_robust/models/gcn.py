"""Graph embeddings: two graph convolutions and a mean over the nodes, dense and sparse."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_robust.models._sizes import check_sizes


def normalized_adjacency(adjacency: Tensor) -> Tensor:
    r"""Return the matrix of a graph convolution, :math:`D^{-1/2} (A + I) D^{-1/2}`.

    The degree counts the self-loop and the magnitude of each weight,
    :math:`D_{ii} = 1 + \sum_j |A_{ij}|`. For weights of 0 or more it is the usual degree. For
    signed weights it is at least 1, where the usual degree can be 0 or negative and has no square
    root. No node is left out and nothing is clamped. At weight 0 the derivative is the one from
    above: that of adding an edge.

    Args:
        adjacency: Symmetric weights, shape (N, n, n).

    Returns:
        Shape (N, n, n), symmetric; differentiable in ``adjacency``.

    Source:
        Kipf and Welling, arXiv 1609.02907; the degree of signed graphs: Kunegis and others (2010),
        Spectral Analysis of Signed Graphs, SDM.

    Example:
        >>> normalized_adjacency(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
        tensor([[[0.5000, 0.5000],
                 [0.5000, 0.5000]]])
    """
    scale = (1 + _magnitude(adjacency).sum(dim=-1)).rsqrt()
    loops = torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    # Both scales at once as a product of vectors, whose derivatives are no matrices.
    return (scale.unsqueeze(-1) @ scale.unsqueeze(-2)) * (adjacency + loops)


class DenseGCN(nn.Module):
    r"""A two-layer graph convolutional network from dense adjacency matrices to graph embeddings.

    Node features are the identity, so that the adjacency is the only input: the first layer has a
    weight vector for each node. Derivatives with respect to the adjacency are those of the formula
    everywhere, on the diagonal and at nodes of low degree as well; see
    :func:`normalized_adjacency`.

    Args:
        n_nodes: Number of nodes, n, 1 or more; node i has the same meaning in every graph.
        hidden: Width of the first layer, 1 or more.
        out: Width of the embedding, 1 or more.
        activation: Returns the module between the layers, such as ``nn.LeakyReLU`` or
            ``nn.Softplus``; called once, without arguments.

    Raises:
        ValueError: If a size is less than 1.

    Source:
        R2ET, arXiv 2212.14106, experiments on brain networks.

    Example:
        >>> import torch
        >>> graphs = torch.ones(3, 5, 5) - torch.eye(5)
        >>> DenseGCN(n_nodes=5)(graphs).shape
        torch.Size([3, 128])
    """

    def __init__(
        self,
        n_nodes: int,
        hidden: int = 256,
        out: int = 128,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
    ) -> None:
        super().__init__()
        check_sizes(n_nodes=n_nodes, hidden=hidden, out=out)
        self.hidden = _linear(n_nodes, hidden)
        self.activation = activation()
        self.output = _linear(hidden, out)

    def forward(self, adjacency: Tensor) -> Tensor:
        """Return the embeddings, shape (N, out), of ``adjacency``, shape (N, n, n)."""
        matrix = normalized_adjacency(adjacency)
        nodes = self.activation(self.hidden(matrix))
        # The mean over the nodes precedes the second layer, which is linear: n times cheaper.
        # A product of matrices would have second derivatives that are transposed in memory.
        pooled = (matrix.mean(dim=1).unsqueeze(2) * nodes).sum(dim=1)
        embeddings: Tensor = self.output(pooled)
        return embeddings


class SparseGCN(nn.Module):
    """The network of :class:`DenseGCN` on sparse batches of PyTorch Geometric.

    The same graphs give the same embeddings, and the weights are interchangeable:
    ``sparse.load_state_dict(dense.state_dict())``. The convolution is a ``MessagePassing`` module,
    in which the explainers of PyTorch Geometric set their edge masks.

    Args:
        n_features: Width of the node features, 1 or more; the number of nodes for the identity
            as features, as in :class:`DenseGCN`.
        hidden: Width of the first layer, 1 or more.
        out: Width of the embedding, 1 or more.
        activation: Returns the module between the layers; called once, without arguments.

    Raises:
        ValueError: If a size is less than 1.

    Example:
        >>> import torch
        >>> ends = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> SparseGCN(n_features=3)(torch.eye(3), ends).shape
        torch.Size([1, 128])
    """

    def __init__(
        self,
        n_features: int,
        hidden: int = 256,
        out: int = 128,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
    ) -> None:
        from torch_geometric.nn import MeanAggregation, SimpleConv

        super().__init__()
        check_sizes(n_features=n_features, hidden=hidden, out=out)
        self.hidden = _linear(n_features, hidden)
        self.activation = activation()
        self.output = _linear(hidden, out)
        self.propagate = SimpleConv(aggr="sum")
        self.mean = MeanAggregation()

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor | None = None,
        edge_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the embeddings of a batch of undirected graphs.

        Args:
            x: Node features, shape (nodes, n_features).
            edge_index: Ends of the edges, both directions of each, shape (2, edges).
            batch: The graph of each node, shape (nodes,); None for one graph.
            edge_weight: Shape (edges,); None for 1.

        Returns:
            Shape (graphs, out).
        """
        if edge_weight is None:
            edge_weight = x.new_ones(edge_index.shape[1])
        if batch is None:
            batch = edge_index.new_zeros(len(x))
        ends, weights = _normalized_edges(edge_index, edge_weight, len(x))
        nodes = self.activation(self.hidden(self.propagate(x, ends, weights)))
        graphs = self.mean(self.propagate(nodes, ends, weights), batch)
        embeddings: Tensor = self.output(graphs)
        return embeddings


def _linear(width: int, out: int) -> nn.Linear:
    """Return a layer as graph convolutions initialise it: Glorot's weights, a bias of zero.

    A row of the normalised matrix has a small norm, so that a random bias of the usual size would
    dominate it and all graphs would have nearly the same embedding at first.
    """
    layer = nn.Linear(width, out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _normalized_edges(ends: Tensor, weights: Tensor, n_nodes: int) -> tuple[Tensor, Tensor]:
    """Return the entries of :func:`normalized_adjacency`, self-loops last, as PyG's masks need."""
    sources, destinations = ends
    degrees = weights.new_ones(n_nodes).index_add(0, destinations, _magnitude(weights))
    between = sources != destinations
    own = sources[~between]
    loops = weights.new_ones(n_nodes).index_add(0, own, weights[~between])
    nodes = torch.arange(n_nodes, device=ends.device)
    ends = torch.cat([ends[:, between], nodes.expand(2, -1)], dim=1)
    scale = degrees.rsqrt()[ends]
    return ends, scale[0] * torch.cat([weights[between], loops]) * scale[1]


def _magnitude(weights: Tensor) -> Tensor:
    """Return the absolute value with derivative 1 at 0, where that of ``abs`` is 0."""
    one = weights.new_ones(())
    return weights * torch.where(weights < 0, -one, one)  # each derivative is one product
