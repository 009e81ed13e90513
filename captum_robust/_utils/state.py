"""Leave the caller's model as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_robust._utils.exclusive import EXCLUSIVE
from captum_robust._utils.model_search import models_of

__all__ = [
    "evaluation_mode", "in_training_mode", "left_as_found", "models_of", "uses_batch_statistics",
]  # fmt: skip


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
    """Put buffers of models back after the block; blocks in other threads wait for its end.

    A forward pass in training mode changes buffers such as running means, so that models in
    training mode update copies inside the block. Writing the old values back would restore the
    model, but not a graph that is differentiated after the block: autograd refuses to use a buffer
    that was written to. Buffers of models in evaluation mode should not change; where one does
    (``F.batch_norm(training=True)``), the old values are written back.
    """
    with EXCLUSIVE:
        models = [model for explainer in explainers for model in models_of(explainer)]
        learning = [any(m.training for m in model.modules()) for model in models]
        swapped = _buffers([m for m, learns in zip(models, learning, strict=True) if learns])
        watched = _buffers([m for m, learns in zip(models, learning, strict=True) if not learns])
        copies = {buffer: buffer.clone() for _, _, buffer in swapped}  # one for a shared buffer
        values = {b: b.clone() for _, _, b in watched if not b.is_inference()}
        try:
            for module, name, buffer in swapped:
                setattr(module, name, copies[buffer])
            yield
        finally:
            for module, name, buffer in swapped:
                setattr(module, name, buffer)
            for module, name, buffer in watched:
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)
            for buffer, value in values.items():
                if not torch.equal(buffer, value):
                    with torch.no_grad():
                        buffer.copy_(value)


def _buffers(models: list[nn.Module]) -> list[tuple[nn.Module, str, Tensor]]:
    return [
        (module, name, buffer)
        for model in models
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]


@contextmanager
def evaluation_mode(*explainers: Any) -> Iterator[None]:
    """Put models into evaluation mode, and every module back into its own mode after the block.

    Blocks in other threads wait for its end.
    """
    with EXCLUSIVE:
        models = [model for explainer in explainers for model in models_of(explainer)]
        modes = [(module, module.training) for model in models for module in model.modules()]
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, mode in modes:
                module.training = mode
