"""The part of a graph on which the output of a node depends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust.graph.pyg.call import GraphCall
from captum_robust.graph.pyg.masked import MaskedGraph
from captum_robust.graph.pyg.neighbourhood import receptive_field

__all__ = ["Reach", "cut"]


class Reach:
    """The nodes (V,) and edges (E,), bool, on which the output of a node can depend.

    These are within as many hops as messages are passed. Where a gradient shows that the output
    depends on more, through a normalisation over all nodes, a readout or layers that pass messages
    both ways, they are all nodes and edges.
    """

    def __init__(self, model: nn.Module, call: GraphCall) -> None:
        self.call = call
        self.nodes = torch.ones(len(call.x), dtype=torch.bool, device=call.x.device)
        self.edges = self.nodes.new_ones(call.edge_index.shape[1])
        self._layers = _message_passing(model)
        self.limited = call.index is not None and len(self._layers) > 0
        if not self.limited:
            return
        x = call.x.clone().requires_grad_()
        weights = x.new_ones(len(self.edges)).requires_grad_()
        with torch.enable_grad(), self._count_rounds():
            output = call.select(call.outputs(model, x, weights))
            # Not the plain sum: that of probabilities is constant.
            total = (output * torch.arange(1, output.numel() + 1).to(output).view_as(output)).sum()
            slopes = torch.autograd.grad(total, (x, weights), allow_unused=True)
        nodes, edges = self.within(self.n_rounds)
        self.limited = all(
            slope is None or not bool(slope[~inside].any())
            for slope, inside in zip(slopes, (nodes, edges), strict=True)
        )
        if self.limited:
            self.nodes, self.edges = nodes, edges

    def within(self, n_hops: int) -> tuple[Tensor, Tensor]:
        """Return the nodes and edges within ``n_hops`` of the output."""
        assert self.call.index is not None
        flow = self._layers[0].flow
        return receptive_field(self.call.edge_index, self.call.index, n_hops, len(self.nodes), flow)

    @contextmanager
    def _count_rounds(self) -> Iterator[None]:
        """Count the rounds of messages."""
        self.n_rounds = 0

        def count(_layer: Any, _arguments: Any) -> None:
            self.n_rounds += 1

        handles = [layer.register_propagate_forward_pre_hook(count) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def cut(masked: MaskedGraph, reach: Reach, inputs: tuple[Tensor, ...]) -> MaskedGraph:
    """Return the same function on a part of the graph, where that gives the same output.

    The part has one hop more than the receptive field, so that the degrees by which layers
    normalise are those of the whole graph.
    """
    # A layer that caches the degrees of the graph would use them for a part of it.
    caches = any(getattr(module, "cached", False) for module in masked.model.modules())
    if not reach.limited or caches:
        return masked
    nodes, edges = reach.within(reach.n_rounds + 1)
    part = masked.call.part(nodes, edges)
    if part is None:
        return masked
    handles = masked.handles.within(nodes, edges)
    smaller = MaskedGraph(masked.model, part, handles, masked.as_two_classes)
    with torch.no_grad():
        same = torch.allclose(smaller(*inputs), masked(*inputs), rtol=1e-4, atol=1e-5)
    return smaller if same else masked


def _message_passing(model: nn.Module) -> list[Any]:
    from torch_geometric.nn import MessagePassing

    return [module for module in model.modules() if isinstance(module, MessagePassing)]
