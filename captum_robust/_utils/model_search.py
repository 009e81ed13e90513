"""The modules that an attribution or a forward function calls."""

import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

from captum.attr import Attribution
from torch import nn

__all__ = ["models_of"]

_MOST_LOOKED_AT = 500


def models_of(explainer: Any) -> list[nn.Module]:
    """Return the modules behind an attribution, its ``attribute`` method, or a forward function.

    For a module, or an attribution of one, this is the module itself. For another function these
    are the modules that its code names: in its closure, among the globals and the defaults, bound
    by ``functools.partial``, in attributes of the object of a method, in lists and dicts of these,
    and behind functions of the same kinds. Some of them may be named and not called. The list is
    empty where no module is found, such as for a compiled or a built-in function.
    """
    innermost = explainer
    for inner in ("__self__", "attribution_method", "forward_func", "func", "__self__"):
        if isinstance(innermost, nn.Module):
            break
        innermost = getattr(innermost, inner, innermost)
    if isinstance(innermost, nn.Module):
        return [innermost]
    queue, seen, models = [explainer], set[int](), list[nn.Module]()
    while queue and len(seen) < _MOST_LOOKED_AT:
        item = queue.pop(0)
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module):
            models.append(item)
        else:
            queue += _named_by(item)
    return models


def _named_by(item: Any) -> list[Any]:
    """Return the objects that a function or a container names."""
    if isinstance(item, functools.partial):
        return [item.func, *item.args, *item.keywords.values()]
    if isinstance(item, Attribution):
        return list(vars(item).values())
    if isinstance(item, MethodType):
        return [item.__func__, *getattr(item.__self__, "__dict__", {}).values()]
    if isinstance(item, FunctionType):
        cells = [c.cell_contents for c in item.__closure__ or () if _is_filled(c)]
        names = {name for code in _codes(item.__code__) for name in code.co_names}
        named = [item.__globals__[name] for name in sorted(names) if name in item.__globals__]
        wrapped = [item.__wrapped__] if hasattr(item, "__wrapped__") else []
        return [*wrapped, *cells, *(item.__defaults__ or ()), *named]
    if isinstance(item, list | tuple):
        return [i for i in item if isinstance(i, nn.Module)]
    if isinstance(item, dict):
        return [i for i in item.values() if isinstance(i, nn.Module)]
    call = inspect.getattr_static(type(item), "__call__", None)
    return [MethodType(call, item)] if isinstance(call, FunctionType) else []


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of a function and of the functions and comprehensions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # the variable was deleted, or has no value yet
        return False
