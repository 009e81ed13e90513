"""Differentiable attributions: maps and their gradients on the device and on the CPU."""

import pytest
import torch
from captum.attr import LayerActivation, NoiseTunnel, Saliency

from captum_robust.attr import (
    attribution_gradcheck,
    differentiable_attribution,
    is_differentiable,
    smooth_relu,
)
from tests.attr.oracles import as_tuple, fix_noise, normal, smooth_convnet, smooth_mlp
from tests.attr.test_gradients import ON_INPUTS, ON_LAYERS, ON_NEURONS, TARGET
from tests.gpu.device import DEVICE, assert_same, moved
from tests.robust.targets import relu_mlp

# Their noise comes from the generator of the device: other numbers, so no comparison.
DRAWN = {"LayerGradientShap", "NeuronGradientShap", "GradientShap", "FeaturePermutation"}
DRAWN |= {name for name in ON_INPUTS if name.startswith("ShapleyValueSampling")}


def map_and_gradient(make, x, device, **kwargs):
    leaf = x.to(device).requires_grad_()
    fix_noise()
    with differentiable_attribution():
        maps = as_tuple(make(device).attribute(leaf, **moved(kwargs, device)))
    weighted = sum((m * normal(*m.shape, seed=1).to(m)).sum() for m in maps)
    (gradient,) = torch.autograd.grad(weighted, leaf)
    # memory_efficient=True leaves the map on the CPU.
    return (*moved(maps, device), gradient)


def check(make, x, **kwargs):
    found, expected = (map_and_gradient(make, x, d, **kwargs) for d in (DEVICE, "cpu"))
    assert_same(found, expected)
    assert expected[-1].any()


@pytest.mark.parametrize("name", [n for n in ON_INPUTS if n not in DRAWN])
def test_on_inputs(name):
    method, kwargs = ON_INPUTS[name]
    check(lambda d: method(moved(smooth_mlp(), d)), normal(3, 4), target=TARGET, **kwargs)


@pytest.mark.parametrize("name", [n for n in ON_LAYERS if n not in DRAWN])
def test_on_layers(name):
    method, kwargs = ON_LAYERS[name]
    more = {} if method is LayerActivation else {"target": TARGET}

    def make(device):
        model = moved(smooth_convnet(), device)
        return method(model, model[1])

    check(make, normal(3, 1, 4, 4), **kwargs, **more)


@pytest.mark.parametrize("name", [n for n in ON_NEURONS if n not in DRAWN])
def test_on_neurons(name):
    method, kwargs = ON_NEURONS[name]

    def make(device):
        model = moved(smooth_convnet(), device)
        return method(model, model[1])

    check(make, normal(3, 1, 4, 4), neuron_selector=(1, 0, 2), **kwargs)


@pytest.mark.parametrize("name", sorted(DRAWN & set(ON_INPUTS)))
def test_what_draws_on_the_device_is_differentiated_rightly(name):
    """Against central differences there: the numbers are not those of the CPU."""
    method, kwargs = ON_INPUTS[name]
    attribution = method(moved(smooth_mlp()))
    kwargs = {"target": moved(TARGET), **moved(kwargs)}
    assert attribution_gradcheck(attribution, moved(normal(3, 4)), **kwargs) < 1e-6


def test_noise_tunnel():
    tunnel = NoiseTunnel(Saliency(moved(smooth_mlp())))
    error = attribution_gradcheck(
        tunnel, moved(normal(3, 4)), target=moved(TARGET), nt_samples=4, stdevs=0.3
    )
    assert error < 1e-6
    assert is_differentiable(tunnel)


def test_smoothed_relu():
    def second_derivative(device):
        model = moved(relu_mlp(), device)
        leaf = normal(3, 6).to(device).requires_grad_()
        with smooth_relu(4.0):
            (slope,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf, create_graph=True)
            return slope, torch.autograd.grad(slope.square().sum(), leaf)[0]

    found, expected = second_derivative(DEVICE), second_derivative("cpu")
    assert_same(found, expected)
    assert expected[1].any()
