"""Smooth activations in place of the ReLU family, whose second derivative is zero."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_robust.attr._caller import calling_module

__all__ = ["smooth_relu", "unsmoothed"]

# Calls in the source of these packages are arithmetic on points, maps and results, such as the
# clamp that keeps a point in its ball. The exceptions are models, and the call of a forward
# function, which may be `F.relu` itself.
_ARITHMETIC = ("captum.attr.", "captum.metrics.", "captum.robust.", "captum_robust.")
_MODELS = ("captum_robust.models.", "captum_robust.testing.models", "captum_robust._utils.captum")

# True inside of :func:`unsmoothed`, in this thread.
_paused: ContextVar[bool] = ContextVar("smooth_relu is paused", default=False)


class smooth_relu(TorchFunctionMode):
    r"""Context in which the ReLU family is smooth.

    A ReLU becomes the softplus :math:`\frac{1}{\beta} \log(1 + e^{\beta x})`, and every other
    member is written with it: LeakyReLU and PReLU as :math:`a x + (1 - a)\,relu(x)`, RReLU with
    its mean slope, ReLU6, Hardtanh and ``clamp`` as :math:`l + relu(x - l) - relu(x - u)`,
    Hardsigmoid and Hardswish as :math:`h = relu6(x + 3) / 6` and :math:`x\,h`.
    Modules, functions, tensor methods and in-place forms are all replaced, also where a model
    uses ``clamp`` as a guard (``norm.clamp(min=1e-12)``). Calls in the source of Captum and of this
    library are not replaced, such as the ReLU of Captum on finished attributions, and the clamps
    that keep an attack or noise inside its ball and bounds; nor are those of a ``project`` of the
    caller. The model itself is not changed, and other threads are not affected.

    Max-pooling stays exact: it selects the same entries under small perturbations, so its own
    second derivative stays zero, and only the activations contribute one. Calls that Python does
    not make are not replaced: ReLUs inside TorchScript, compiled models and recurrent kernels
    (``nn.RNN(nonlinearity="relu")``). The same goes for calls with ``out=``, which
    torch cannot differentiate.

    Source: Dombrowski et al. 2019 (arXiv 1906.07983) for the softplus; ``forward="exact"`` is the
    same derivative behind the unchanged forward values.

    Args:
        beta (float, optional): sharpness :math:`\beta > 0`; the larger, the closer to ReLU.
            Default: 10.
        forward (str, optional): ``"smooth"``: values and derivatives of the softplus.
            ``"exact"``: values of the ReLU, derivatives of all orders of the softplus.

    Raises:
        ValueError: for a beta that is not positive and finite, or another ``forward``.

    Examples::

        >>> x = torch.zeros(1, requires_grad=True)
        >>> with smooth_relu(beta=10.0):
        ...     y = torch.relu(x)
        >>> y                                                            # log(2) / 10
        tensor([0.0693], grad_fn=<SoftplusBackward0>)
        >>> with smooth_relu(beta=10.0, forward="exact"):
        ...     y = torch.relu(x)
        >>> y.item(), torch.autograd.grad(y.sum(), x)[0].item()
        (0.0, 0.5)
    """

    def __init__(self, beta: float = 10.0, forward: Literal["smooth", "exact"] = "smooth") -> None:
        super().__init__()
        if not 0 < beta < math.inf:
            raise ValueError(f"beta must be positive and finite, got {beta}")
        if forward not in ("smooth", "exact"):
            raise ValueError(f"forward must be 'smooth' or 'exact', got {forward!r}")
        self.beta = beta
        self.forward = forward

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        rule = _RULES.get(func)
        if rule is None or not _applies(args, kwargs):
            return func(*args, **kwargs)
        x, smooth, in_place = rule(self.beta, *args, **kwargs)
        if self.forward == "exact":
            exact = _exact(func, x.detach().clone() if in_place else x.detach(), args, kwargs)
            smooth = _Exact.apply(exact, smooth)  # type: ignore[no-untyped-call]
        if in_place:  # the caller may use the tensor that was changed
            return x.copy_(smooth)
        return smooth


@contextmanager
def unsmoothed() -> Iterator[None]:
    """Pause :class:`smooth_relu` for a function of the caller that belongs to no model."""
    token = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(token)


def _applies(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a model calls the function, and does so on real numbers."""
    x = args[0] if args else kwargs.get("input")
    if not isinstance(x, Tensor) or not x.is_floating_point() or "out" in kwargs or _paused.get():
        return False
    caller = calling_module()
    return caller.startswith(_MODELS) or not caller.startswith(_ARITHMETIC)


class _Exact(torch.autograd.Function):
    """Value of the first argument with the derivatives of the second."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, gradient


def _exact(
    func: Callable[..., Any], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Call the replaced function with ``x`` as its first argument."""
    others = {name: value for name, value in kwargs.items() if name != "input"}
    value: Tensor = func(x, *args[1:], **others)
    return value


