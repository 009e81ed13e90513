"""Parameters of the caller's functions."""

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["further_required"]


def further_required(function: Callable[..., Any]) -> set[str]:
    """Return the names of the parameters after the first that have no default.

    The set is empty for functions without a signature, such as some of C.

    >>> further_required(lambda points, rows, scale=2.0: points)
    {'rows'}
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return set()
    fixed = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in parameters[1:] if p.default is p.empty and p.kind not in fixed}
