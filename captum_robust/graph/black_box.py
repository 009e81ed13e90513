"""Explanation algorithms of PyTorch Geometric that Captum does not know, as Captum attributions."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, log_usage
from captum_robust._utils.random import cuda_devices
from captum_robust.graph.edge_weights import weighted_messages
from captum_robust.graph.masked import MaskedGraph

__all__ = ["AlgorithmAttribution", "copied"]

T = TypeVar("T")


def copied(original: T) -> T:
    """A deep copy that draws no random numbers: some layers first make new parameters."""
    with torch.random.fork_rng(devices=cuda_devices()):
        return copy.deepcopy(original)


class AlgorithmAttribution(Attribution):
    """GNNExplainer, PGExplainer, GraphMaskExplainer or one of your own, run on every row.

    It has no gradient: attack it with :class:`~captum_robust.robust.RandomSearchAttack`. The edge
    weights of a row multiply the messages of the model while the algorithm looks at it. Model and
    algorithm are copied for every row: some algorithms leave masks in the layers, others gradients
    in the parameters.

    Args:
        masked (MaskedGraph): the model on versions of the graph.
        algorithm (ExplainerAlgorithm): connected, and trained where it has to be.
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
        """Node and edge masks of every row, in the order of the inputs; ``target`` is not used.

        Node masks have the shape that the algorithm gives them: (N, V', F), (N, V', 1) or
        (N, 1, F). The masks of edges that share a weight are added.
        """
        rows = [self._masks(row) for row in zip(*as_tuple(inputs), strict=True)]
        return tuple(torch.stack(masks) for masks in zip(*rows, strict=True))

    def explanation(self, row: tuple[Tensor, ...]) -> Any:
        """The ``Explanation`` of one version of the graph, given without the row dimension."""
        call = self.masked.call
        x, weights = (None if v is None else v.detach() for v in self.masked.version(row))
        model, algorithm = copied((self.masked.model, self.algorithm))
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
