"""The ``Explanation`` objects of PyTorch Geometric, written from attributions of the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from captum_robust.graph.pyg.masked import MaskedGraph

if TYPE_CHECKING:
    from torch_geometric.explain import Explainer, Explanation

__all__ = ["ExplanationWriter"]


@dataclass(frozen=True)
class ExplanationWriter:
    """Write the explanations of one output of a model, as its explainer does.

    Attributes:
        explainer: the explainer.
        masked: the model on versions of the whole graph.
        outputs: all outputs of the model for the graph.
        targets: the targets of the explanation.
    """

    explainer: Explainer
    masked: MaskedGraph
    outputs: Tensor
    targets: Tensor

    def from_maps(self, maps: tuple[Tensor, ...], row: tuple[Tensor, ...]) -> Explanation:
        """Return the explanation of a version of the graph from one row of attributions.

        Everything that is not among the inputs gets an attribution of 0.

        Args:
            maps: attributions in the shapes of the inputs, one row.
            row: the version of the graph, without a row dimension.
        """
        from torch_geometric.explain import Explanation

        call, handles = self.masked.call, self.masked.handles
        explanation = Explanation()
        rows = [tensor[0].detach() for tensor in maps]
        if handles.nodes is not None:
            mask = rows[0]  # one row for all nodes, or one per node
            if len(mask) == len(handles.nodes):
                everywhere = mask.new_zeros(len(call.x), mask.shape[1])
                mask = everywhere.index_copy(0, handles.nodes, mask)
            explanation.node_mask = mask
        if handles.edges is not None:
            mask = rows[-1].new_zeros(call.edge_index.shape[1])
            mask = mask.index_copy(0, handles.edges, rows[-1][handles.columns])
            explanation.edge_mask = mask
        return self.complete(explanation, row)

    def complete(self, explanation: Explanation, row: tuple[Tensor, ...]) -> Explanation:
        """Add what an explainer adds: the graph, the model's arguments, outputs and targets."""
        call = self.masked.call
        x, weights = self.masked.version(row)
        explanation._model_config = self.explainer.model_config
        explanation._model_args = list(call.arguments)
        labelled = self.explainer.explanation_type.value == "phenomenon"
        explanation.prediction = None if labelled else self.outputs
        explanation.target = self.targets
        explanation.index = None if call.index is None else torch.tensor([call.index])
        explanation.x = call.x if x is None else x
        explanation.edge_index = call.edge_index
        if weights is not None:
            explanation.message_weight = weights
        for name, value in call.arguments.items():
            explanation[name] = value
        explanation.validate_masks()
        return explanation
