"""The thickness against its definition, against closed forms, and against plain Monte Carlo."""

import functools

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.metrics import ranking_thickness
from captum_robust.noise import GaussianNoise, UniformNoise
from tests.metrics.definitions import (
    Quadratic,
    Recorder,
    Watch,
    fraction_above_zero,
    gaps,
    mean,
    normal,
    softplus_conv_net,
    softplus_net,
    some,
    stable_top_k,
    thickness,
)

SURROGATES, REDUCTIONS = ["indicator", "margin"], ["mean", "min"]
NOISES = [UniformNoise("Linf"), UniformNoise("L2"), GaussianNoise()]
every_noise = pytest.mark.parametrize("noise", NOISES, ids=["Linf", "L2", "Gauss"])


def a_linear_model(n_features=6):
    model = nn.Linear(n_features, 2).double()
    model.weight.data = normal(2, n_features)
    return model


# --- the definition ----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("chunk", [None, 5])
def test_thickness_is_that_of_loops_over_draws_steps_and_pairs(surrogate, reduction, chunk):
    inputs, target = normal(3, 9), [2, 0, 1]
    saliency, perturb = Saliency(softplus_net(9)), Recorder(radius=1.0)
    found = ranking_thickness(
        saliency.attribute, inputs, 4, perturb, n_perturb_samples=4, n_steps=5,
        surrogate=surrogate, reduction=reduction, max_examples_per_batch=chunk, seed=0,
        target=target,
    )  # fmt: skip
    assert found.shape == (3,) and len(perturb.returned) == 4
    expected = [
        thickness(
            lambda point, i=i: saliency.attribute(point.requires_grad_(), target[i]).detach(),
            inputs[i : i + 1].clone(), perturb.neighbours(i), 4, 5, surrogate, reduction,
        )
        for i in range(3)
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert len({round(value, 6) for value in expected}) == 3


def saliency_by_hand(net):
    def explain(inputs, target):
        return torch.autograd.grad(net(inputs)[:, target].sum(), inputs)[0]

    return explain


ATTRIBUTIONS = {
    "own function": saliency_by_hand,
    "InputXGradient": lambda net: InputXGradient(net).attribute,
    "IntegratedGradients": lambda net: functools.partial(
        IntegratedGradients(net).attribute, n_steps=4
    ),
    "FeatureAblation": lambda net: FeatureAblation(net).attribute,
    # With noise of size zero, the mean over the samples is the map itself.
    "NoiseTunnel": lambda net: functools.partial(
        NoiseTunnel(Saliency(net)).attribute, nt_samples=3, stdevs=0.0
    ),
}


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_thickness_of_any_explanation(name):
    inputs, attribute = normal(2, 9), ATTRIBUTIONS[name](softplus_net(9))
    perturb = Recorder(radius=2.0)
    found = ranking_thickness(
        attribute, inputs, 4, perturb, n_perturb_samples=3, n_steps=4, target=1, seed=0
    )
    expected = [
        thickness(
            lambda point: attribute(point.requires_grad_(), target=1).detach(),
            inputs[i : i + 1].clone(), perturb.neighbours(i), 4, 4,
        )
        for i in range(2)
    ]  # fmt: skip
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert min(expected) < 1


def test_thickness_of_images_and_of_layers():
    net, inputs = softplus_conv_net(), normal(2, 2, 4, 4)
    for attribute in (Saliency(net).attribute, LayerGradCam(net, net[0]).attribute):
        perturb = Recorder(radius=4.0)
        found = ranking_thickness(
            attribute, inputs, 2, perturb, n_perturb_samples=3, n_steps=4, target=1, seed=0
        )
        expected = [
            thickness(
                lambda point, attribute=attribute: attribute(point.requires_grad_(), 1).detach(),
                inputs[i : i + 1].clone(), perturb.neighbours(i), 2, 4,
            )
            for i in range(2)
        ]  # fmt: skip
        assert found.tolist() == pytest.approx(expected, abs=1e-12)
        assert min(expected) < 1


def test_tuples_are_ranked_jointly():
    net, inputs = softplus_net(5), normal(3, 5)
    joint = ranking_thickness(Saliency(net).attribute, inputs, 2, moved_by_one, 1, 1, target=0)
    split = Saliency(lambda a, b: net(torch.cat([a, b], dim=1)))
    parts = inputs[:, :2], inputs[:, 2:]
    found = ranking_thickness(split.attribute, parts, 2, moved_by_one, 1, 1, target=0)
    torch.testing.assert_close(found, joint)
    assert (joint < 1).any()


def moved_by_one(inputs):
    if isinstance(inputs, tuple):
        return tuple(t + 1 for t in inputs)
    return inputs + 1


@pytest.mark.parametrize("absolute", [False, True])
def test_maps_are_ranked_by_size_on_request(absolute):
    net, inputs = softplus_net(6), normal(3, 6)
    given = functools.partial(Saliency(net).attribute, abs=False, target=0)
    made = functools.partial(Saliency(net).attribute, abs=absolute, target=0)
    found = ranking_thickness(given, inputs, 2, perturb_radius=1, absolute=absolute, seed=0)
    assert torch.equal(found, ranking_thickness(made, inputs, 2, perturb_radius=1, seed=0))
    other = ranking_thickness(given, inputs, 2, perturb_radius=1, absolute=not absolute, seed=0)
    assert not torch.equal(found, other)


def test_maps_of_the_inputs_may_be_given():
    attribute, inputs = Saliency(softplus_net(6)).attribute, normal(3, 6)
    maps = attribute(inputs.clone().requires_grad_(), target=0)
    watch = Watch(attribute)
    common = {"perturb_radius": 1, "n_perturb_samples": 2, "n_steps": 3, "target": 0, "seed": 0}
    found = ranking_thickness(watch, inputs, 2, reference_attributions=maps, **common)
    assert torch.equal(found, ranking_thickness(attribute, inputs, 2, **common))
    assert watch.n_rows == 3 * 2 * 3
    other = ranking_thickness(watch, inputs, 2, reference_attributions=-maps, **common)
    assert not torch.equal(found, other)


@some
@given(st.integers(0, 1000), st.sampled_from([2.0**-40, 1024.0]), st.permutations(range(6)))
def test_thickness_sees_the_order_only(seed, scale, order):
    inputs, weights = normal(3, 6, seed=seed), normal(6, 6, seed=1)

    def explain(x):
        return x @ weights

    arguments = {"perturb_radius": 1.0, "n_perturb_samples": 3, "n_steps": 4, "seed": 0}
    found = ranking_thickness(explain, inputs, 2, **arguments)
    for other in (lambda x: scale * explain(x), lambda x: explain(x)[:, order]):
        assert torch.equal(ranking_thickness(other, inputs, 2, **arguments), found)
    margin = ranking_thickness(explain, inputs, 2, surrogate="margin", **arguments)
    scaled = ranking_thickness(
        lambda x: scale * explain(x), inputs, 2, surrogate="margin", **arguments
    )
    torch.testing.assert_close(scaled, scale * margin, rtol=1e-9, atol=0)


# --- closed forms ------------------------------------------------------------------------------


@every_noise
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_linear_model_has_thickness_one(noise, reduction):
    found = ranking_thickness(
        Saliency(a_linear_model()).attribute, normal(4, 6), 2, noise, 10.0, reduction=reduction,
        target=1,
    )  # fmt: skip
    assert found.tolist() == [1.0] * 4


def test_the_margin_of_a_linear_model_is_its_gap():
    model = a_linear_model()
    found = ranking_thickness(
        Saliency(model).attribute, normal(4, 6), 2, surrogate="margin", abs=False, target=1
    )
    row = model.weight[1].tolist()
    assert found.tolist() == pytest.approx([mean(gaps(row, stable_top_k(row, 2)))] * 4)


@pytest.mark.parametrize(("n_held", "n_steps"), [(12, 32), (1, 8), (31, 32), (5, 10)])
def test_a_flip_at_a_known_time(n_held, n_steps):
    # The map of (a, b) is (a, b) itself; on the way from (1, 0) to (1, c) they meet at t = 1 / c.
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.ones(1, 2).double()
    at = n_held / n_steps
    found = ranking_thickness(
        InputXGradient(model).attribute, torch.tensor([[1.0, 0.0]]).double(), 1,
        lambda x: torch.tensor([[1.0, 1 / at]]).double(), n_steps=n_steps, target=0,
    )  # fmt: skip
    assert found.tolist() == [pytest.approx(at, abs=1e-15)]


@some
@given(st.integers(0, 1000), st.integers(1, 4))
def test_thickness_of_a_quadratic_model(seed, k):
    n, n_steps = 5, 400
    curvature = normal(n, n, seed=seed)
    model = Quadratic(curvature + curvature.T, normal(n, seed=seed + 1))
    inputs, moves = normal(3, n, seed=seed + 2), normal(3, n, seed=seed + 3)
    arguments = {"perturb_func": lambda x: x + moves, "n_perturb_samples": 1, "abs": False}
    attribute = Saliency(model).attribute
    found = ranking_thickness(attribute, inputs, k, n_steps=n_steps, **arguments)
    margin = ranking_thickness(attribute, inputs, k, n_steps=3, surrogate="margin", **arguments)
    for row, move, value, gap in zip(inputs, moves, found.tolist(), margin.tolist(), strict=True):
        ends = [(model.curvature @ x + model.slope).tolist() for x in (row, row + move)]
        top = stable_top_k(ends[0], k)
        starts_and_ends = zip(*(gaps(end, top) for end in ends), strict=True)
        pairs = [fraction_above_zero(*pair) for pair in starts_and_ends]
        assert value == pytest.approx(mean(pairs), abs=0.5 / n_steps + 1e-9)
        # The margin is linear in t, so that the midpoints integrate it exactly.
        assert gap == pytest.approx(mean(mean(gaps(end, top)) for end in ends), abs=1e-10)


def test_the_minimum_is_that_of_the_draws():
    # Along the way to a neighbour the map (a, b) = x keeps its order or does not: draws of 0 and 1.
    moves = iter([0.0, 0.0, 3.0, 0.0])

    def perturb(x):
        return x + torch.tensor([[0.0, next(moves)]])

    found = ranking_thickness(
        lambda x: x, torch.tensor([[1.0, 0.0]]), 1, perturb, n_perturb_samples=4, n_steps=6,
        reduction="min",
    )  # fmt: skip
    assert found.tolist() == [pytest.approx(2 / 6)]  # t = 1/12 and 3/12 lie below 1/3


def test_features_that_tie_hold_their_order():
    steps = iter([0.0, 1.0])

    def explain(x):  # equal at the top of the neighbours, not at the start
        return torch.tensor([[2.0 - next(steps), 1.0, 0.0]]) + 0 * x

    found = ranking_thickness(
        explain, torch.zeros(1, 3), 1, lambda x: x + 1, n_perturb_samples=1, n_steps=1
    )
    assert found.tolist() == [1.0]


# --- counted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 7, 1000])
@pytest.mark.parametrize("sampling", ["grid", "stratified"])
@pytest.mark.parametrize("perturb_func", [UniformNoise(), Recorder(0.1)])
def test_every_point_is_explained_once(chunk, sampling, perturb_func):
    n_examples, n_samples, n_steps = 5, 3, 4
    watch = Watch(Saliency(softplus_net(6)).attribute)
    ranking_thickness(
        watch, normal(n_examples, 6), 2, perturb_func, 0.1, n_samples, n_steps, sampling=sampling,
        max_examples_per_batch=chunk, target=0,
    )  # fmt: skip
    assert watch.n_rows == n_examples * n_samples * n_steps + n_examples
    assert max(len(p) for p in watch.points) <= (chunk or 1000)
    assert len(torch.cat(watch.points).unique(dim=0)) == watch.n_rows


def test_the_progress_bar_counts_the_points(capsys):
    arguments = {"n_perturb_samples": 3, "n_steps": 4, "target": 0}
    attribute, inputs = Saliency(softplus_net(6)).attribute, normal(5, 6)
    ranking_thickness(attribute, inputs, 2, show_progress=True, **arguments)
    shown = capsys.readouterr().err
    assert "60/60" in shown and "100%" in shown
    ranking_thickness(attribute, inputs, 2, **arguments)
    assert capsys.readouterr() == ("", "")
