"""Attacks on attributions other than saliency, against the maps of stock Captum."""

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    FeaturePermutation,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerConductance,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from torch import nn

from captum_robust.metrics import precision_at_k
from captum_robust.robust import ERAttack
from tests.robust.targets import convnet, drawn, linear, normal, stock_scores


def relu_convnet():
    """(N, 1, 6, 6) -> (N, 3), with ReLU and max-pooling."""
    return drawn(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2),
            nn.ReLU(), nn.Flatten(), nn.Linear(16, 3),
        )
    )  # fmt: skip


GROUPS = torch.arange(36).view(1, 1, 6, 6) // 3
DETERMINISTIC = {
    "Saliency": (Saliency, {}),
    "signed Saliency": (Saliency, {"abs": False}),
    "InputXGradient": (InputXGradient, {}),
    "IntegratedGradients": (IntegratedGradients, {"n_steps": 6}),
    "IntegratedGradients in parts": (
        IntegratedGradients,
        {"n_steps": 6, "internal_batch_size": 7, "baselines": normal(3, 1, 6, 6, seed=5)},
    ),
    "FeatureAblation": (FeatureAblation, {"feature_mask": GROUPS, "baselines": 0.1}),
    "Occlusion": (
        Occlusion,
        {"sliding_window_shapes": (1, 3, 3), "strides": (1, 3, 3), "baselines": 0.1},
    ),
    "LayerGradCam": (lambda m: LayerGradCam(m, m[0]), {"relu_attributions": False}),
    "LayerConductance": (lambda m: LayerConductance(m, m[3]), {"n_steps": 4}),
}


@pytest.mark.parametrize("beta", [None, 5.0], ids=["own", "smooth"])
@pytest.mark.parametrize("make, arguments", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_the_attack_lowers_the_objective_of_stock_captum(make, arguments, beta):
    model, x = relu_convnet() if beta else smooth_convnet(), normal(3, 1, 6, 6)
    y = torch.tensor([0, 1, 2])
    attack = ERAttack(make(model), k=2, smooth_relu=beta)
    moved, info = attack.perturb(x, 0.4, step_num=6, target=y, return_info=True, **arguments)
    start, end = (stock_scores(make(model), p, y, **arguments).double() for p in (x, moved))
    # Occlusion averages in float32, in which the mode of the attack keeps float64.
    found, before = linear(2)(end, start), linear(2)(start, start)
    assert torch.allclose(info.objective.double(), found, rtol=1e-5, atol=1e-5)
    assert (found <= before + 1e-5).all() and found.mean() < 0.8 * before.mean()
    assert torch.equal(model(moved).argmax(1), model(x).argmax(1)) and info.prediction_kept.all()


def smooth_convnet():
    """As above, smooth."""
    return drawn(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2), nn.Conv2d(4, 4, 2),
            nn.Tanh(), nn.Flatten(), nn.Linear(16, 3),
        )
    )  # fmt: skip


STOCHASTIC = {
    "NoiseTunnel of Saliency": (
        lambda m: NoiseTunnel(Saliency(m)),
        {"nt_samples": 3, "stdevs": 0.2},
    ),
    "NoiseTunnel of IntegratedGradients": (
        lambda m: NoiseTunnel(IntegratedGradients(m)),
        {"nt_samples": 2, "stdevs": 0.2, "n_steps": 4, "nt_type": "smoothgrad_sq"},
    ),
    "GradientShap": (GradientShap, {"baselines": torch.zeros(2, 1, 4, 4).double(), "n_samples": 2}),
    "FeaturePermutation": (
        FeaturePermutation,
        {"feature_mask": torch.arange(16).view(1, 1, 4, 4) // 4},
    ),
    "ShapleyValueSampling": (
        ShapleyValueSampling,
        {"n_samples": 3, "feature_mask": torch.arange(16).view(1, 1, 4, 4) // 4},
    ),
}


@pytest.mark.parametrize("make, arguments", STOCHASTIC.values(), ids=STOCHASTIC)
def test_stochastic_attributions_are_attacked_and_repeat_at_a_fixed_seed(make, arguments):
    model, x = convnet(), normal(3, 1, 4, 4)
    attack = ERAttack(make(model), k=1)
    run = {"radius": 0.5, "step_num": 5, "target": 1, "return_info": True, **arguments}
    moved, info = attack.perturb(x, seed=11, **run)
    again, same = attack.perturb(x, seed=11, **run)
    assert torch.equal(moved, again) and torch.equal(info.trace, same.trace)
    _, other = attack.perturb(x, seed=12, **run)
    assert not torch.allclose(info.trace[0, 0], other.trace[0, 0], rtol=1e-6)
    assert (info.objective < info.trace[0, 0] - 1e-3).all()


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU:UserWarning")  # Captum's own
def test_guided_backprop_is_attacked_where_it_is_the_plain_gradient():
    model, x = convnet(), normal(3, 1, 4, 4)
    moved = ERAttack(GuidedBackprop(model), k=2).perturb(x, 0.5, target=1)
    start, end = (stock_scores(Saliency(model), p, 1, abs=False) for p in (x, moved))
    assert (linear(2)(end, start) < linear(2)(start, start) - 1e-2).all()


def test_an_attack_moves_the_top_of_a_layer_map_of_another_size():
    model, x = smooth_convnet(), normal(6, 1, 6, 6)
    cam = LayerGradCam(model, model[0])
    moved = ERAttack(cam, k=4).perturb(x, 0.6, target=1)
    maps = [cam.attribute(p, target=1) for p in (moved, x)]
    assert maps[0].shape == (6, 1, 6, 6)
    assert precision_at_k(*maps, k=4).mean() < 0.75
