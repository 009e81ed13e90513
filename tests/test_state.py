"""The caller's model is found behind any explainer, and its buffers are left as found."""

import contextlib
import functools
from functools import partial

import pytest
import torch
from captum.attr import (
    LRP,
    DeepLift,
    FeatureAblation,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from torch import nn

from captum_robust._utils.state import left_as_found, models_of


class Counter(nn.Module):
    """Replaces its buffer by another tensor in every forward, and uses the new one."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.count = self.count + 1
        return x * self.count


class Running(nn.Module):
    """Writes to the buffer that the graph of its output needs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(3))

    def forward(self, x):
        with torch.no_grad():
            self.scale.mul_(0.5).add_(x.mean(dim=0))
        return x * self.scale


def network(*extra):
    torch.manual_seed(0)
    layers = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Softplus(), nn.Linear(4, 2)
    return nn.Sequential(*extra, *layers)


def inputs():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) + 2


def values(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


# --- the model behind an explainer -------------------------------------------------------------

EXPLAINERS = {
    "the module": lambda m: m,
    "its forward": lambda m: m.forward,
    "a partial of it": lambda m: partial(m),
    "a partial of its forward": lambda m: partial(m.forward),
    "Saliency": Saliency,
    "Saliency of forward": lambda m: Saliency(m.forward),
    "Saliency of a partial": lambda m: Saliency(partial(m.forward)),
    "bound Saliency": lambda m: Saliency(m).attribute,
    "NoiseTunnel": lambda m: NoiseTunnel(Saliency(m)),
    "bound NoiseTunnel": lambda m: NoiseTunnel(Saliency(m)).attribute,
    "NoiseTunnel of forward": lambda m: NoiseTunnel(IntegratedGradients(m.forward)).attribute,
    "DeepLift": DeepLift,
    "LRP": LRP,
    "FeatureAblation": FeatureAblation,
    "LayerGradCam": lambda m: LayerGradCam(m, m[0]),
}


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_the_model_is_found(explainer):
    model = network()
    (found,) = models_of(EXPLAINERS[explainer](model))
    assert found is model


@pytest.mark.parametrize("explainer", [lambda x: x, torch.sin, len, None, Saliency(lambda x: x)])
def test_no_model_is_found_behind_a_function_without_one(explainer):
    assert models_of(explainer) == []


GLOBAL = network()


def through_a_global(x):
    return GLOBAL(x)


def through_another_function(x):
    return through_a_global(x).softmax(dim=1)


class Wrapper:
    """A forward function that keeps its model in an attribute."""

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x)

    def predict(self, x):
        return self.model(x)


def cached(function):
    @functools.wraps(function)
    def inner(*args):
        return function(*args)

    return inner


