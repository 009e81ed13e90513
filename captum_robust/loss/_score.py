"""The loss of labels, the explained score of each label, and its gradient or attribution."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.state import left_as_found
from captum_robust.attr.differentiable import differentiable_attribution

__all__ = ["Explain", "attribute_label", "default_loss", "explained_score", "input_gradient"]

Explain = Literal["probability", "logit"]


def is_binary(outputs: Tensor) -> bool:
    """Return whether the model returns one logit per example, (N,) or (N, 1)."""
    return outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)


def explained_score(outputs: Tensor, target: Tensor, explain: Explain) -> Tensor:
    """Return the score (N,) of the labelled class from logits (N, C), (N, 1) or (N,)."""
    shape = tuple(outputs.shape)
    if outputs.dim() not in (1, 2):
        raise ValueError(f"forward_func must return (N, C), (N, 1) or (N,), got {shape}")
    if target.numel() != len(outputs):
        raise ValueError(
            f"target must hold one label per example, ({len(outputs)},), got {tuple(target.shape)}"
        )
    if is_binary(outputs):
        # Class 0 of a single logit z has the logit −z.
        logits = outputs.reshape(-1)
        signed = torch.where(target.reshape(-1) > 0.5, logits, -logits)
        return signed.sigmoid() if explain == "probability" else signed
    scores = outputs.softmax(dim=1) if explain == "probability" else outputs
    return scores.gather(1, target.reshape(-1, 1)).squeeze(1)


def default_loss(outputs: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return the cross-entropy of logits (N, C), or the binary cross-entropy of a single logit."""
    if is_binary(outputs):
        logits = outputs.reshape(-1)
        return F.binary_cross_entropy_with_logits(
            logits, target.reshape(-1).to(logits), reduction=reduction
        )
    return F.cross_entropy(outputs, target, reduction=reduction)


def input_gradient(
    score: Tensor, inputs: tuple[Tensor, ...], create_graph: bool = True
) -> tuple[Tensor, ...]:
    """Return the gradient of each example's score with its graph; zero for unused inputs."""
    if not score.requires_grad:
        return tuple(torch.zeros_like(x) for x in inputs)
    gradients = torch.autograd.grad(
        score.sum(), inputs, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
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
