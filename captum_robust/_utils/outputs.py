"""The one check of what a model returns."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

__all__ = ["check_output"]


def check_output(output: Any) -> Tensor:
    """Return the output of a model, which must be a tensor.

    Raises:
        ValueError: for anything else, with what was returned and how to wrap the model.
    """
    if isinstance(output, Tensor):
        return output
    got, part = type(output).__name__, ""
    if isinstance(output, Mapping):
        keys = [str(key) for key in output]
        got += f" with the keys {keys}"
        part = f"[{keys[0]!r}]" if keys else ""
    elif isinstance(output, tuple | list):
        got += f" of length {len(output)}"
        part = "[0]"
    advice = ""
    if part:
        advice = (
            ": explain an nn.Module around it whose forward returns the logits, for example "
            f"self.model(*inputs){part}"
        )
    raise ValueError(f"forward_func must return one tensor, got {got}{advice}")
