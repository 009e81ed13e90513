"""Attributions by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from captum.attr import (
    Attribution,
    DeepLift,
    FeatureAblation,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple

__all__ = ["ATTRIBUTIONS", "Chosen", "Explained", "resolve"]

#: An attribution, or one with further arguments of its ``attribute``.
Explained = Attribution | tuple[Attribution, dict[str, Any]]
#: Names, attributions, or attributions by a name of the caller's own.
Chosen = str | Attribution | Sequence[str | Attribution] | Mapping[str, Explained]

#: Share of the range of the inputs that is the standard deviation of SmoothGrad's noise.
_NOISE_LEVEL = 0.15


class _Named(NamedTuple):
    """How an attribution is made of a model, and the arguments that it is called with."""

    make: Callable[[Any], Attribution]
    arguments: Callable[[float], dict[str, Any]] = lambda spread: {}


#: The attributions that have a name, with the arguments that are not Captum's defaults.
ATTRIBUTIONS: dict[str, _Named] = {
    "saliency": _Named(Saliency),
    "input_x_gradient": _Named(InputXGradient),
    "integrated_gradients": _Named(IntegratedGradients, lambda spread: {"n_steps": 32}),
    "smooth_grad": _Named(
        lambda model: NoiseTunnel(Saliency(model)),
        lambda spread: {
            "nt_type": "smoothgrad", "nt_samples": 20, "stdevs": _NOISE_LEVEL * spread,
        },
    ),
    "deep_lift": _Named(DeepLift),
    "guided_backprop": _Named(GuidedBackprop),
    "feature_ablation": _Named(FeatureAblation),
}  # fmt: skip


def resolve(
    chosen: Chosen, model: nn.Module, inputs: Inputs
) -> dict[str, tuple[Attribution, dict[str, Any]]]:
    """Attributions with their arguments by name, from any form in which a caller gives them."""
    if isinstance(chosen, Mapping):
        given = {str(name): _with_arguments(name, value) for name, value in chosen.items()}
    else:
        several = [chosen] if isinstance(chosen, str | Attribution) else list(chosen)
        spread = _spread(as_tuple(inputs))
        given = {}
        for one in several:
            name, found = _one(one, model, spread)
            if name in given:
                raise ValueError(
                    f"attributions must have different names, got {name!r} twice: pass a dict with "
                    "names of your own"
                )
            given[name] = found
    if not given:
        raise ValueError("attributions must name at least one attribution, got none")
    return given


def _one(
    given: Any, model: nn.Module, spread: float
) -> tuple[str, tuple[Attribution, dict[str, Any]]]:
    if isinstance(given, Attribution):
        return type(given).__name__, (given, {})
    if not isinstance(given, str) or given not in ATTRIBUTIONS:
        raise ValueError(
            f"attributions must be Captum attributions or any of {', '.join(ATTRIBUTIONS)}; "
            f"got {given!r}"
        )
    named = ATTRIBUTIONS[given]
    return given, (named.make(model), named.arguments(spread))


def _with_arguments(name: Any, given: Any) -> tuple[Attribution, dict[str, Any]]:
    attribution, arguments = given if isinstance(given, tuple) else (given, {})
    if not isinstance(attribution, Attribution):
        raise ValueError(
            f"attributions[{name!r}] must be a Captum attribution, or one and the arguments of its "
            f"attribute, got {given!r}"
        )
    return attribution, dict(arguments)


def _spread(inputs: tuple[Tensor, ...]) -> float:
    """Largest finite value of the inputs less the smallest; 1 where there is none."""
    values = [t.detach()[t.detach().isfinite()].double() for t in inputs]
    ranges = [float(v.max() - v.min()) for v in values if len(v)]
    return max(ranges, default=0.0) or 1.0
