"""Attributions that are accepted, and a check that notices a wrong gradient."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    LRP,
    Attribution,
    DataLoaderAttribution,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    FeatureAblation,
    GradientShap,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerConductance,
    LayerDeepLift,
    LayerGradCam,
    LayerIntegratedGradients,
    Lime,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor, nn

from captum_robust.attr import (
    NotDifferentiableError,
    attribution_gradcheck,
    is_differentiable,
    smooth_relu,
)
from tests.attr.oracles import TwoInputs, compare_gradients, drawn, normal, smooth_mlp


def relu_net() -> nn.Module:
    return drawn(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))


REFUSED: dict[str, Callable[[nn.Module], Attribution]] = {
    "DeepLift": DeepLift,
    "DeepLiftShap": DeepLiftShap,
    "LayerDeepLift": lambda model: LayerDeepLift(model, model[1]),
    "LRP": LRP,
    "Lime": Lime,
    "KernelShap": KernelShap,
    "GuidedBackprop": GuidedBackprop,
    "Deconvolution": Deconvolution,
    "GuidedGradCam": lambda model: GuidedGradCam(model, model[1]),
}
ACCEPTED: dict[str, Callable[[nn.Module], Attribution]] = {
    "Saliency": Saliency,
    "InputXGradient": InputXGradient,
    "IntegratedGradients": IntegratedGradients,
    "GradientShap": GradientShap,
    "FeatureAblation": FeatureAblation,
    "Occlusion": Occlusion,
    "ShapleyValueSampling": ShapleyValueSampling,
    "LayerGradCam": lambda model: LayerGradCam(model, model[1]),
    "LayerConductance": lambda model: LayerConductance(model, model[1]),
    "LayerIntegratedGradients": lambda model: LayerIntegratedGradients(model, model[1]),
}


@pytest.mark.parametrize("tunnels", [0, 1, 2])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_on_relu_nets_with_the_alternatives(name: str, tunnels: int) -> None:
    attribution = REFUSED[name](relu_net())
    for _ in range(tunnels):
        attribution = NoiseTunnel(attribution)
    assert not is_differentiable(attribution)
    alternatives = r"gradient='spsa'.*surrogate=.*IntegratedGradients"
    with pytest.raises(NotDifferentiableError, match=f"{name} has no correct.*{alternatives}"):
        attribution_gradcheck(attribution, normal(2, 4), target=1)


@pytest.mark.parametrize("model", [relu_net, smooth_mlp])
@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, model: Callable[[], nn.Module]) -> None:
    attribution = ACCEPTED[name](model())
    assert is_differentiable(attribution)
    assert is_differentiable(NoiseTunnel(attribution))


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning")
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_guided_methods_are_the_plain_gradient_without_relu_modules(method: Any) -> None:
    attribution = method(smooth_mlp())
    assert is_differentiable(attribution)
    assert attribution_gradcheck(attribution, normal(3, 4), target=1) < 1e-6


@pytest.mark.parametrize("name", ["DeepLift", "LRP", "Lime"])
def test_refused_on_smooth_nets_too(name: str) -> None:
    assert not is_differentiable(REFUSED[name](smooth_mlp()))


def test_a_loader_of_examples_is_no_input() -> None:
    assert not is_differentiable(DataLoaderAttribution(FeatureAblation(smooth_mlp())))


class Compiled(nn.Module):
    """The result of torch.compile, without the wait."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, x: Tensor) -> Tensor:
        return self._orig_mod(x)


def compiled_in_place() -> nn.Module:
    model = smooth_mlp()
    model.compile()
    return model


COMPILED: dict[str, Callable[[], Any]] = {
    "whole": lambda: Compiled(smooth_mlp()),
    "in part": lambda: nn.Sequential(nn.Tanh(), Compiled(smooth_mlp())),
}
REALLY_COMPILED: dict[str, Callable[[], Any]] = {
    "whole": lambda: torch.compile(smooth_mlp()),
    "in place": compiled_in_place,
    "function": lambda: torch.compile(lambda x: x.square()),
}


