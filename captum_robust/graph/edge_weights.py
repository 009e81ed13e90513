"""Weights of edges, whatever the layers of a PyTorch Geometric model take."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["weighted_messages"]


@contextmanager
def weighted_messages(model: nn.Module, edge_index: Tensor, weights: Tensor) -> Iterator[None]:
    r"""Multiply the message of every edge by its weight, in every layer of a model.

    This is what an edge mask means in ``torch_geometric.explain``: 1 leaves the message of an edge
    as it is, 0 takes it away, and the degrees by which a layer normalises stay those of the whole
    graph. Self-loops that a layer adds keep the weight 1, and so do those of ``edge_index`` where
    the layer replaces them. Layers whose ``explain`` is False are left out, as there.

    It works by the message hooks of the layers, which are gone after the block, also after an
    exception; no flag and no mask of a layer is touched.

    Args:
        model (nn.Module): a model with ``torch_geometric.nn.MessagePassing`` layers.
        edge_index (Tensor): the edges that the model is called with, shape (2, E).
        weights (Tensor): one weight an edge, shape (E,).

    Raises:
        ValueError: if the model has no such layer; inside the block, if a layer passes messages
            along other edges.

    Examples::

        >>> from torch_geometric.nn import SimpleConv
        >>> model, edge_index = SimpleConv(), torch.tensor([[0, 1], [2, 2]])
        >>> x = torch.tensor([[1.0], [10.0], [0.0]])
        >>> with weighted_messages(model, edge_index, torch.tensor([1.0, 0.5])):
        ...     model(x, edge_index)[2]
        tensor([6.])
    """
    from torch_geometric.nn import MessagePassing

    layers = [
        m for m in model.modules() if isinstance(m, MessagePassing) and m.explain is not False
    ]
    if not layers:
        raise ValueError(
            "model must have MessagePassing layers whose messages can be weighted, found none"
        )
    handles = []
    try:
        for layer in layers:
            weighting = _Weighting(edge_index, weights)
            handles.append(layer.register_propagate_forward_pre_hook(weighting.look_at_edges))
            handles.append(layer.register_message_forward_hook(weighting.weigh))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Weighting:
    """The hooks of one layer: the edges that it is called with come before its messages."""

    def __init__(self, edge_index: Tensor, weights: Tensor) -> None:
        self.edge_index = edge_index
        self.weights = weights
        self.aligned = weights

    def look_at_edges(self, layer: Any, arguments: tuple[Any, ...]) -> None:
        self.aligned = _aligned(layer, self.edge_index, self.weights, arguments[0])

    def weigh(self, layer: Any, _arguments: Any, messages: Tensor) -> Tensor:
        shape = [1] * messages.dim()
        shape[layer.node_dim] = -1
        return messages * self.aligned.view(shape)


def _aligned(layer: Any, edge_index: Tensor, weights: Tensor, seen: Any) -> Tensor:
    """The weights of the edges that a layer passes messages along."""
    if isinstance(seen, Tensor) and not seen.is_sparse and seen.dim() == 2:
        if torch.equal(seen, edge_index):
            return weights
        if torch.equal(seen, edge_index.flip(0)):  # messages the other way round
            return weights
        kept, own = edge_index[0] != edge_index[1], seen[0] != seen[1]
        if torch.equal(seen[:, own], edge_index[:, kept]):
            loops = weights.new_ones(seen.shape[1])
            return loops.index_copy(0, own.nonzero()[:, 0], weights[kept])
    raise ValueError(
        f"{type(layer).__name__} passes messages along other edges than those of edge_index (it "
        "pools, sorts or drops some), so that the weights of edges mean nothing there"
    )
