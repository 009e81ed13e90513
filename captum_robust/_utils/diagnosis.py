"""The cause of an error within Captum, where it is the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import call_forward
from captum_robust._utils.derivatives import NotDifferentiableError
from captum_robust._utils.outputs import check_output

__all__ = ["named_output"]


@contextmanager
def named_output(
    attribution: Attribution | None, inputs: tuple[Tensor, ...], arguments: dict[str, Any]
) -> Iterator[None]:
    """Raise ValueError for an error in the block if the model returns no tensor.

    Captum would raise an AttributeError of its own. The model is called again only after an error.
    """
    try:
        yield
    except (NotDifferentiableError, ValueError):
        raise
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError):
        method = getattr(attribution, "attribution_method", attribution)
        forward_func = getattr(method, "forward_func", None)
        if forward_func is None:
            raise
        try:
            with torch.no_grad():
                output = call_forward(
                    forward_func, inputs, arguments.get("additional_forward_args")
                )
        except Exception:
            output = inputs[0]  # the error was that of the model
        check_output(output)
        raise
