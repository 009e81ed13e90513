"""Attributions by name: one registry for ``captum-robust audit`` and ``captum-robust run``."""

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

__all__ = [
    "ATTRIBUTIONS", "OTHER_NAMES", "Chosen", "Explained", "NamedAttribution", "resolve",
]  # fmt: skip

#: An attribution, or one with further arguments of its ``attribute``.
Explained = Attribution | tuple[Attribution, dict[str, Any]]
#: Names, attributions, or attributions by a name of the caller's own.
Chosen = str | Attribution | Sequence[str | Attribution] | Mapping[str, Explained]

#: Fraction of the range of the inputs that is the standard deviation of SmoothGrad's noise.
_NOISE_LEVEL = 0.15


class NamedAttribution(NamedTuple):
    """An attribution that has a name.

    Attributes:
        make: makes Captum's attribution of a model.
        arguments: arguments of its ``attribute`` that are not Captum's defaults.
        is_noisy: whether it adds noise, whose standard deviation depends on the data.
        is_costly: whether a map takes many gradients.
    """

    make: Callable[[Any], Attribution]
    arguments: Mapping[str, Any] = {}
    is_noisy: bool = False
    is_costly: bool = False

    def arguments_with(self, noise: float) -> dict[str, Any]:
        """Return the arguments of ``attribute``, with a standard deviation of the noise."""
        return {**self.arguments, "stdevs": noise} if self.is_noisy else dict(self.arguments)


#: The attributions that have a name. SmoothGrad has 50 draws, as in the R2ET paper; integrated
#: gradients have 50 steps, Captum's default.
ATTRIBUTIONS: dict[str, NamedAttribution] = {
    "saliency": NamedAttribution(Saliency),
    "smoothgrad": NamedAttribution(
        lambda model: NoiseTunnel(Saliency(model)), {"nt_type": "smoothgrad", "nt_samples": 50},
        is_noisy=True, is_costly=True,
    ),
    "ig": NamedAttribution(IntegratedGradients, is_costly=True),
    "input_x_gradient": NamedAttribution(InputXGradient),
    "deep_lift": NamedAttribution(DeepLift),
    "guided_backprop": NamedAttribution(GuidedBackprop),
    "feature_ablation": NamedAttribution(FeatureAblation, is_costly=True),
}  # fmt: skip

#: Other spellings that are accepted.
OTHER_NAMES = {"smooth_grad": "smoothgrad", "integrated_gradients": "ig"}


def resolve(
    chosen: Chosen, model: nn.Module, inputs: Inputs
) -> dict[str, tuple[Attribution, dict[str, Any]]]:
    """Return attributions and their arguments by name, from any form in which they are given."""
    if isinstance(chosen, Mapping):
        given = {str(name): _with_arguments(name, value) for name, value in chosen.items()}
    else:
        several = [chosen] if isinstance(chosen, str | Attribution) else list(chosen)
        noise = _NOISE_LEVEL * _range(as_tuple(inputs))
        given = {}
        for one in several:
            name, found = _one(one, model, noise)
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
    given: Any, model: nn.Module, noise: float
) -> tuple[str, tuple[Attribution, dict[str, Any]]]:
    """Return an attribution and its arguments with its name, in the caller's spelling."""
    if isinstance(given, Attribution):
        return type(given).__name__, (given, {})
    name = OTHER_NAMES.get(given, given) if isinstance(given, str) else ""
    if name not in ATTRIBUTIONS:
        raise ValueError(
            f"attributions must be Captum attributions or any of {', '.join(ATTRIBUTIONS)}; "
            f"got {given!r}"
        )
    named = ATTRIBUTIONS[name]
    return given, (named.make(model), named.arguments_with(noise))


def _with_arguments(name: Any, given: Any) -> tuple[Attribution, dict[str, Any]]:
    attribution, arguments = given if isinstance(given, tuple) else (given, {})
    if not isinstance(attribution, Attribution):
        raise ValueError(
            f"attributions[{name!r}] must be a Captum attribution, or one and the arguments of its "
            f"attribute, got {given!r}"
        )
    return attribution, dict(arguments)


def _range(inputs: tuple[Tensor, ...]) -> float:
    """Return the largest range of the finite values of an input; 1 where all are equal."""
    values = [t.detach()[t.detach().isfinite()].double() for t in inputs]
    ranges = [float(v.max() - v.min()) for v in values if len(v)]
    return max(ranges, default=0.0) or 1.0
