"""Results depend on the seed and the example, not on chunks, order or earlier calls."""

import functools
import random

import numpy as np
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from captum.metrics._core.sensitivity import default_perturb_func as default_of_captum
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.metrics import (
    default_perturb_func,
    pairwise_ranking_thickness,
    precision_at_k_min,
    ranking_thickness,
)
from captum_robust.noise import GaussianNoise, UniformNoise
from tests.metrics.definitions import normal, softplus_net, some

PAIRS = torch.tensor([[0, 1], [2, 3]])
METRICS = {
    "stratified": lambda f, x, **kwargs: ranking_thickness(
        f, x, 2, n_perturb_samples=3, n_steps=3, **kwargs
    ),
    "grid": lambda f, x, **kwargs: ranking_thickness(
        f, x, 2, n_perturb_samples=3, n_steps=2, sampling="grid", surrogate="margin", **kwargs
    ),
    "min": lambda f, x, **kwargs: ranking_thickness(
        f, x, 2, n_perturb_samples=3, n_steps=2, reduction="min", **kwargs
    ),
    "pairs": lambda f, x, **kwargs: pairwise_ranking_thickness(
        f, x, PAIRS, n_perturb_samples=3, n_steps=2, surrogate="margin", **kwargs
    ),
    "precision": lambda f, x, **kwargs: precision_at_k_min(f, x, 2, n_perturb_samples=3, **kwargs),
}
NOISES = [UniformNoise("Linf"), UniformNoise("L2"), GaussianNoise()]
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
every_noise = pytest.mark.parametrize(
    "noise", [*NOISES, default_of_captum], ids=["Linf", "L2", "Gauss", "captum"]
)
sizes = st.one_of(st.none(), st.integers(1, 12), st.integers(13, 200))


def square(x):
    return x * x


# The draws are the same in any chunk and order. What is made of them is the same but for rounding:
# a sum over other shapes may be taken in another order.
same = functools.partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)


def global_states():
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.get_rng_state().tolist(), str(numpy_state), random.getstate()


# --- chunks and order --------------------------------------------------------------------------


@some
@given(st.sampled_from(list(METRICS)), st.sampled_from(NOISES), sizes, st.integers(1, 6))
def test_chunks_change_nothing(name, noise, size, n_examples):
    inputs = normal(n_examples, 5)
    kwargs = {"perturb_func": noise, "perturb_radius": 1.0, "seed": 3}
    whole = METRICS[name](square, inputs, **kwargs)
    same(METRICS[name](square, inputs, max_examples_per_batch=size, **kwargs), whole)


@some
@given(st.sampled_from(list(METRICS)), sizes)
def test_chunks_of_a_network_change_nothing_but_rounding(name, size):
    target = torch.tensor([0, 1, 2, 0, 1])
    attribute, inputs = Saliency(softplus_net(6)).attribute, normal(5, 6)
    kwargs = {"perturb_radius": 1.0, "seed": 3, "target": target}
    whole = METRICS[name](attribute, inputs, **kwargs)
    found = METRICS[name](attribute, inputs, max_examples_per_batch=size, **kwargs)
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-9)


@every_metric
@pytest.mark.parametrize("size", [1, 4])
def test_chunks_of_a_function_of_the_user_change_nothing(metric, size):
    kwargs = {"perturb_func": default_of_captum, "perturb_radius": 1.0, "seed": 3}
    whole = metric(square, normal(5, 6), **kwargs)
    same(metric(square, normal(5, 6), max_examples_per_batch=size, **kwargs), whole)


@some
@given(st.sampled_from(list(METRICS)), st.sampled_from(NOISES), sizes, st.permutations(range(5)))
def test_the_order_of_the_batch_changes_nothing(name, noise, size, order):
    inputs = normal(5, 6)
    kwargs = {
        "perturb_func": noise, "perturb_radius": 1.0, "seed": 3, "max_examples_per_batch": size
    }  # fmt: skip
    whole = METRICS[name](square, inputs, **kwargs)
    same(METRICS[name](square, inputs[order], **kwargs), whole[order])
    same(METRICS[name](square, inputs[order[:1]], **kwargs), whole[order[:1]])


@every_metric
def test_the_default_chunks_are_bounded_where_autograd_saves_nothing(metric):
    sizes = []

    def explain(x):
        sizes.append(len(x))
        return x.detach().square()

    metric(explain, normal(2, 2_000_000).float())
    assert max(sizes) <= 4  # of 8 MB each, within 30 MB


# --- seeds -------------------------------------------------------------------------------------


@every_metric
@every_noise
def test_a_seed_decides_the_neighbours(metric, noise):
    inputs = normal(30, 6)
    found = [
        metric(square, inputs, perturb_func=noise, perturb_radius=1.0, seed=seed)
        for seed in (0, 0, 1, 2**31, -1, None, None)
    ]
    assert torch.equal(found[0], found[1])
    others = [found[0], *found[2:]]
    for i, left in enumerate(others):
        assert not any(torch.equal(left, right) for right in others[:i])


