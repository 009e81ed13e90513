"""Checks of the arguments of attacks: errors name the argument, its value and what is accepted."""

import math
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.tensors import wide_dtype

__all__ = [
    "check_choice",
    "check_count",
    "check_finite",
    "check_movable",
    "check_norm",
    "check_not_nan",
    "check_radius",
    "check_smoothness",
    "matching",
    "one_each",
    "one_number",
    "radius_of_examples",
    "valid_bounds",
]


def check_choice(name: str, value: Any, accepted: tuple[Any, ...]) -> None:
    """Raise ValueError unless the value is one of the accepted values."""
    if value not in accepted:
        raise ValueError(f"{name} must be one of {accepted}, got {value!r}")


def check_count(name: str, value: int, least: int) -> None:
    """Raise ValueError unless the value is an integer that is large enough."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_not_nan(name: str, value: float | Tensor) -> None:
    """Raise ValueError for a number or a tensor with NaN."""
    if bool(torch.as_tensor(value).isnan().any()):
        raise ValueError(f"{name} must hold numbers, got NaN")


def check_finite(name: str, points: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
    """Raise ValueError for points that are not finite where the examples are."""
    for point, example in zip(points, inputs, strict=True):
        broken = ~point.isfinite() & example.isfinite()
        if bool(broken.any()):
            rows = broken.flatten(1).any(dim=1).nonzero()[:, 0].tolist()
            raise ValueError(f"{name} must be finite, got NaN or infinity for the examples {rows}")


def check_norm(norm: str) -> None:
    """Raise ValueError unless ``norm`` is one of Captum's two."""
    if norm not in ("Linf", "L2"):
        raise ValueError(f"norm must be 'Linf' or 'L2', got {norm!r}")


def check_movable(inputs: tuple[Tensor, ...]) -> None:
    """Raise ValueError unless noise can move one of the inputs: integers have no neighbours."""
    if not any(tensor.is_floating_point() for tensor in inputs):
        dtypes = ", ".join(str(tensor.dtype) for tensor in inputs)
        raise ValueError(
            f"inputs must be floating point for noise to move them, got {dtypes}: an explanation "
            "that cannot change would look stable. Explain embeddings instead of token ids, floats "
            "instead of bytes; or pass a perturb_func that substitutes values (words, categories, "
            "bits), for edges of graphs captum_robust.graph.EdgeFlipAttack"
        )


def check_radius(radius: float | Tensor, name: str = "radius") -> None:
    """Raise ValueError unless the radius is finite and not negative."""
    values = torch.as_tensor(radius, dtype=torch.float64)
    if not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ValueError(f"{name} must be finite and not negative, got {radius}")


def check_smoothness(beta: float | tuple[float, float] | None) -> None:
    """Raise ValueError unless beta is None, a positive finite number, or a pair of them."""
    given = beta if isinstance(beta, tuple) else (beta, beta)
    if beta is not None and not (len(given) == 2 and all(b and 0 < b < math.inf for b in given)):
        raise ValueError(
            "smooth_relu must be a positive, finite beta, a pair of them for the first and the "
            f"last step, or None, got {beta}"
        )


def one_each(name: str, value: float | Tensor, n_examples: int, like: Tensor) -> Tensor:
    """Return one number per example, finite and not negative, in at least single precision."""
    check_radius(value, name)
    values = torch.as_tensor(value, dtype=wide_dtype(like), device=like.device).detach()
    if values.dim() > 1 or values.numel() not in (1, n_examples):
        raise ValueError(
            f"{name} must be a number or a tensor of shape ({n_examples},), "
            f"got shape {tuple(values.shape)}"
        )
    return values.reshape(-1).expand(n_examples)


def radius_of_examples(name: str, radius: float | Tensor, n_examples: int) -> float | Tensor:
    """Return a radius of all examples as a number, and others as one per example, (N,)."""
    check_radius(radius, name)
    values = _exact(radius).detach()
    if values.numel() == 1 and values.dim() <= 1:
        return float(values)
    if tuple(values.shape) != (n_examples,):
        raise ValueError(
            f"{name} must be a number or a tensor of shape ({n_examples},), "
            f"got shape {tuple(values.shape)}"
        )
    return values


def one_number(name: str, value: float | Tensor) -> float:
    """Return an argument that is one number for all examples."""
    values = _exact(value)
    if values.numel() != 1:
        raise ValueError(f"{name} must be a number, got a tensor of shape {tuple(values.shape)}")
    return float(values)


def matching(
    name: str, given: Inputs, inputs: tuple[Tensor, ...], broadcast: bool = False
) -> tuple[Tensor, ...]:
    """Return one tensor per input tensor, of its shape; broadcast to it if ``broadcast``."""
    tensors = (given,) if isinstance(given, Tensor) else tuple(given)
    shapes, expected = [tuple(t.shape) for t in tensors], [tuple(t.shape) for t in inputs]
    fits = len(shapes) == len(expected) and all(
        s == e or (broadcast and _broadcasts(s, e)) for s, e in zip(shapes, expected, strict=True)
    )
    if not fits:
        like = "shapes that broadcast to those" if broadcast else "the shapes"
        raise ValueError(f"{name} must have {like} of the inputs, {expected}, got {shapes}")
    return tuple(t.detach().to(i).expand_as(i) for t, i in zip(tensors, inputs, strict=True))


def valid_bounds(
    lower_bound: float | Tensor, upper_bound: float | Tensor, inputs: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the bounds of every feature, widened to inputs beyond them by a rounding error."""
    lowest, highest = [], []
    check_not_nan("lower_bound", lower_bound)
    check_not_nan("upper_bound", upper_bound)
    for tensor in inputs:
        if not tensor.is_floating_point():
            raise ValueError(f"inputs must be floating point tensors, got {tensor.dtype}")
        lower, upper = (
            matching(name, _exact(bound), (tensor,), broadcast=True)[0]
            for name, bound in (("lower_bound", lower_bound), ("upper_bound", upper_bound))
        )
        slack = 1e-5 * tensor.abs().clamp_min(1)
        if bool(((tensor < lower - slack) | (tensor > upper + slack)).any()):
            raise ValueError(
                "inputs must lie between lower_bound and upper_bound, got values in "
                f"[{float(tensor.min())}, {float(tensor.max())}]"
            )
        lowest.append(torch.minimum(lower, tensor))
        highest.append(torch.maximum(upper, tensor))
    return tuple(lowest), tuple(highest)


def _exact(bound: float | Tensor) -> Tensor:
    """Return a number as a tensor in double precision: torch's default dtype would round it."""
    return bound if isinstance(bound, Tensor) else torch.tensor(bound, dtype=torch.float64)


def _broadcasts(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    try:
        return tuple(torch.broadcast_shapes(shape, expected)) == expected
    except RuntimeError:
        return False
