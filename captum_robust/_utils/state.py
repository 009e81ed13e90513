"""Leave the caller's model as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["left_as_found", "models_of"]


def models_of(explainer: Any) -> list[nn.Module]:
    """The module behind an attribution, its bound ``attribute`` method, or a forward function.

    None is found behind a function of the caller's own, a lambda for one.
    """
    for inner in ("__self__", "attribution_method", "forward_func", "func", "__self__"):
        if isinstance(explainer, nn.Module):
            break
        explainer = getattr(explainer, inner, explainer)
    return [explainer] if isinstance(explainer, nn.Module) else []


@contextmanager
def left_as_found(*explainers: Any) -> Iterator[None]:
    """Let models in training mode, whose every forward moves their statistics, move copies instead.

    Writing the old values back would do for the model, but not for a graph that is differentiated
    after the block: autograd refuses to use a buffer that was written to.
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
