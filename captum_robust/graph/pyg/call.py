"""The call of a PyTorch Geometric model, and the one of its outputs that is explained."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust._utils.state import evaluation_mode
from captum_robust.graph.pyg.edge_weights import weighted_messages

__all__ = ["GraphCall"]


@dataclass(frozen=True)
class GraphCall:
    """A graph, the further keyword arguments of a model, and the index of the explained output.

    The index is None for a model with one output.
    """

    x: Tensor
    edge_index: Tensor
    arguments: dict[str, Any]
    index: int | None

    @classmethod
    def of(
        cls, x: Tensor, edge_index: Tensor, arguments: dict[str, Any], index: int | Tensor | None
    ) -> GraphCall:
        """Check the arguments of a caller."""
        if not isinstance(x, Tensor) or not isinstance(edge_index, Tensor):
            raise ValueError(
                "x and edge_index must be tensors, of a graph with one type of nodes and edges, "
                f"got {type(x).__name__} and {type(edge_index).__name__}"
            )
        if x.dim() != 2 or not x.is_floating_point():
            raise ValueError(
                f"x must hold floating point features (V, F), got {x.dtype} of {tuple(x.shape)}"
            )
        if edge_index.is_sparse or edge_index.dim() != 2 or edge_index.shape[0] != 2:
            raise ValueError(f"edge_index must have shape (2, E), got {tuple(edge_index.shape)}")
        if type(edge_index) is not Tensor:  # the fused kernels of EdgeIndex pass no single messages
            edge_index = edge_index.as_subclass(Tensor)
        return cls(x.detach(), edge_index, arguments, _index_of(index))

    def outputs(
        self, model: nn.Module, x: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Return all outputs of a model in evaluation mode, for other features or edge weights."""
        if weights is None:
            weighted: Any = nullcontext()
        else:
            weighted = weighted_messages(model, self.edge_index, weights)
        with evaluation_mode(model), weighted:
            outputs: Tensor = model(self.x if x is None else x, self.edge_index, **self.arguments)
        return outputs

    def select(self, outputs: Tensor) -> Tensor:
        """Return the explained output as the only row."""
        if self.index is None and len(outputs) != 1:
            raise ValueError(
                f"index must say which of the {len(outputs)} outputs of the model is explained"
            )
        row = 0 if self.index is None else self.index
        if not 0 <= row < len(outputs):
            raise ValueError(
                f"index must lie in 0 … {len(outputs) - 1}, the outputs of the model, got {row}"
            )
        return outputs[row : row + 1]

    def part(self, nodes: Tensor, edges: Tensor) -> GraphCall | None:
        """Return the call for a part of the graph: nodes (V,) bool and edges (E,) bool.

        The nodes of the part are numbered from 0. None where the length of an argument does not
        show whether it belongs to nodes or to edges.
        """
        sizes = {len(nodes): nodes, len(edges): edges}
        arguments = dict(self.arguments)
        for name, value in arguments.items():
            if isinstance(value, Tensor) and value.dim() > 0:
                if len(sizes) < 2 or len(value) not in sizes:
                    return None
                arguments[name] = value[sizes[len(value)]]
            elif value is not None and not isinstance(value, bool | int | float | str):
                return None
        number = nodes.cumsum(dim=0) - 1
        index = None if self.index is None else int(number[self.index])
        return GraphCall(self.x[nodes], number[self.edge_index[:, edges]], arguments, index)


def _index_of(index: int | Tensor | None) -> int | None:
    if index is None:
        return None
    given = torch.as_tensor(index)
    if given.dtype == torch.bool or given.is_floating_point() or given.numel() != 1:
        raise ValueError(
            f"index must name one output of the model, got {index!r}; explain several nodes one "
            "after the other"
        )
    return int(given)
