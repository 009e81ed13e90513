"""Leave the caller's model as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

__all__ = [
    "evaluation_mode", "in_training_mode", "left_as_found", "models_of", "uses_batch_statistics",
]  # fmt: skip


def models_of(explainer: Any) -> list[nn.Module]:
    """Return the module behind an attribution, its ``attribute`` method, or a forward function.

    The list is empty for any other function, such as a lambda.
    """
    for inner in ("__self__", "attribution_method", "forward_func", "func", "__self__"):
        if isinstance(explainer, nn.Module):
            break
        explainer = getattr(explainer, inner, explainer)
    return [explainer] if isinstance(explainer, nn.Module) else []


def in_training_mode(*explainers: Any) -> bool:
    """Return whether a layer whose output depends on chance or on the batch is in training mode."""
    return any(
        module.training and isinstance(module, _DropoutNd | _BatchNorm | nn.RReLU)
        for explainer in explainers
        for model in models_of(explainer)
        for module in model.modules()
    )


def uses_batch_statistics(*explainers: Any) -> bool:
    """Return whether a layer of batch normalisation takes its statistics from the batch."""
    return any(
        isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)
        for explainer in explainers
        for model in models_of(explainer)
        for module in model.modules()
    )


@contextmanager
def left_as_found(*explainers: Any) -> Iterator[None]:
    """Let models in training mode update copies of their buffers, and put the originals back.

    A forward pass in training mode changes buffers such as running means. Writing the old values
    back would restore the model, but not a graph that is differentiated after the block: autograd
    refuses to use a buffer that was written to.
    """
    found = [
        (module, name, buffer)
        for explainer in explainers
        for model in models_of(explainer)
        if any(module.training for module in model.modules())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]
    copies = {buffer: buffer.clone() for _, _, buffer in found}  # one for a buffer that is shared
    try:
        for module, name, buffer in found:
            setattr(module, name, copies[buffer])
        yield
    finally:
        for module, name, buffer in found:
            setattr(module, name, buffer)


@contextmanager
def evaluation_mode(*explainers: Any) -> Iterator[None]:
    """Put models into evaluation mode, and every module back into its own mode after the block."""
    models = [model for explainer in explainers for model in models_of(explainer)]
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