@pytest.mark.parametrize("model", COMPILED.values(), ids=COMPILED.keys())
def test_compiled_models_are_refused(model: Callable[[], Any]) -> None:
    attribution = NoiseTunnel(Saliency(model()))
    assert not is_differentiable(attribution)
    with pytest.raises(NotDifferentiableError, match=r"torch\.compile .*_orig_mod"):
        attribution_gradcheck(attribution, normal(2, 4), target=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated")
@pytest.mark.parametrize("model", REALLY_COMPILED.values(), ids=REALLY_COMPILED.keys())
def test_really_compiled_models_are_refused(model: Callable[[], Any]) -> None:
    assert not is_differentiable(Saliency(model()))


class Own(Attribution):
    """An attribution that Captum does not know: a function of the inputs."""

    def __init__(self, maps: Callable[[Tensor], Tensor]) -> None:
        super().__init__(maps)

    def attribute(self, inputs: Tensor) -> Tensor:
        return self.forward_func(inputs)


def test_own_attributions_are_taken_at_their_word_and_checked() -> None:
    right, wrong = Own(lambda x: x * x.square()), Own(lambda x: x * x.square().detach())
    assert is_differentiable(right)
    assert is_differentiable(wrong)
    assert attribution_gradcheck(right, normal(3, 4)) < 1e-6
    # Autograd finds x² where the derivative is 3 x².
    assert attribution_gradcheck(wrong, normal(3, 4)) == pytest.approx(2 / 3, abs=1e-6)


def test_is_zero_for_a_constant_map() -> None:
    linear = drawn(nn.Linear(4, 3))
    assert attribution_gradcheck(Saliency(linear), normal(2, 4), target=0) == 0.0


def test_is_nan_where_the_map_is() -> None:
    assert math.isnan(attribution_gradcheck(Own(torch.sqrt), normal(3, 4)))


def test_agrees_with_differences_entry_by_entry_on_a_relu_net_made_smooth() -> None:
    attribution, x = IntegratedGradients(relu_net()), normal(3, 4).requires_grad_()
    with smooth_relu(5.0):
        assert attribution_gradcheck(attribution, x, target=[0, 1, 2], n_steps=5) < 1e-6
        comparison = compare_gradients(
            lambda: attribution.attribute(x, target=[0, 1, 2], n_steps=5), (x,)
        )
    assert comparison.error < 1e-6


@pytest.mark.parametrize(
    "attribution",
    [
        GradientShap(smooth_mlp()),
        ShapleyValueSampling(smooth_mlp()),
        NoiseTunnel(IntegratedGradients(smooth_mlp())),
    ],
    ids=["GradientShap", "ShapleyValueSampling", "NoiseTunnel"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_random_attributions_see_the_same_noise_and_leave_the_generators(
    attribution: Any, seed: int
) -> None:
    kwargs = {"baselines": torch.zeros(3, 4, dtype=torch.float64), "target": 1}
    before = random.getstate(), np.random.get_state()[1], torch.get_rng_state()  # noqa: NPY002
    assert attribution_gradcheck(attribution, normal(3, 4), seed=seed, **kwargs) < 1e-6
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_tuples_of_inputs_and_additional_arguments() -> None:
    inputs = normal(3, 3), normal(3, 1, 2, seed=1)
    error = attribution_gradcheck(
        IntegratedGradients(TwoInputs()), inputs, target=1, additional_forward_args=(2.0,)
    )
    assert error < 1e-6
    assert not inputs[0].requires_grad


def test_differentiates_under_no_grad_and_leaves_inputs_and_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 2)).double()
    before = copy.deepcopy(model.state_dict())
    x = normal(5, 4)
    with torch.no_grad():
        assert attribution_gradcheck(Saliency(model), x, target=1) < 1e-6
        assert not torch.is_grad_enabled()
    assert model.training
    assert torch.equal(x, normal(5, 4))
    assert not x.requires_grad
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