@pytest.mark.parametrize(
    "attribution",
    [
        lambda net: NoiseTunnel(Saliency(net)).attribute,
        lambda net: functools.partial(
            GradientShap(net).attribute, baselines=normal(4, 6), n_samples=3
        ),
    ],
    ids=["NoiseTunnel", "GradientShap"],
)
@every_metric
def test_a_seed_decides_the_noise_of_the_attribution_too(metric, attribution):
    attribute, inputs = attribution(softplus_net(6)), normal(20, 6)
    kwargs = {"perturb_func": lambda x: x + 0.1, "target": 0}
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = metric(attribute, inputs, seed=0, **kwargs)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert torch.equal(metric(attribute, inputs, seed=0, **kwargs), first)
    others = [metric(attribute, inputs, seed=seed, **kwargs) for seed in range(1, 5)]
    assert any(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", ["stratified", "min", "precision"])
def test_all_points_see_the_same_noise_of_the_attribution(name):
    # At radius zero, a stochastic map is the map of the example again.
    tunnel = NoiseTunnel(Saliency(softplus_net(6)))
    found = METRICS[name](
        tunnel.attribute, normal(1, 6), perturb_radius=0, target=0, max_examples_per_batch=1, seed=0
    )
    assert found.tolist() == [1.0]


@every_metric
@every_noise
@pytest.mark.parametrize("seed", [0, None])
def test_the_global_generators_are_left_alone(metric, noise, seed):
    attribute = NoiseTunnel(Saliency(softplus_net(6))).attribute
    before = global_states()
    metric(attribute, normal(3, 6), perturb_func=noise, target=0, seed=seed)
    assert global_states() == before


class Failure(RuntimeError):
    pass


def fails_after(n_calls, explanation_func):
    calls = iter(range(n_calls))

    def explain(inputs, **kwargs):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        if next(calls, None) is None:
            raise Failure
        return explanation_func(inputs, **kwargs)

    return explain


@every_metric
@pytest.mark.parametrize("n_calls", [0, 1, 3])
def test_the_global_generators_are_left_alone_by_a_failure(metric, n_calls):
    before = global_states()
    with pytest.raises(Failure):
        metric(fails_after(n_calls, square), normal(3, 6), max_examples_per_batch=2, seed=0)
    assert global_states() == before

    def fail(inputs):
        torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
        raise Failure

    with pytest.raises(Failure):
        metric(square, normal(3, 6), perturb_func=fail, seed=0)
    assert global_states() == before


# --- the caller's model ------------------------------------------------------------------------


class Stateful(nn.Module):
    """Everything that a metric could disturb: statistics, dropout, frozen weights, hooks."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3)
        self.drop, self.out = nn.Dropout(0.2), nn.Linear(27, 3)
        self.double()
        self.fails = False
        self.conv.weight.requires_grad_(False)
        self.out.weight.grad = torch.ones_like(self.out.weight)
        self.out.register_forward_hook(lambda *args: None)
        self.drop.eval()

    def forward(self, x):
        if self.fails:
            self.norm(self.conv(x))
            raise Failure
        return self.out(self.drop(self.norm(self.conv(x)).sigmoid().flatten(1)))


def state_of(model):
    return {
        "modes": [m.training for m in model.modules()],
        "tensors": {n: t.tolist() for n, t in model.state_dict(keep_vars=True).items()},
        "identities": {n: id(t) for n, t in model.state_dict(keep_vars=True).items()},
        "needs": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "hooks": [
            [list(h) for h in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)]
            for m in model.modules()
        ],
    }


WAYS = {
    "Saliency": lambda model: Saliency(model).attribute,
    "partial": lambda model: functools.partial(IntegratedGradients(model).attribute, n_steps=3),
    "NoiseTunnel": lambda model: NoiseTunnel(Saliency(model)).attribute,
    "FeatureAblation": lambda model: FeatureAblation(model).attribute,
    "layer": lambda model: LayerGradCam(model, model.conv).attribute,
}


@every_metric
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_model_is_left_as_found(metric, way, training, fails):
    model = Stateful()
    model.norm.train(training)
    before = state_of(model)
    attribute = WAYS[way](model)
    inputs = normal(2, 2, 4, 4)
    maps = attribute(inputs.clone().requires_grad_(), target=0)
    model.norm.reset_running_stats()
    assert state_of(model) == before
    model.fails = fails
    if fails:
        with pytest.raises(Failure):
            metric(attribute, inputs, target=0, reference_attributions=maps.detach())
    else:
        metric(attribute, inputs, target=0)
    assert state_of(model) == before


@every_metric
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_the_arguments_are_left_as_found(metric, needs_gradient):
    inputs = normal(3, 6).requires_grad_(needs_gradient)
    target, maps = torch.tensor([0, 1, 2]), normal(3, 6, seed=1)
    before = [t.detach().clone() for t in (inputs, target, maps)]
    metric(Saliency(softplus_net(6)).attribute, inputs, reference_attributions=maps, target=target)
    assert all(torch.equal(t, b) for t, b in zip((inputs, target, maps), before, strict=True))
    assert inputs.requires_grad is needs_gradient and inputs.grad is None and inputs.is_leaf
    assert not maps.requires_grad


def test_the_default_noise_is_shared_and_unchanged():
    assert isinstance(default_perturb_func, UniformNoise) and default_perturb_func.norm == "Linf"
    assert (default_perturb_func.lower_bound, default_perturb_func.upper_bound) == (
        float("-inf"),
        float("inf"),
    )