FUNCTIONS = {
    "closure": lambda m: lambda x: m(x),
    "method of the closure": lambda m: lambda x: m.forward(x),
    "partial of a closure": lambda m: partial(lambda x, y: m(x), y=1),
    "partial that binds the model": lambda m: partial(lambda model, x: model(x), m),
    "default": lambda m: lambda x, model=m: model(x),
    "callable object": Wrapper,
    "method": lambda m: Wrapper(m).predict,
    "object in a closure": lambda m: (lambda w: lambda x: w(x))(Wrapper(m)),
    "ensemble": lambda m: (lambda ms: lambda x: sum(each(x) for each in ms))([m]),
    "decorated": lambda m: cached(lambda x: m(x)),
    "global": lambda m: through_a_global,
    "function of a function": lambda m: through_another_function,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_model_behind_a_function_is_found_and_left_as_found(function):
    model = (GLOBAL if "global" in function or "of a function" in function else network()).train()
    forward = FUNCTIONS[function](model)
    before = values(model)
    for explainer in (forward, Saliency(forward), Saliency(forward).attribute):
        assert models_of(explainer) == [model]
        with left_as_found(explainer):
            forward(inputs())
        assert_same(values(model), before)


def test_a_module_is_the_model_whatever_its_attributes_are_called():
    outer = network()
    outer.forward_func, outer.attribution_method = network(), network()
    assert models_of(outer)[0] is outer and models_of(Saliency(outer))[0] is outer


# --- its buffers -------------------------------------------------------------------------------


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_buffers_moved_in_training_mode_are_restored(explainer):
    model = network().train()
    model(inputs())
    before, same = values(model), dict(model.named_buffers())
    with left_as_found(EXPLAINERS[explainer](model)):
        model(inputs() + 1)
        assert not torch.equal(model[1].running_mean, before["1.running_mean"])
        assert model[1].num_batches_tracked == 2
    assert_same(values(model), before)
    assert all(buffer is same[name] for name, buffer in model.named_buffers())


def test_buffers_are_restored_after_an_exception():
    model = network().train()
    before = values(model)
    with pytest.raises(KeyError), left_as_found(model):
        model(inputs())
        raise KeyError
    assert_same(values(model), before)


def test_buffers_that_a_forward_replaces_are_restored():
    model = network(Counter()).train()
    with left_as_found(model):
        model(inputs())
        assert model[0].count == 1
    assert model[0].count == 0
    assert "0.count" not in model.state_dict()


def test_power_iterations_of_spectral_norm_are_restored():
    model = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)).train()
    before = values(model)
    with left_as_found(model):
        model(inputs())
        assert all(not torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert_same(values(model), before)


@pytest.mark.parametrize("extra", [(), (Running,), (Counter,)])
def test_a_graph_made_inside_can_be_differentiated_outside(extra):
    gradients = []
    for guard in (contextlib.nullcontext, left_as_found):
        model, x = network(*(kind() for kind in extra)).train(), inputs().requires_grad_()
        with guard(model):
            loss = model(x).square().sum()
        gradients.append(torch.autograd.grad(loss, [x, *model.parameters()]))
    for plain, guarded in zip(*gradients, strict=True):
        assert torch.equal(plain, guarded)


def test_a_shared_buffer_stays_shared_inside():
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    second.running_mean = first.running_mean
    model = nn.Sequential(first, second).train()
    with left_as_found(model, first):
        assert first.running_mean is second.running_mean
        model(inputs())
        assert first.running_mean.any()
    assert first.running_mean is second.running_mean and not first.running_mean.any()


def test_several_models_and_nested_blocks_are_restored():
    one, other = network().train(), network().train()
    before = values(one), values(other)
    with left_as_found(Saliency(one), NoiseTunnel(Saliency(other)).attribute, one):
        one(inputs()), other(inputs())
        inside = values(one)
        with left_as_found(one):
            one(inputs())
        assert_same(values(one), inside)
    assert_same(values(one), before[0])
    assert_same(values(other), before[1])


def test_a_model_with_any_part_in_training_mode_is_guarded():
    model = network().eval()
    model[1].train()
    before = values(model)
    with left_as_found(model):
        model(inputs())
    assert_same(values(model), before)


def test_a_model_in_evaluation_mode_is_not_touched():
    model = network().eval()
    same = dict(model.named_buffers())
    with left_as_found(model):
        assert all(buffer is same[name] for name, buffer in model.named_buffers())


def test_the_mode_the_parameters_and_the_hooks_are_not_touched():
    model, calls = network().train(), []
    model[1].eval()
    model.register_forward_hook(lambda *_: calls.append(1))
    parameters = dict(model.named_parameters())
    with left_as_found(model):
        model(inputs())
        assert all(p is parameters[name] for name, p in model.named_parameters())
    assert calls == [1] and model.training and not model[1].training


class Functional(nn.Module):
    """Batch statistics by a function, which no mode of a module turns off."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return nn.functional.batch_norm(x, self.mean, self.var, training=True)


@pytest.mark.parametrize("kind", [Functional, Counter])
def test_buffers_that_change_in_evaluation_mode_are_restored(kind):
    model = kind().eval()
    before, same = values(model), dict(model.named_buffers())
    with left_as_found(lambda x: model(x)):
        model(inputs())
    assert_same(values(model), before)
    assert all(buffer is same[name] for name, buffer in model.named_buffers())
