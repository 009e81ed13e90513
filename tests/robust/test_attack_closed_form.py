"""Models whose worst perturbation can be written down: quadratic and linear ones."""

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.metrics import precision_at_k
from captum_robust.robust import ERAttack, MSEAttack, ZeroGradientWarning
from tests.robust.targets import Quadratic, normal, pairs_of

N, K, RADIUS = 6, 2, 0.7
PAIRS = ["all", "anchor", "mm"]


def map_of(model, x):
    return x @ model.A + model.b


def weights_of(reference, pairs):
    """The derivative of the sum of gaps by the map: +1 for the upper feature, −1 for the lower."""
    weights = torch.zeros_like(reference)
    for row, start in zip(weights, reference, strict=True):
        for i, j in pairs_of(start, K, pairs):
            row[i] += 1
            row[j] -= 1
    return weights


def worst(gradient, norm):
    if norm == "Linf":
        return -RADIUS * gradient.sign()
    return -RADIUS * gradient / gradient.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("options", [{}, {"gradient": "finite_difference"}, {"path_points": 4}])
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_linear_gap_of_a_quadratic_model_reaches_its_minimum(norm, pairs, options):
    model, x = Quadratic(N), normal(4, N)
    weights = weights_of(map_of(model, x), pairs)
    best = x + worst(weights @ model.A, norm)
    share = (1 + 1 / 4) / 2 if "path_points" in options else 1  # the mean of 1/4, 2/4, 3/4, 4/4
    value = (weights * map_of(model, x + share * (best - x))).sum(dim=1)

    attack = ERAttack(Saliency(model), k=K, pairs=pairs, preserve_prediction="none", **options)
    moved, info = attack.perturb(x, RADIUS, norm=norm, abs=False, return_info=True)
    assert torch.allclose(moved, best, rtol=0, atol=1e-9)
    assert torch.allclose(info.objective, value, rtol=1e-9, atol=0)
    # One step of the length of the radius is enough: the gradient is the same everywhere.
    once = attack.perturb(x, RADIUS, RADIUS, step_num=1, norm=norm, abs=False)
    assert torch.allclose(once, best, rtol=0, atol=1e-9)


def test_spsa_comes_close_to_the_minimum_of_a_quadratic_model():
    model, x = Quadratic(N), normal(4, N)
    weights = weights_of(map_of(model, x), "all")
    gradient = weights @ model.A
    best = (weights * map_of(model, x)).sum(dim=1) - RADIUS * gradient.norm(dim=1)
    attack = ERAttack(Saliency(model), k=K, gradient="spsa", preserve_prediction="none")
    _, info = attack.perturb(x, RADIUS, norm="L2", abs=False, seed=0, return_info=True)
    assert (info.objective >= best - 1e-9).all()
    assert (info.objective - best < 0.05 * RADIUS * gradient.norm(dim=1)).all()


def test_the_mse_of_a_quadratic_model_grows_along_the_steepest_direction_of_its_map():
    model, x = Quadratic(N), normal(4, N)
    steepest = torch.linalg.matrix_norm(model.A, ord=2)
    attack = MSEAttack(Saliency(model), preserve_prediction="none")
    _, info = attack.perturb(
        x, RADIUS, RADIUS, step_num=200, norm="L2", abs=False, seed=0, return_info=True
    )
    largest = -((RADIUS * steepest) ** 2) / N
    assert torch.allclose(info.objective, largest.expand(4), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_large_radius_leaves_none_of_the_top_features(norm):
    model = Quadratic(N)
    model.A = torch.eye(N, dtype=torch.float64)  # the map moves as the input does
    x = normal(5, N)
    spread = (x + model.b).amax() - (x + model.b).amin()
    attack = ERAttack(Saliency(model), k=3, preserve_prediction="none")  # n = 2k: all can go
    moved = attack.perturb(x, float(2 * spread), norm=norm, abs=False)
    assert (precision_at_k(map_of(model, moved), map_of(model, x), k=3) == 0).all()


def test_a_linear_model_keeps_its_ranking_and_says_why():
    model, x = nn.Linear(6, 3).double(), normal(5, 6).requires_grad_()
    saliency, target = Saliency(model), torch.tensor([0, 1, 2, 0, 1])
    with pytest.warns(
        ZeroGradientWarning, match="smooth_relu=10.0 or gradient='finite_difference'"
    ):
        moved = ERAttack(saliency, k=2).perturb(x, 5.0, target=target)
    assert torch.equal(moved, x)
    with pytest.warns(ZeroGradientWarning):
        attack = ERAttack(saliency, k=2, preserve_prediction="none", gradient="spsa")
        moved = attack.perturb(x, 5.0, step_num=3, target=target, random_start=True, seed=0)
    maps = [saliency.attribute(p.requires_grad_(), target=target) for p in (x, moved)]
    assert (precision_at_k(maps[1], maps[0], k=2) == 1).all()
