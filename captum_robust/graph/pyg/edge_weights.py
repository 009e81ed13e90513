"""Edge weights for any PyTorch Geometric model, whether its layers take weights or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["weighted_messages"]


@contextmanager
def weighted_messages(model: nn.Module, edge_index: Tensor, weights: Tensor) -> Iterator[None]:
    r"""Multiply the message of every edge by its weight, in every layer of a model.

    An edge mask has this meaning in ``torch_geometric.explain``: 1 keeps the message of an edge, 0
    removes it, and the degrees by which a layer normalises stay those of the whole graph.
    Self-loops that a layer adds keep the weight 1, and so do those of ``edge_index`` where the
    layer replaces them. Layers with ``explain=False`` are left out, as in
    ``torch_geometric.explain``.

    The weights are applied by message hooks of the layers, which are removed after the block, also
    after an exception. No flag and no mask of a layer changes.

    Args:
        model (nn.Module): a model with ``torch_geometric.nn.MessagePassing`` layers.
        edge_index (Tensor): the edges that the model is called with, shape (2, E).
        weights (Tensor): one weight per edge, shape (E,).

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
            handles.append(layer.register_propagate_forward_pre_hook(weighting.align))
            handles.append(layer.register_message_forward_hook(weighting.multiply))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Weighting:
    """The hooks of one layer, which is called with its edges before it computes messages."""

    def __init__(self, edge_index: Tensor, weights: Tensor) -> None:
        self.edge_index = edge_index
        self.weights = weights
        self.aligned = weights

    def align(self, layer: Any, arguments: tuple[Any, ...]) -> None:
        self.aligned = _align(layer, self.edge_index, self.weights, arguments[0])

    def multiply(self, layer: Any, _arguments: Any, messages: Tensor) -> Tensor:
        shape = [1] * messages.dim()
        shape[layer.node_dim] = -1
        return messages * self.aligned.view(shape)


def _align(layer: Any, edge_index: Tensor, weights: Tensor, seen: Any) -> Tensor:
    """Return the weights of the edges along which a layer passes messages."""
    if isinstance(seen, Tensor) and not seen.is_sparse and seen.dim() == 2:
        if torch.equal(seen, edge_index):
            return weights
        if torch.equal(seen, edge_index.flip(0)):  # messages against the direction of the edges
            return weights
        kept, own = edge_index[0] != edge_index[1], seen[0] != seen[1]
        if torch.equal(seen[:, own], edge_index[:, kept]):
            loops = weights.new_ones(seen.shape[1])
            return loops.index_copy(0, own.nonzero()[:, 0], weights[kept])
    raise ValueError(
        f"{type(layer).__name__} passes messages along other edges than those of edge_index (it "
        "pools, sorts or drops some), so edge weights have no meaning in this layer"
    )
