"""Dataclasses as JSON, with NaN as null."""

import math
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

__all__ = ["decode", "encode"]


def encode(value: Any) -> Any:
    """Return numbers, texts, lists and dicts of them; None for numbers that are not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: encode(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [encode(v) for v in value]
    return value


def decode(kind: Any, value: Any) -> Any:
    """Return what :func:`encode` made of a value of a type, such as ``tuple[float, ...]``.

    Raises:
        ValueError, TypeError, AttributeError: for a value of another type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return tuple(decode(arguments[0], v) for v in value)
    if origin is dict:
        return {str(name): decode(arguments[1], v) for name, v in value.items()}
    if origin in (Union, UnionType):  # with None
        return None if value is None else decode(arguments[0], value)
    if is_dataclass(kind):
        return _decode_dataclass(kind, value)
    if kind is float:
        return math.nan if value is None else float(value)
    return kind(value)


def _decode_dataclass(kind: Any, value: Any) -> Any:
    names = {f.name for f in fields(kind)}
    if set(value) != names:
        raise ValueError(f"{kind.__name__} with {sorted(set(value) ^ names)}")
    kinds = get_type_hints(kind)
    return kind(**{name: decode(kinds[name], v) for name, v in value.items()})
