"""Forms of the gradient: they hold what autograd finds anywhere in the ball, and little more."""

from itertools import product

import pytest
import torch

from captum_robust.certify.gradient import gradient_at, gradient_over_ball
from captum_robust.certify.network import read_network
from tests.certify.networks import (
    ACTIVATIONS,
    HIDDEN,
    gradients,
    points_of_balls,
    random_network,
)
from tests.metrics.definitions import normal

N, N_POINTS = 8, 64
CASES = list(product(ACTIVATIONS, HIDDEN, ["Linf", "L2"]))


def forms(network, inputs, radius, norm, target=1):
    output = torch.full((len(inputs),), target)
    return gradient_over_ball(read_network(network), inputs, output, radius, norm)


@pytest.mark.parametrize("name, hidden, norm", CASES)
@pytest.mark.parametrize(
    "gain, scale",
    [
        (1.5, 1.0),
        pytest.param(0.3, 1.0, marks=pytest.mark.slow),
        pytest.param(1.0, 0.1, marks=pytest.mark.slow),
        pytest.param(10.0, 10.0, marks=pytest.mark.slow),
    ],
)
def test_no_point_of_the_ball_leaves_the_form(name, hidden, norm, gain, scale):
    network = random_network([4, *HIDDEN[hidden], 2], ACTIVATIONS[name], seed=1, gain=gain)
    inputs, radius = scale * normal(N, 4), torch.logspace(-8, 1, N, dtype=torch.float64)
    form = forms(network, inputs, radius, norm)
    points = points_of_balls(inputs, radius, norm, N_POINTS)
    found = gradients(network, points.flatten(0, 1), 1).view(N, N_POINTS, 4)
    assert ((found - form.centre[:, None]).abs() <= form.radius[:, None]).all()
    # Nor does a sum with other weights, in which the symbols cancel or add up.
    weights = normal(5, 4, seed=3)
    sums = form.linear(weights)
    away = (found @ weights.T - sums.centre[:, None]).abs()
    assert (away <= sums.radius[:, None]).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_a_point_has_its_gradient(name, hidden):
    network = random_network([4, *HIDDEN[hidden], 2], ACTIVATIONS[name], seed=2)
    inputs = normal(N, 4)
    form = forms(network, inputs, torch.zeros(N, dtype=torch.float64), "L2", target=0)
    if name != "low threshold":  # whose derivative jumps, by what the form takes into account
        assert (form.radius < 1e-7 * (1 + form.centre.abs())).all()
        torch.testing.assert_close(form.centre, gradients(network, inputs), atol=1e-7, rtol=1e-7)
    assert ((form.centre - gradients(network, inputs)).abs() <= form.radius).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_the_gradient_at_a_point_is_that_of_the_network(name, hidden):
    network = random_network([4, *HIDDEN[hidden], 2], ACTIVATIONS[name], seed=2)
    inputs, outputs = normal(N, 4), torch.arange(N) % 2
    with torch.no_grad():
        found = gradient_at(read_network(network), inputs, outputs)
    of_both = torch.stack([gradients(network, inputs, target) for target in (0, 1)], dim=1)
    torch.testing.assert_close(found, of_both[torch.arange(N), outputs])
    assert not inputs.requires_grad and not found.requires_grad


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "tanh"])
@pytest.mark.parametrize("hidden", ["one layer", "two layers", "three layers"])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_forms_are_exact_to_first_order(name, hidden, norm):
    network = random_network([4, *HIDDEN[hidden], 1], ACTIVATIONS[name], seed=3)
    inputs = normal(N, 4)
    hessian = torch.stack(
        [torch.autograd.functional.hessian(lambda x: network(x[None])[0, 0], x) for x in inputs]
    )
    dual = hessian.abs().sum(dim=2) if norm == "Linf" else hessian.norm(dim=2)
    excess = []
    for length in (1e-2, 1e-3):
        radius = torch.full((N,), length, dtype=torch.float64)
        form = forms(network, inputs, radius, norm, target=0)
        excess.append(form.radius - length * dual)
    ratios = excess[0].sum(dim=1) / excess[1].sum(dim=1)
    assert ((ratios > 80) & (ratios < 125)).all()


def test_a_linear_network_has_one_gradient():
    network = random_network([4, *HIDDEN["linear"], 3], ACTIVATIONS["tanh"], seed=4)
    form = forms(network, normal(N, 4), torch.full((N,), 1e6, dtype=torch.float64), "Linf", 2)
    torch.testing.assert_close(form.centre, network[0].weight[2].detach().expand(N, 4))
    assert (form.radius < 1e-14).all()


def test_every_example_has_its_own_output_and_radius():
    network = random_network([4, 6, 3], ACTIVATIONS["tanh"], seed=5)
    inputs, radius = normal(N, 4), torch.rand(N, dtype=torch.float64)
    outputs = torch.arange(N) % 3
    form = gradient_over_ball(read_network(network), inputs, outputs, radius, "L2")
    for i in range(N):
        alone = forms(network, inputs[i : i + 1], radius[i : i + 1], "L2", int(outputs[i]))
        torch.testing.assert_close(alone.centre, form.centre[i : i + 1])
        torch.testing.assert_close(alone.radius, form.radius[i : i + 1])


def test_a_layer_that_is_not_followed_by_an_activation():
    torch.manual_seed(0)
    linear = torch.nn.Linear
    network = torch.nn.Sequential(
        linear(4, 5), linear(5, 6), torch.nn.Tanh(), linear(6, 5), linear(5, 2)
    ).double()
    inputs, radius = normal(N, 4), torch.full((N,), 0.1, dtype=torch.float64)
    form = forms(network, inputs, radius, "L2")
    points = points_of_balls(inputs, radius, "L2", N_POINTS)
    found = gradients(network, points.flatten(0, 1), 1).view(N, N_POINTS, 4)
    assert ((found - form.centre[:, None]).abs() <= form.radius[:, None]).all()
    assert (form.radius < 3 * (found - form.centre[:, None]).abs().amax(dim=1)).all()
