"""Which of Captum's attributions have a correct derivative, and a numerical check of it."""

from typing import Any

import torch
from captum.attr import (
    LRP,
    Attribution,
    DataLoaderAttribution,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    GuidedBackprop,
    GuidedGradCam,
    KernelShap,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerLRP,
    Lime,
    LimeBase,
    LLMAttribution,
    LLMGradientAttribution,
    NeuronDeconvolution,
    NeuronDeepLift,
    NeuronDeepLiftShap,
    NeuronGuidedBackprop,
)
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust._utils.derivatives import NotDifferentiableError
from captum_robust._utils.eager import is_compiled
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found, models_of
from captum_robust.attr.differentiable import differentiable_attribution

__all__ = [
    "NotDifferentiableError",
    "attribution_gradcheck",
    "is_differentiable",
    "require_differentiable",
]

# Rescale rules and relevance rules act through hooks that a second backward pass runs again, Lime
# and KernelShap fit a linear model outside torch, and the last three return no maps of tensors.
_NEVER = (
    DeepLift,
    DeepLiftShap,
    LayerDeepLift,
    LayerDeepLiftShap,
    NeuronDeepLift,
    NeuronDeepLiftShap,
    LRP,
    LayerLRP,
    Lime,
    LimeBase,
    KernelShap,
    DataLoaderAttribution,
    LLMAttribution,
    LLMGradientAttribution,
)
# These hook every nn.ReLU; without one they are the plain gradient.
_NOT_ON_RELU = (
    GuidedBackprop,
    Deconvolution,
    GuidedGradCam,
    NeuronGuidedBackprop,
    NeuronDeconvolution,
)


def is_differentiable(attribution: Attribution) -> bool:
    r"""Return whether an attribution has a correct gradient in our context.

    The context is :class:`~captum_robust.attr.differentiable_attribution`.

    False for DeepLift, DeepLiftShap, LRP, Lime and KernelShap with their layer and neuron
    versions; for GuidedBackprop, Deconvolution and GuidedGradCam on models with ``nn.ReLU``; for
    models compiled by ``torch.compile``; for language model and DataLoader attributions, which
    take no tensors; and for a NoiseTunnel of one of these. True for Captum's other attributions.
    For an attribution of your own the result is True unless its attribute ``differentiable`` is
    False: check it once with :func:`~captum_robust.attr.attribution_gradcheck`.

    Args:
        attribution (Attribution): a Captum attribution object.

    Returns:
        - **differentiable** (*bool*)

    Examples::

        >>> from captum.attr import DeepLift, NoiseTunnel, Saliency
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> is_differentiable(NoiseTunnel(Saliency(model)))
        True
        >>> is_differentiable(NoiseTunnel(DeepLift(model)))
        False
    """
    return _obstacle(attribution) is None


def require_differentiable(attribution: Attribution) -> None:
    """Raise NotDifferentiableError, naming the alternatives, unless it is differentiable."""
    obstacle = _obstacle(attribution)
    if obstacle is not None:
        raise NotDifferentiableError(
            f"{obstacle}. Alternatives: gradient='spsa', which needs no such gradient; "
            "surrogate=, a differentiable attribution whose gradient is used while this one is "
            "scored (IntegratedGradients or InputXGradient come close to DeepLift and LRP)"
        )


def _obstacle(attribution: Attribution) -> str | None:
    method: Any = attribution
    while hasattr(method, "attribution_method"):  # NoiseTunnel
        method = method.attribution_method
    name = type(method).__name__
    modules = [module for model in models_of(method) for module in model.modules()]
    if isinstance(method, _NEVER) or getattr(method, "differentiable", None) is False:
        return f"{name} has no correct gradient under autograd"
    if isinstance(method, _NOT_ON_RELU) and any(isinstance(m, nn.ReLU) for m in modules):
        return f"{name} has no correct gradient on models with nn.ReLU"
    if any(is_compiled(part) for part in [getattr(method, "forward_func", None), *modules]):
        return (
            "torch.compile does not support second derivatives: explain the original module "
            "(model._orig_mod)"
        )
    return None


