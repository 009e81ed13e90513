"""Explanation algorithms of PyTorch Geometric as Captum attributions without a gradient."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, log_usage
from captum_robust._utils.random import cuda_devices
from captum_robust.graph.pyg.edge_weights import weighted_messages
from captum_robust.graph.pyg.masked import MaskedGraph

__all__ = ["AlgorithmAttribution", "copy_model"]

T = TypeVar("T")


def copy_model(original: T) -> T:
    """Return a deep copy without a draw of random numbers: some layers first make parameters."""
    with torch.random.fork_rng(devices=cuda_devices()):
        return copy.deepcopy(original)


class AlgorithmAttribution(Attribution):
    """GNNExplainer, PGExplainer, GraphMaskExplainer or your own algorithm, run on every row.

    It has no gradient: attack it with :class:`~captum_robust.robust.RandomSearchAttack`. The edge
    weights of a row multiply the messages of the model while the algorithm runs. Model and
    algorithm are copied for every row, because some algorithms leave masks in the layers, others
    gradients in the parameters.

    Args:
        masked (MaskedGraph): the model on versions of the graph.
        algorithm (ExplainerAlgorithm): connected, and trained if it needs training.
        targets (Tensor): targets of all outputs of the model, as the algorithm takes them.
    """

    #: Read by :func:`captum_robust.attr.is_differentiable`.
    differentiable = False

    def __init__(self, masked: MaskedGraph, algorithm: Any, targets: Tensor) -> None:
        super().__init__(masked)
        self.masked = masked
        self.algorithm = algorithm
        self.targets = targets

    @log_usage(part_of_slo=True)  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Inputs, target: Any = None) -> tuple[Tensor, ...]:
        """Return node and edge masks of every row in the order of the inputs; ignores ``target``.

        Node masks have the shape that the algorithm gives them: (N, V', F), (N, V', 1) or
        (N, 1, F). The masks of edges that share a weight are added.
        """
        rows = [self._masks(row) for row in zip(*as_tuple(inputs), strict=True)]
        return tuple(torch.stack(masks) for masks in zip(*rows, strict=True))

    def explanation(self, row: tuple[Tensor, ...]) -> Any:
        """Return the ``Explanation`` of one version of the graph, given without a row dimension."""
        call = self.masked.call
        x, weights = (None if v is None else v.detach() for v in self.masked.version(row))
        model, algorithm = copy_model((self.masked.model, self.algorithm))
        model.eval()
        weighted: Any = nullcontext()
        if weights is not None:
            weighted = weighted_messages(model, call.edge_index, weights)
        index = None if call.index is None else torch.tensor([call.index]).to(call.edge_index)
        with torch.enable_grad(), weighted:
            return algorithm(
                model, call.x if x is None else x, call.edge_index,
                target=self.targets, index=index, **call.arguments,
            )  # fmt: skip

    def _masks(self, row: tuple[Tensor, ...]) -> list[Tensor]:
        handles, explanation = self.masked.handles, self.explanation(row)
        masks = []
        if handles.nodes is not None:
            mask = explanation.node_mask.detach()
            masks.append(mask[handles.nodes] if len(mask) == len(self.masked.call.x) else mask)
        if handles.edges is not None:
            mask = explanation.edge_mask.detach()[handles.edges]
            masks.append(mask.new_zeros(len(row[-1])).index_add(0, handles.columns, mask))
        return masks
