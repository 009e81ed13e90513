"""Contexts that keep the graph through Captum's attributions and change nothing in Captum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_robust.attr._attention import call_with_math_attention, is_attention
from captum_robust.attr._caller import calling_module

__all__ = ["differentiable_attribution", "summed_gradients"]

_SET_GRAD_ENABLED = torch._C._set_grad_enabled
_GRAD = torch.autograd.grad


def _sum_of_outputs(outputs: Tensor) -> tuple[Tensor, ...]:
    one_an_example = outputs.dim() > 0 and outputs.numel() == len(outputs)
    return (outputs.sum(),) if one_an_example else outputs.unbind()


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _keep_double(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


# Functions that Captum calls for the speed of single examples, to save memory, or in a lower
# precision than the model's: the modules that call them, and the replacement.
_Rewriting = tuple[tuple[str, ...], Callable[..., Any]]
_GRADIENT = "captum._utils.gradient"
_LAYER_IG = "captum.attr._core.layer.layer_integrated_gradients"
_SUMMED: dict[Any, _Rewriting] = {torch.unbind: ((_GRADIENT, _LAYER_IG), _sum_of_outputs)}
_REWRITTEN: dict[Any, _Rewriting] = {
    **_SUMMED,
    # The chunks of internal_batch_size; the layer outputs of offload_to_cpu.
    Tensor.detach: (("captum.attr._utils.batching", _GRADIENT), _same),
    # The weighted sums of Occlusion.
    Tensor.float: (("captum.attr._core.feature_ablation",), _keep_double),
    # The float32 accumulators of Shapley values: adding out of place takes the wider type.
    Tensor.add_: (("captum.attr._core.shapley_value",), torch.add),
}


def _rewritten(func: Callable[..., Any], rewritings: dict[Any, _Rewriting]) -> Callable[..., Any]:
    """Return the replacement of ``func`` for the module that called it."""
    if func not in rewritings:
        return func
    modules, replacement = rewritings[func]
    return replacement if calling_module() in modules else func


class summed_gradients(TorchFunctionMode):
    """Let Captum differentiate the sum of the outputs instead of each output on its own.

    ``captum._utils.gradient`` takes the gradient of ``torch.unbind(outputs)``, with one graph root
    per example. The gradient of the sum is the same, and up to 40 times faster for large batches of
    small models.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _rewritten(func, _SUMMED)(*args, **(kwargs or {}))


class differentiable_attribution(TorchFunctionMode):
    r"""Context in which any Captum attribution is differentiable.

    Inside the block ``attribute`` returns attributions whose graph reaches the inputs and the
    parameters: the gradients that Captum takes keep their graph, Captum's own ``no_grad`` blocks
    and ``detach`` calls have no effect, the sums of Occlusion and Shapley values stay in float64,
    and attention uses the math kernel, because fused kernels have no second derivative. The
    ``no_grad`` and ``detach`` of the model itself keep their effect. The context is thread-local
    and changes neither Captum nor the attribution nor the model. Differentiate the attributions
    outside the block. A further derivative, of that gradient, is wrong for models with layer or
    instance normalisation, or with batch normalisation in training mode; the losses of
    :mod:`captum_robust.loss` correct this.

    Exact for Saliency, InputXGradient, IntegratedGradients, NoiseTunnel, GradientShap, the
    ablation and Shapley sampling family, and the layer and neuron versions of gradient methods;
    see :func:`~captum_robust.attr.is_differentiable` for those that are not. Not supported:
    models compiled by ``torch.compile`` (pass the original module) and cuDNN recurrent networks
    (disable cuDNN around the forward), whose second derivatives torch does not implement.

    Args:
        packages (tuple[str, ...], optional): prefixes of the modules whose ``no_grad`` has no
            effect. Add your own package for an attribution of yours that uses ``no_grad``.

    Examples::

        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2))
        >>> x = torch.ones(2, 3, requires_grad=True)
        >>> with differentiable_attribution():
        ...     maps = Saliency(model).attribute(x, target=1)
        >>> torch.autograd.grad(maps.sum(), x)[0].shape
        torch.Size([2, 3])
    """

    def __init__(self, packages: tuple[str, ...] = ("captum.",)) -> None:
        super().__init__()
        self.packages = tuple(packages)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        if is_attention(func):
            return call_with_math_attention(func, *args, **kwargs)
        if func is _GRAD:
            kwargs = {**kwargs, "create_graph": True}
        elif func is _SET_GRAD_ENABLED and args[0] is False:
            args = (calling_module().startswith(self.packages),)
        return _rewritten(func, _REWRITTEN)(*args, **kwargs)
