"""The gradient of every supported map is that of central differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronConductance,
    NeuronFeatureAblation,
    NeuronGradient,
    NeuronGradientShap,
    NeuronIntegratedGradients,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValues,
    ShapleyValueSampling,
)
from torch import Tensor

from tests.attr.oracles import TwoInputs, compare_gradients, normal, smooth_convnet, smooth_mlp
from tests.captum_testing import MEMORY_EFFICIENT

TARGET = torch.tensor([0, 2, 1])
Case = tuple[Any, dict[str, Any]]  # a method and arguments of its attribute()

# Chunks of 10 split the steps, not the examples, also where a NoiseTunnel brings 6 examples.
ON_INPUTS: dict[str, Case] = {
    "Saliency": (Saliency, {}),
    "Saliency signed": (Saliency, {"abs": False}),
    "InputXGradient": (InputXGradient, {}),
    "IG": (IntegratedGradients, {"n_steps": 5, "baselines": 0.5}),
    "IG in chunks": (
        IntegratedGradients,
        {"n_steps": 5, "baselines": 0.5, "internal_batch_size": 10},
    ),
    "IG unmultiplied in chunks": (
        lambda model: IntegratedGradients(model, multiply_by_inputs=False),
        {"n_steps": 5, "internal_batch_size": 10},
    ),
    "GradientShap": (GradientShap, {"n_samples": 3, "baselines": normal(3, 4, seed=5)}),
    "FeatureAblation": (FeatureAblation, {}),
    "FeatureAblation of groups": (
        FeatureAblation,
        {"feature_mask": torch.tensor([[0, 1, 1, 0]]), "perturbations_per_eval": 2},
    ),
    "FeaturePermutation": (FeaturePermutation, {}),
    "Occlusion": (Occlusion, {"sliding_window_shapes": (2,)}),
    "ShapleyValueSampling": (ShapleyValueSampling, {"n_samples": 3}),
    "ShapleyValueSampling batched": (
        ShapleyValueSampling,
        {"n_samples": 3, "perturbations_per_eval": 2},
    ),
    "ShapleyValues": (ShapleyValues, {"feature_mask": torch.tensor([[0, 1, 2, 0]])}),
}
# Stock Captum sums these in float32, whose rounding would drown the differences.
IN_FLOAT32 = (Occlusion, ShapleyValueSampling, ShapleyValues)

ON_LAYERS: dict[str, Case] = {
    "LayerGradCam": (LayerGradCam, {}),
    "LayerGradCam rectified": (LayerGradCam, {"relu_attributions": True}),
    "LayerConductance": (LayerConductance, {"n_steps": 4}),
    "LayerConductance in chunks": (LayerConductance, {"n_steps": 4, "internal_batch_size": 8}),
    "LayerIntegratedGradients": (LayerIntegratedGradients, {"n_steps": 4}),
    "LayerIntegratedGradients in chunks": (
        LayerIntegratedGradients,
        {"n_steps": 4, "internal_batch_size": 8},
    ),
    "LayerGradientXActivation": (LayerGradientXActivation, {}),
    "LayerGradientShap": (
        LayerGradientShap,
        {"n_samples": 2, "stdevs": 0.3, "baselines": normal(2, 1, 4, 4, seed=5)},
    ),
    "LayerActivation": (LayerActivation, {}),
    "LayerFeatureAblation": (LayerFeatureAblation, {"perturbations_per_eval": 1}),
    "InternalInfluence": (InternalInfluence, {"n_steps": 4, "internal_batch_size": 8}),
}
if MEMORY_EFFICIENT:
    ON_LAYERS["LayerGradientXActivation offloaded"] = (
        lambda model, layer: LayerGradientXActivation(model, layer, memory_efficient=True),
        {},
    )
ON_NEURONS: dict[str, Case] = {
    "NeuronGradient": (NeuronGradient, {}),
    "NeuronIntegratedGradients": (NeuronIntegratedGradients, {"n_steps": 4}),
    "NeuronConductance": (NeuronConductance, {"n_steps": 4, "target": TARGET}),
    "NeuronGradientShap": (
        NeuronGradientShap,
        {"n_samples": 2, "stdevs": 0.3, "baselines": normal(2, 1, 4, 4, seed=5)},
    ),
    "NeuronFeatureAblation": (NeuronFeatureAblation, {"perturbations_per_eval": 16}),
}


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


@pytest.mark.parametrize("name", ON_INPUTS)
def test_gradient_in_the_inputs(name: str) -> None:
    method, kwargs = ON_INPUTS[name]
    x, attribution = leaf(3, 4), method(smooth_mlp())
    comparison = compare_gradients(
        lambda: attribution.attribute(x, target=TARGET, **kwargs),
        (x,),
        differences_in_mode=method in IN_FLOAT32,
    )
    assert comparison.error < 1e-6


@pytest.mark.parametrize("name", ON_INPUTS)
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_gradient_of_the_noise_tunnel(name: str, nt_type: str) -> None:
    method, kwargs = ON_INPUTS[name]
    x, attribution = leaf(3, 4), NoiseTunnel(method(smooth_mlp()))
    tunnel = {"nt_type": nt_type, "nt_samples": 3, "nt_samples_batch_size": 2, "stdevs": 0.6}
    comparison = compare_gradients(
        lambda: attribution.attribute(x, target=TARGET, **tunnel, **kwargs),
        (x,),
        differences_in_mode=method in IN_FLOAT32,
    )
    assert comparison.error < 1e-6


@pytest.mark.parametrize("name", ON_LAYERS)
def test_gradient_of_layer_maps(name: str) -> None:
    method, kwargs = ON_LAYERS[name]
    model = smooth_convnet()
    x, attribution = leaf(3, 1, 4, 4), method(model, model[1])
    if method is not LayerActivation:
        kwargs = {**kwargs, "target": TARGET}
    comparison = compare_gradients(lambda: attribution.attribute(x, **kwargs), (x,))
    assert comparison.error < 1e-6


@pytest.mark.parametrize("name", ON_NEURONS)
def test_gradient_of_neuron_maps(name: str) -> None:
    method, kwargs = ON_NEURONS[name]
    model = smooth_convnet()
    x, attribution = leaf(3, 1, 4, 4), method(model, model[1])
    comparison = compare_gradients(
        lambda: attribution.attribute(x, neuron_selector=(1, 0, 2), **kwargs), (x,)
    )
    assert comparison.error < 1e-6


@pytest.mark.parametrize("name", ON_INPUTS)
def test_gradient_in_the_parameters(name: str) -> None:
    method, kwargs = ON_INPUTS[name]
    model = smooth_mlp()
    attribution = method(model)
    x = leaf(3, 4)
    comparison = compare_gradients(
        lambda: attribution.attribute(x, target=TARGET, **kwargs),
        (model[0].weight, model[2].bias),
        differences_in_mode=method in IN_FLOAT32,
    )
    assert comparison.error < 1e-6


@pytest.mark.parametrize("name", ["LayerGradCam", "LayerConductance", "LayerIntegratedGradients"])
def test_gradient_of_layer_maps_in_the_parameters(name: str) -> None:
    method, kwargs = ON_LAYERS[name]
    model = smooth_convnet()
    attribution = method(model, model[1])
    x = normal(3, 1, 4, 4)
    comparison = compare_gradients(
        lambda: attribution.attribute(x, target=TARGET, **kwargs),
        (model[0].weight, model[5].bias, model[2].weight),
    )
    assert comparison.error < 1e-6


OF_TUPLES: dict[str, Case] = {
    "Saliency": (Saliency, {"abs": False}),
    "InputXGradient": (InputXGradient, {}),
    "IG in chunks": (IntegratedGradients, {"n_steps": 4, "internal_batch_size": 8}),
    "GradientShap": (
        GradientShap,
        {"baselines": (normal(2, 3, seed=5), normal(2, 1, 2, seed=6)), "n_samples": 2},
    ),
    "FeatureAblation": (FeatureAblation, {}),
    "FeaturePermutation": (FeaturePermutation, {}),
    "Occlusion": (Occlusion, {"sliding_window_shapes": ((2,), (1, 1))}),
    "ShapleyValueSampling": (ShapleyValueSampling, {"n_samples": 2}),
    "NoiseTunnel": (
        lambda model: NoiseTunnel(IntegratedGradients(model)),
        {"nt_samples": 2, "stdevs": (0.1, 0.3), "n_steps": 3},
    ),
}


@pytest.mark.parametrize("name", OF_TUPLES)
def test_gradient_of_a_tuple_of_maps_in_a_tuple_of_inputs(name: str) -> None:
    method, kwargs = OF_TUPLES[name]
    inputs = leaf(3, 3), leaf(3, 1, 2, seed=1)
    attribution = method(TwoInputs())
    comparison = compare_gradients(
        lambda: attribution.attribute(
            inputs, target=[0, 1, 1], additional_forward_args=(2.0,), **kwargs
        ),
        inputs,
        differences_in_mode=method in IN_FLOAT32,
    )
    assert comparison.error < 1e-6
