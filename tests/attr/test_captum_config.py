"""Captum's own test configuration: every target form, for every method and its NoiseTunnel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import (
    LRP,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    GuidedBackprop,
    GuidedGradCam,
    InternalInfluence,
    KernelShap,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerLRP,
    Lime,
    NeuronDeconvolution,
    NeuronDeepLift,
    NeuronDeepLiftShap,
    NeuronGuidedBackprop,
    Occlusion,
    ShapleyValueSampling,
)
from torch import Tensor

from captum_robust.attr import (
    NotDifferentiableError,
    attribution_gradcheck,
    differentiable_attribution,
    is_differentiable,
    smooth_relu,
)
from tests.attr.captum_cases import CASES, built, flat
from tests.attr.oracles import compare_gradients, fix_noise, random_vectors
from tests.captum_testing import AVAILABLE

pytestmark = [
    pytest.mark.skipif(not AVAILABLE, reason="the wheel of Captum 0.8 has no captum.testing"),
    # Some of its cases ask for smaller chunks than there are examples, or for several layers.
    pytest.mark.filterwarnings(
        "ignore:(Internal batch size|This method computes finite):UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:Multiple layers provided:UserWarning"),
]

REFUSED = {DeepLift, DeepLiftShap, LayerDeepLift, LayerDeepLiftShap, NeuronDeepLift}
REFUSED |= {NeuronDeepLiftShap, LRP, LayerLRP, Lime, KernelShap}
REFUSED |= {GuidedBackprop, Deconvolution, GuidedGradCam}  # every model has an nn.ReLU
REFUSED |= {NeuronGuidedBackprop, NeuronDeconvolution}
IN_FLOAT32 = {Occlusion, ShapleyValueSampling}

SUPPORTED = {name: case for name, case in CASES.items() if case[1] not in REFUSED}


@pytest.mark.parametrize("name", SUPPORTED)
def test_gradient_under_smooth_relu(name: str) -> None:
    entry, algorithm = SUPPORTED[name]
    attribution, leaves, kwargs = built(SUPPORTED[name])
    with smooth_relu(1.0):
        comparison = compare_gradients(
            lambda: flat(attribution.attribute(**kwargs)),
            leaves,
            directions=random_vectors(leaves, 2),
            differences_in_mode=algorithm in IN_FLOAT32,
            step=1e-7 if "conv" in entry["name"] else 1e-5,  # its max-pooling has kinks
        )
    if algorithm is InternalInfluence and "conv" not in entry["name"]:
        assert comparison.size == comparison.difference == 0  # only linear layers lie behind
    else:
        assert comparison.error < 1e-6


@pytest.mark.parametrize("name", SUPPORTED)
def test_values_are_those_of_stock_captum(name: str) -> None:
    attribution, _, kwargs = built(SUPPORTED[name])
    fix_noise()
    stock = flat(attribution.attribute(**kwargs))
    fix_noise()
    with differentiable_attribution():
        maps = flat(attribution.attribute(**kwargs))
    coarse = SUPPORTED[name][1] in IN_FLOAT32
    for ours, theirs in zip(maps, stock, strict=True):
        tolerance = {"rtol": 1e-5, "atol": 1e-6} if coarse else {"rtol": 1e-10, "atol": 1e-12}
        torch.testing.assert_close(ours, theirs, check_dtype=not coarse, **tolerance)


@pytest.mark.parametrize("name", [name for name in CASES if name not in SUPPORTED])
def test_refused(name: str) -> None:
    attribution, _, kwargs = built(CASES[name])
    assert not is_differentiable(attribution)
    with pytest.raises(NotDifferentiableError, match="Alternatives"):
        attribution_gradcheck(attribution, **kwargs)


def form_of(target: Any) -> str:
    if isinstance(target, Tensor):
        return "tensor for all" if target.numel() == 1 else "tensor"
    if isinstance(target, list):
        return f"list of {type(target[0]).__name__}s"
    return type(target).__name__


def test_every_target_form_is_among_the_cases() -> None:
    forms = [form_of(entry["attribute_args"].get("target")) for entry, _ in SUPPORTED.values()]
    expected = {"NoneType", "int", "list of ints", "list of tuples", "tensor for all", "tensor"}
    assert set(forms) == expected
    assert all(forms.count(form) >= 10 for form in expected)
    assert len(SUPPORTED) >= 170
