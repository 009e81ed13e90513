"""Every metric gives on the device what it gives on the CPU, where its input is."""

from itertools import product

import pytest
import torch

from captum_robust.testing import MapsCase, MetricTraits, ModelCase, small_models
from tests.gpu.device import OnDevice, assert_same, moved
from tests.testing.subjects import METRICS

OF_MAPS = [name for name, subject in METRICS.items() if subject.traits["call"] == "maps"]
OF_MODELS = [name for name in METRICS if name not in OF_MAPS]
CHOSEN = "mlp_tanh", "max_pool", "two_inputs", "forward_args", "single_logit", "norm_and_dropout"
MODELS = {m.name: m for m in small_models() if m.name in CHOSEN}


def pair(name, model=None):
    """The same metric on both."""
    subject = METRICS[name]
    traits = MetricTraits(**subject.traits)
    if model is None:
        return MapsCase(subject.subject, traits)
    model = subject.models[0] if subject.models else MODELS[model]
    return [ModelCase(subject.subject, traits, m) for m in (OnDevice.of(model), model)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OF_MAPS)
def test_of_maps(name, dtype):
    case = pair(name)
    maps, reference = case.maps.to(dtype), case.reference.to(dtype)
    maps[1, 2] = float("nan")
    maps[2] = 1.0
    maps[3, :4] = reference[3, :4] = 0.5  # ties
    expected = case.value(maps, reference)
    found = case.value(moved(maps), moved(reference))
    # Half precision is computed as float32.
    exact = dtype == torch.float64
    assert_same(found, expected, **({} if exact else {"rtol": 2e-6, "atol": 1e-6}))
    assert expected.isfinite().any() and (name == "prediction" or expected.isnan().any())


# Bounds take seconds on a convolution: a Hessian of 36 features for every point.
CASES = [
    (name, model)
    for name, model in product(OF_MODELS, MODELS)
    if name != "certified radius"
    and not ("bound" in name and model in ("max_pool", "norm_and_dropout"))
]


@pytest.mark.parametrize("name, model", CASES)
def test_of_models(name, model):
    on_device, on_cpu = pair(name, model)
    found, expected = on_device.value(), on_cpu.value()
    assert_same(found, expected)
    assert expected.isfinite().all()


@pytest.mark.parametrize("name", [n for n in OF_MODELS if n != "certified radius"])
def test_a_broken_row(name):
    on_device, on_cpu = pair(name, "mlp_tanh")
    inputs = on_cpu.model.inputs
    inputs[1, 0] = float("nan")
    found, expected = on_device.value(inputs=moved(inputs)), on_cpu.value(inputs=inputs)
    assert_same(found, expected)
    assert expected.isnan().tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("name", [n for n in OF_MODELS if METRICS[n].traits.get("chunks", True)])
def test_chunks(name):
    on_device, _ = pair(name, "mlp_tanh")
    whole = on_device.value()
    for chunk in (1, 3):
        torch.testing.assert_close(on_device.value(max_examples_per_batch=chunk), whole)