def attribution_gradcheck(
    attribution: Attribution,
    inputs: Inputs,
    *,
    n_directions: int = 4,
    eps: float = 1e-5,
    seed: int = 0,
    **kwargs: Any,
) -> float:
    r"""Compare the gradient of an attribution with central differences and return the error.

    For random weights w and directions v the derivative :math:`\partial_v \langle w, I(x)\rangle`
    is taken by autograd and as :math:`(\langle w, I(x + \epsilon v)\rangle - \langle w, I(x -
    \epsilon v)\rangle) / 2\epsilon`. All evaluations see the same random numbers, so stochastic
    attributions can be checked too. Use a float64 model without kinks: at the kink of a ReLU the
    two derivatives differ although both are correct.

    Args:
        attribution (Attribution): a Captum attribution object.
        inputs (Tensor or tuple[Tensor, ...]): floating point inputs, examples along dimension 0.
        n_directions (int, optional): number of random pairs (w, v). Default: 4.
        eps (float, optional): :math:`\epsilon`, in units of the inputs. Default: 1e-5.
        seed (int, optional): seed of directions and of the attribution's own randomness.
        **kwargs: passed to ``attribution.attribute``.

    Returns:
        - **error** (*float*): largest difference, relative to the larger of the two derivatives'
          magnitudes over all directions; below 1e-6 for a correct gradient in float64.

    Raises:
        NotDifferentiableError: if :func:`is_differentiable` returns False.

    Examples::

        >>> from captum.attr import IntegratedGradients
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 2)).double()
        >>> x = torch.ones(2, 3, dtype=torch.float64)
        >>> attribution_gradcheck(IntegratedGradients(model), x, target=1) < 1e-6
        True
    """
    require_differentiable(attribution)
    points = tuple(t.detach() for t in as_tuple(inputs))

    def maps_at(*tensors: Tensor) -> tuple[Tensor, ...]:
        with seeded(seed), torch.enable_grad(), differentiable_attribution():
            return as_tuple(
                attribution.attribute(format_like(inputs, tensors), **kwargs), "attributions"
            )

    with left_as_found(attribution):
        leaves = tuple(t.clone().requires_grad_() for t in points)
        maps = maps_at(*leaves)
        generator = torch.Generator().manual_seed(seed)
        analytic, numeric = [], []
        for _ in range(n_directions):
            weights = tuple(_normal_like(m, generator) for m in maps)
            moves = tuple(_normal_like(t, generator) for t in points)
            analytic.append(_dot(_gradients(maps, weights, leaves), moves))
            ahead, behind = (
                maps_at(*((p + s * v).requires_grad_() for p, v in zip(points, moves, strict=True)))
                for s in (eps, -eps)
            )
            numeric.append((_dot(weights, ahead) - _dot(weights, behind)) / (2 * eps))
    derivatives = torch.tensor([analytic, numeric], dtype=torch.float64)
    error, scale = derivatives.diff(dim=0).abs().max(), derivatives.abs().max()
    return 0.0 if scale == 0 else float(error / scale)  # NaN stays NaN


def _gradients(
    maps: tuple[Tensor, ...], weights: tuple[Tensor, ...], leaves: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    attached = [(m, w) for m, w in zip(maps, weights, strict=True) if m.requires_grad]
    if not attached:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    outputs, outer = zip(*attached, strict=True)
    gradients = torch.autograd.grad(outputs, leaves, outer, retain_graph=True, allow_unused=True)
    return tuple(
        torch.zeros_like(leaf) if g is None else g
        for leaf, g in zip(leaves, gradients, strict=True)
    )


def _normal_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor)


def _dot(left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> float:
    return sum(float((a.detach() * b.detach()).sum()) for a, b in zip(left, right, strict=True))
