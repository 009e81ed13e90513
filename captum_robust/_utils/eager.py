"""Compiled models as they were written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["is_compiled", "uncompiled"]

_MARKS = ("_orig_mod", "_compiled_call_impl", "_torchdynamo_orig_callable")


def is_compiled(part: Any) -> bool:
    """Return whether ``torch.compile`` has made this module or function."""
    return any(getattr(part, mark, None) is not None for mark in _MARKS)


@contextmanager
def uncompiled(forward_func: Any) -> Iterator[None]:
    """Run a compiled model as it was written: compiled code has no second derivative.

    Raises:
        ValueError: for a compiled model where torch cannot do this, before version 2.6.
    """
    modules = forward_func.modules() if isinstance(forward_func, nn.Module) else ()
    if not any(is_compiled(part) for part in (forward_func, *modules)):
        yield
        return
    if not hasattr(torch.compiler, "set_stance"):
        raise ValueError(
            "forward_func must not be compiled, because torch.compile does not support second "
            "derivatives: pass the original module (model._orig_mod)"
        )
    with torch.compiler.set_stance("force_eager"):
        yield