# Each rule takes beta and the arguments of the functions that it replaces, and returns the input,
# the smooth value, and whether the caller wants the input overwritten.
_Smoothed = tuple[Tensor, Tensor, bool]


def _softplus(x: Tensor, beta: float) -> Tensor:
    # Linear only where float64 cannot tell the difference; torch's threshold of 20 leaves a step.
    return F.softplus(x, beta=beta, threshold=40)


def _relu(beta: float, input: Tensor, inplace: bool = False) -> _Smoothed:
    return input, _softplus(input.clone() if inplace else input, beta), inplace


def _leaky(x: Tensor, slope: float | Tensor, beta: float) -> Tensor:
    return slope * x + (1 - slope) * _softplus(x, beta)


def _leaky_relu(
    beta: float, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> _Smoothed:
    x = input.clone() if inplace else input
    return input, _leaky(x, negative_slope, beta), inplace


def _prelu(beta: float, input: Tensor, weight: Tensor) -> _Smoothed:
    if weight.numel() > 1:  # one slope per channel
        weight = weight.reshape(-1, *(1,) * max(input.dim() - 2, 0))
    return input, _leaky(input, weight, beta), False


def _rrelu(
    beta: float,
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> _Smoothed:
    return _leaky_relu(beta, input, (lower + upper) / 2, inplace)


def _clip(x: Tensor, low: Any, high: Any, beta: float) -> Tensor:
    """``low + relu(x - low) - relu(x - high)``, written so that no large numbers cancel."""
    if low is None:
        return -_clip(-x, -high, None, beta)
    if high is not None:  # where the bounds cross, torch gives the upper one
        low = torch.minimum(low, high) if isinstance(low, Tensor) else min(low, high)
    raised = torch.where(x < low, low + _softplus(x - low, beta), x + _softplus(low - x, beta))
    if high is None:
        return raised
    above = high - _softplus(high - x, beta) + _softplus(low - x, beta)
    return torch.where(x < high, raised - _softplus(x - high, beta), above)


def _hardtanh(
    beta: float,
    input: Tensor,
    min_val: float = -1.0,
    max_val: float = 1.0,
    inplace: bool = False,
) -> _Smoothed:
    x = input.clone() if inplace else input
    return input, _clip(x, min_val, max_val, beta), inplace


def _relu6(beta: float, input: Tensor, inplace: bool = False) -> _Smoothed:
    return _hardtanh(beta, input, 0.0, 6.0, inplace)


def _hardsigmoid(beta: float, input: Tensor, inplace: bool = False) -> _Smoothed:
    x = input.clone() if inplace else input
    return input, _clip(x + 3, 0.0, 6.0, beta) / 6, inplace


def _hardswish(beta: float, input: Tensor, inplace: bool = False) -> _Smoothed:
    x = input.clone() if inplace else input
    return input, x * _clip(x + 3, 0.0, 6.0, beta) / 6, inplace


def _clamp(beta: float, input: Tensor, min: Any = None, max: Any = None, **_: Any) -> _Smoothed:
    return input, _clip(input, min, max, beta), False


def _clamp_min(beta: float, input: Tensor, min: Any) -> _Smoothed:
    return _clamp(beta, input, min=min)


def _clamp_max(beta: float, input: Tensor, max: Any) -> _Smoothed:
    return _clamp(beta, input, max=max)


def _in_place(rule: Callable[..., _Smoothed]) -> Callable[..., _Smoothed]:
    """Return the rule of the in-place form of a function."""

    def overwriting(beta: float, input: Tensor, *args: Any, **kwargs: Any) -> _Smoothed:
        _, smooth, _ = rule(beta, input.clone(), *args, **kwargs)
        return input, smooth, True

    return overwriting


_RULES: dict[Any, Callable[..., _Smoothed]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((F.relu_, torch.relu_, Tensor.relu_), _in_place(_relu)),
    F.leaky_relu: _leaky_relu,
    F.leaky_relu_: _in_place(_leaky_relu),
    **dict.fromkeys((F.prelu, torch.prelu, Tensor.prelu), _prelu),
    **dict.fromkeys((F.rrelu, torch.rrelu), _rrelu),
    **dict.fromkeys((F.rrelu_, torch.rrelu_), _in_place(_rrelu)),
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    F.hardtanh_: _in_place(_hardtanh),
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip), _clamp),
    **dict.fromkeys((torch.clamp_, torch.clip_, Tensor.clamp_, Tensor.clip_), _in_place(_clamp)),
    **dict.fromkeys((torch.clamp_min, Tensor.clamp_min), _clamp_min),
    **dict.fromkeys((torch.clamp_min_, Tensor.clamp_min_), _in_place(_clamp_min)),
    **dict.fromkeys((torch.clamp_max, Tensor.clamp_max), _clamp_max),
    **dict.fromkeys((torch.clamp_max_, Tensor.clamp_max_), _in_place(_clamp_max)),
}
