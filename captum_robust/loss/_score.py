"""The loss of labelled outputs, and the gradient or attribution of the explained score."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.derivatives import check_first_derivative, differentiate
from captum_robust._utils.state import left_as_found
from captum_robust.attr.differentiable import differentiable_attribution

__all__ = [
    "Explain",
    "LabelledOutputs",
    "attribute_label",
    "gradient_of_scores",
    "input_gradient",
    "is_binary",
]

Explain = Literal["probability", "logit"]


def is_binary(outputs: Tensor) -> bool:
    """Return whether the model returns one logit per example, (N,) or (N, 1)."""
    return outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)


def check_labels(target: Tensor, outputs: Tensor) -> None:
    """Raise ValueError for labels that are none of the classes; not within ``torch.compile``."""
    if torch.compiler.is_compiling() or target.numel() == 0:
        return
    if is_binary(outputs):
        if bool(((target < 0) | (target > 1) | (target != target)).any()):
            raise ValueError(
                "target must hold 0 and 1 for a model with a single logit, got values in "
                f"[{float(target.min()):g}, {float(target.max()):g}]"
            )
        return
    if target.dtype != torch.int64:
        raise ValueError(f"target must hold class indices, torch.int64, got {target.dtype}")
    lowest, highest = (int(v) for v in target.aminmax())
    if lowest < 0 or highest >= outputs.shape[1]:
        raise ValueError(
            f"target must hold classes in 0 … {outputs.shape[1] - 1}, got values in "
            f"[{lowest}, {highest}]"
        )


class LabelledOutputs:
    """Logits of a batch, (N, C), (N, 1) or (N,), with their labels."""

    def __init__(self, outputs: Tensor, target: Tensor, labels: Tensor | None = None) -> None:
        """Take the ``labels`` of other outputs of the same examples, if there are any."""
        self.outputs = outputs
        self.target = target
        self._labels = labels
        self._log_probabilities: Tensor | None = None

    @property
    def log_probabilities(self) -> Tensor:
        """Logarithms of the softmax of several logits, (N, C)."""
        if self._log_probabilities is None:
            self._log_probabilities = self.outputs.log_softmax(dim=1)
        return self._log_probabilities

    @property
    def labels(self) -> Tensor:
        """The labels in the shape of the outputs: one-hot, or 1 and −1 for a single logit."""
        if self._labels is None:
            outputs, target = self.outputs, self.target
            shape = tuple(outputs.shape)
            if outputs.dim() not in (1, 2):
                raise ValueError(f"forward_func must return (N, C), (N, 1) or (N,), got {shape}")
            if target.numel() != len(outputs):
                raise ValueError(
                    f"target must hold one label per example, ({len(outputs)},), "
                    f"got {tuple(target.shape)}"
                )
            check_labels(target, outputs)
            if is_binary(outputs):
                given = target.reshape(outputs.shape)
                signs = (given > 0.5).to(outputs) * 2 - 1
                # No plausible number where a compiled step has not looked at the labels.
                self._labels = signs.masked_fill((given < 0) | (given > 1), math.nan)
            else:
                self._labels = outputs.new_zeros(shape).scatter_(1, target.reshape(-1, 1), 1.0)
        return self._labels

    def loss(self, reduction: str) -> Tensor:
        """Return the cross-entropy, or the binary cross-entropy of a single logit."""
        if self._labels is None:
            check_labels(self.target, self.outputs)
        if is_binary(self.outputs):
            logits = self.outputs.reshape(-1)
            return F.binary_cross_entropy_with_logits(
                logits, self.target.reshape(-1).to(logits), reduction=reduction
            )
        return F.nll_loss(self.log_probabilities, self.target, reduction=reduction)

    def score_gradient(self, explain: Explain) -> Tensor:
        """Return the gradient of each example's explained score by its outputs, with its graph.

        In closed form, which has fewer operations than the gradient of the score by autograd.
        """
        labels = self.labels
        if explain == "logit":  # class 0 of a single logit z has the logit −z
            return labels
        if is_binary(self.outputs):
            probability = (labels * self.outputs).sigmoid()
            gradient = labels * probability * (1 - probability)
        else:
            probabilities = self.log_probabilities.exp()
            gradient = probabilities * (labels - (probabilities * labels).sum(dim=1, keepdim=True))
        return gradient.to(self.outputs)


def input_gradient(
    outputs: Tensor, inputs: tuple[Tensor, ...], weights: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Return the gradient of the weighted sum of outputs by inputs, with its graph.

    Raises:
        ValueError: for an input that the outputs do not depend on.
        NotDifferentiableError: if they depend on none.
    """
    gradients: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if outputs.requires_grad:
        gradients = differentiate(
            [outputs.sum() if weights is None else outputs], inputs,
            None if weights is None else [weights], retain_graph=True, create_graph=True,
        )  # fmt: skip
    return check_first_derivative(outputs, gradients)


def gradient_of_scores(
    scores: Tensor, inputs: tuple[Tensor, ...], create_graph: bool = True
) -> tuple[Tensor, ...]:
    """Return the gradient of the sum of scores; zero where they are constant, as of a linear model.

    A missing derivative is not zero: it is checked before.
    """
    if not scores.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    gradients = differentiate([scores.sum()], inputs, retain_graph=True, create_graph=create_graph)
    return tuple(
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
    )


def attribute_label(
    attribution: Attribution,
    inputs: Inputs,
    outputs: Tensor,
    target: Tensor,
    additional_forward_args: Any,
) -> Inputs:
    """Return the attribution of the labelled output, or of the only one; keep all buffers."""
    arguments: dict[str, Any] = {}
    if additional_forward_args is not None:
        arguments["additional_forward_args"] = additional_forward_args
    if outputs.dim() == 2:
        arguments["target"] = 0 if is_binary(outputs) else target
    with left_as_found(attribution), differentiable_attribution():
        maps: Inputs = attribution.attribute(inputs, **arguments)
    return maps
