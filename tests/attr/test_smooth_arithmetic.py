"""`smooth_relu` smooths models, and never the arithmetic of this library or of Captum."""

import pkgutil
from functools import partial

import pytest
import torch
from captum.attr import Saliency
from captum.robust import PGD
from torch import nn

import captum_robust
from captum_robust.attr import smooth_relu
from captum_robust.attr._caller import _MODES
from captum_robust.models import TabularMLP
from captum_robust.robust import (
    ERAttack,
    GaussianNoise,
    MSEAttack,
    RandomSearchAttack,
    TopKAttack,
    UniformNoise,
)

RADIUS = 0.1
ATTACKS = {
    "ERAttack": partial(ERAttack, k=2),
    "TopKAttack": partial(TopKAttack, k=2),
    "MSEAttack": MSEAttack,
    "finite differences": partial(ERAttack, k=2, gradient="finite_difference"),
    "RandomSearchAttack": partial(RandomSearchAttack, k=2),
    "a constraint": partial(ERAttack, k=2, preserve_prediction="qp"),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)).double().eval()


def rows():
    return torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("make", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_inside_a_block_is_the_attack_outside(make, norm):
    """The network has no ReLU, so smoothing changes neither the ball nor the bounds nor a step."""
    attack = make(Saliency(network()), lower_bound=0.0, upper_bound=1.0)
    call = partial(attack.perturb, rows(), RADIUS, target=0, seed=0, norm=norm, step_num=5)
    outside = call(project=lambda x: x.clamp(min=0.05))
    with smooth_relu(beta=10.0):
        inside = call(project=lambda x: x.clamp(min=0.05))
    assert torch.equal(inside, outside)
    assert not torch.equal(inside, rows())


@pytest.mark.parametrize("noise", [UniformNoise, GaussianNoise])
def test_noise_inside_a_block_stays_within_its_bounds(noise):
    make = noise(lower_bound=0.0, upper_bound=1.0)
    with smooth_relu(beta=10.0):
        moved = make.perturb(rows(), 0.3, seed=0)
    assert torch.equal(moved, make.perturb(rows(), 0.3, seed=0))
    assert moved.min() == 0 and moved.max() == 1


def test_the_attack_of_captum_stays_in_its_ball():
    attack = PGD(network(), lower_bound=0.0, upper_bound=1.0)
    with smooth_relu(beta=10.0), pytest.warns(UserWarning, match="did not already require"):
        moved = attack.perturb(rows(), RADIUS, 0.05, 5, target=0)
    assert (moved - rows()).abs().max() <= RADIUS + 1e-12
    assert moved.min() >= 0 and moved.max() <= 1


def modules_of_the_library():
    for found in pkgutil.walk_packages(captum_robust.__path__, "captum_robust."):
        if not found.name.endswith(("__main__", "command")):
            yield found.name


@pytest.mark.parametrize("call", ["torch.relu(x)", "x.clamp(min=0)", "F.relu(x)"])
def test_no_module_of_this_library_is_smoothed_except_models(call):
    """A function written in any file, also one that is added later, keeps its exact clamps."""
    x = torch.zeros(1)
    smoothed = []
    for name in modules_of_the_library():
        scope = {"__name__": name, "torch": torch, "F": nn.functional}
        function = eval(f"lambda x: {call}", scope)
        with smooth_relu(beta=10.0):
            if float(function(x)) != 0:
                smoothed.append(name)
    models = {n for n in smoothed if n.startswith("captum_robust.models.")}
    assert TabularMLP.__module__ in models
    others = {"captum_robust.testing.models", "captum_robust._utils.captum"}
    # Modes see the calls of others, and pass them on.
    assert set(smoothed) == models | _MODES | others


def test_a_model_called_by_this_library_is_smoothed():
    """A function as forward function, and a module, are both seen through an attack."""
    torch.manual_seed(0)
    weight = torch.randn(6, 8, dtype=torch.float64)

    def forward(x):
        return torch.relu(x @ weight)[:, :3]

    seen = []
    for model in (forward, nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()):
        attack = ERAttack(Saliency(model), k=2)
        with smooth_relu(beta=5.0):
            _, info = attack.perturb(rows(), RADIUS, target=0, step_num=3, return_info=True)
        seen.append(bool(info.gradient_found.all()))
    assert seen == [True, True]
