"""Saliency and InputXGradient by one gradient of the summed outputs, without Captum's own call."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from captum.attr import Attribution, InputXGradient, Saliency
from torch import Tensor

from captum_robust._utils.captum import compute_gradients, run_forward, select_target
from captum_robust._utils.derivatives import all_gradients, differentiate
from captum_robust.attr._attention import math_attention

__all__ = ["DirectAttribution", "direct_attribution"]

# The arguments that ``attribute`` of each method takes beside the inputs.
_ARGUMENTS: dict[type[Attribution], set[str]] = {
    Saliency: {"target", "abs", "additional_forward_args"},
    InputXGradient: {"target", "additional_forward_args"},
}


class DirectAttribution(NamedTuple):
    """Attributions of some inputs, and the output of the model from the same forward pass."""

    attributions: tuple[Tensor, ...]  #: one tensor per input tensor, of its shape
    output: Tensor  #: all outputs of the model, before a target is selected
    has_attention: bool  #: whether the model has called attention; true if nobody has looked


def direct_attribution(
    attribution: Attribution,
    inputs: tuple[Tensor, ...],
    arguments: Mapping[str, Any],
    create_graph: bool = False,
    has_attention: bool = True,
) -> DirectAttribution | None:
    """Attributions equal to those of ``attribution.attribute(inputs, **arguments)``, if direct.

    Captum takes the gradient of every example's output as a graph root of its own. Examples do not
    interact, so the gradient of the sum is the same, and costs far fewer operations.

    Args:
        attribution: any attribution. Only Captum's own ``Saliency`` and ``InputXGradient``, with
            Captum's own gradient, are computed here: not their subclasses, and no object whose
            ``gradient_func`` or ``attribute`` was replaced.
        inputs: the input tensors, examples along dimension 0. Their ``requires_grad`` stays as it
            is.
        arguments: keyword arguments of ``attribute``.
        create_graph: keep the graph of the attributions and of the output, which reaches the
            parameters, and the inputs that require gradients. False returns detached tensors.
        has_attention: whether the model may call attention, whose fused kernels have no second
            derivative. To watch for it costs a small model as much as its forward pass: pass what
            an earlier result says.

    Returns:
        The attributions and the output of the model, or None where this way does not apply and
        ``attribute`` has to be called.

    Raises:
        ValueError: if the target does not select one output per example, the model returns no
            tensor or does not use one of the inputs.
        NotDifferentiableError: if the output has no gradient, or none with a graph.
    """
    if not _applies(attribution, inputs, arguments):
        return None
    leaves = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in inputs)
    with torch.enable_grad():
        extra = arguments.get("additional_forward_args")
        if create_graph and has_attention:
            with math_attention() as watch:
                output = run_forward(attribution.forward_func, leaves, extra)
            has_attention = watch.called
        else:
            output = run_forward(attribution.forward_func, leaves, extra)
        total = select_target(output, arguments.get("target")).sum()
        gradients: tuple[Tensor | None, ...] = (None,) * len(leaves)
        if total.requires_grad:
            gradients = differentiate([total], leaves, create_graph=create_graph)
        attributions = all_gradients(gradients)
        if type(attribution) is InputXGradient:
            attributions = tuple(x * g for x, g in zip(leaves, attributions, strict=True))
        elif arguments.get("abs", True):
            attributions = tuple(g.abs() for g in attributions)
    if create_graph:
        return DirectAttribution(attributions, output, has_attention)
    detached = tuple(a.detach() for a in attributions)
    return DirectAttribution(detached, output.detach(), has_attention)


def _applies(
    attribution: Attribution, inputs: tuple[Tensor, ...], arguments: Mapping[str, Any]
) -> bool:
    """Return whether Captum would take the plain gradient here, and nothing else."""
    accepted, own = _ARGUMENTS.get(type(attribution)), vars(attribution)
    return (
        accepted is not None
        and arguments.keys() <= accepted
        and own.get("gradient_func") is compute_gradients
        and "attribute" not in own
        and all(x.is_floating_point() for x in inputs)
    )
