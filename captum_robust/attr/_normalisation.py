"""Normalisation composed of elementary operations, with correct derivatives of every order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["composed_normalisation"]


class composed_normalisation(TorchFunctionMode):
    """Context in which batch, instance and layer normalisation have correct third derivatives.

    The second derivatives of torch's own kernels treat the statistics of the inputs as constants,
    so that their derivatives are wrong: for example the gradient, by the parameters, of a loss that
    contains a Hessian by the inputs. Inside the block the three are composed of elementary
    operations, which takes more time and memory; torch still checks sizes, updates running
    statistics and chooses types. Group normalisation is correct as it is, as is batch normalisation
    by running statistics. Calls below ``torch.nn.functional`` are not intercepted.

    Attributes:
        couples_examples (bool): True once batch statistics have been used, so that the output of
            an example depends on the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.couples_examples = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if func is F.batch_norm and kwargs["training"]:  # torch names it, whatever its caller does
            self.couples_examples = True
        composed: Callable[..., Any] = _COMPOSED.get(func, func)
        return composed(*args, **kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    given = (running_mean, running_var, weight, bias, training, momentum, eps)
    if not training:  # the statistics are constants indeed
        return F.batch_norm(input, *given)
    with torch.no_grad():
        own = F.batch_norm(input, *given)
    dims = [d for d in range(input.dim()) if d != 1]
    affine = _of_channels(weight, input), _of_channels(bias, input)
    return _normalised(input, dims, affine, eps).to(own.dtype)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    given = (running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    if not use_input_stats:
        return F.instance_norm(input, *given)
    with torch.no_grad():
        own = F.instance_norm(input, *given)
    dims = range(2, input.dim())
    affine = _of_channels(weight, input), _of_channels(bias, input)
    return _normalised(input, dims, affine, eps).to(own.dtype)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    with torch.no_grad():
        own = F.layer_norm(input, normalized_shape, weight, bias, eps)
    dims = range(input.dim() - len(normalized_shape), input.dim())
    return _normalised(input, dims, (weight, bias), eps).to(own.dtype)


_COMPOSED: dict[Any, Callable[..., Tensor]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.layer_norm: _layer_norm,
}


def _of_channels(values: Tensor | None, input: Tensor) -> Tensor | None:
    """Return the weight or bias of the channels in a shape that broadcasts to the inputs."""
    return None if values is None else values.view(-1, *(1,) * (input.dim() - 2))


def _normalised(
    input: Tensor, dims: Sequence[int], affine: tuple[Tensor | None, Tensor | None], eps: float
) -> Tensor:
    """Normalise to zero mean and unit biased variance over ``dims``; float32 for half precision."""
    values = input.to(torch.promote_types(input.dtype, torch.float32))
    centred = values - values.mean(tuple(dims), keepdim=True)
    found = centred * (centred.square().mean(tuple(dims), keepdim=True) + eps).rsqrt()
    weight, bias = affine
    if weight is not None:
        found = found * weight
    return found if bias is None else found + bias
