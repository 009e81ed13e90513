"""The top-k attack against the whole ball, and against what it promises about scale."""

from itertools import product

import pytest
import torch
from captum.attr import InputXGradient, Saliency

from captum_robust.metrics import precision_at_k
from captum_robust.robust import ERAttack, TopKAttack
from captum_robust.robust.objectives import TopKObjective
from tests.robust.targets import Quadratic, mlp, normal, ranked, relu_mlp, share, stock_scores

N, K, RADIUS = 6, 2, 0.5


def test_the_share_of_the_top_features_by_hand():
    scores = torch.tensor([[3.0, -1.0, 2.0, 4.0]])
    reference = torch.tensor([[0.0, 9.0, 8.0, 1.0]])  # its top two are features 1 and 2
    assert torch.allclose(TopKObjective(2)(scores, reference), torch.tensor([0.1]))
    assert torch.equal(TopKObjective(2)(0 * scores, reference), torch.tensor([0.0]))


@pytest.mark.parametrize("scale", [1e-36, 1e-3, 1e36])
def test_the_share_and_its_slope_have_no_scale(scale):
    reference = normal(3, 6)
    scores = (normal(3, 6, seed=1) * scale).float().requires_grad_()
    unit = normal(3, 6, seed=1).requires_grad_()
    found, expected = TopKObjective(2)(scores, reference), TopKObjective(2)(unit, reference)
    assert torch.allclose(found.double(), share(2)(unit, reference), rtol=1e-5)
    (slope,) = torch.autograd.grad(found.sum(), scores)
    (direction,) = torch.autograd.grad(expected.sum(), unit)
    assert torch.allclose(slope.double() * scale, direction, rtol=1e-3, atol=1e-5)


def test_the_slope_is_that_of_the_share():
    scores, reference = normal(3, 6).requires_grad_(), normal(3, 6, seed=1)
    assert torch.autograd.gradcheck(lambda s: TopKObjective(2)(s, reference), scores)


def positive_model():
    """A quadratic model whose map is positive all over the ball: the share is a linear fraction."""
    model = Quadratic(N)
    model.b = 8 + normal(N, seed=5)
    return model


def worst_share(model, x, norm):
    """Such a quotient is smallest at a corner, or where its level line touches the ball."""
    start = x @ model.A + model.b
    top = torch.zeros(N).double()
    top[ranked(start)[:K]] = 1.0
    if norm == "Linf":
        corners = x + RADIUS * torch.tensor(list(product((-1.0, 1.0), repeat=N))).double()
        maps = corners @ model.A + model.b
        assert (maps > 0).all()
        return (maps @ top / maps.sum(dim=1)).min()
    low, high = 0.0, 1.0
    for _ in range(60):
        level = (low + high) / 2
        weights = top - level
        below = weights @ start - RADIUS * (model.A @ weights).norm() < 0
        low, high = (low, level) if below else (level, high)
    return torch.tensor(level)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_share_of_a_quadratic_model_reaches_its_minimum(norm):
    model, x = positive_model(), normal(4, N)
    worst = torch.stack([worst_share(model, row, norm).double() for row in x])
    attack = TopKAttack(Saliency(model), K, preserve_prediction="none")
    _, info = attack.perturb(x, RADIUS, norm=norm, return_info=True)
    assert torch.allclose(info.objective, worst, rtol=0, atol=1e-4)
    assert (info.trace[0, 0] > worst + 0.02).all()


def test_lost_features_are_those_of_the_start_and_k_is_checked():
    model, x = mlp(), normal(20, 6)
    moved, info = TopKAttack(Saliency(model), K).perturb(x, 0.6, target=1, return_info=True)
    start, end = (stock_scores(Saliency(model), p, 1) for p in (x, moved))
    changed = [set(ranked(a)[:K]) != set(ranked(b)[:K]) for a, b in zip(start, end, strict=True)]
    assert any(changed) and (info.first_change_step[torch.tensor(changed)] >= 0).all()
    for k in (0, 6):
        with pytest.raises(ValueError, match="k must be an int"):
            TopKAttack(Saliency(model), k).perturb(x, 0.6, target=1)


def test_a_share_is_harder_to_turn_into_a_lost_feature_than_the_gaps():
    model, x, arguments = relu_mlp(), normal(60, 6), {"radius": 0.4, "target": 1}
    options = {"smooth_relu": 5.0, "keep": "precision"}
    reference = stock_scores(Saliency(model), x, 1)
    left = {}
    for kind in (TopKAttack, ERAttack):
        moved = kind(Saliency(model), K, **options).perturb(x, **arguments)
        left[kind] = precision_at_k(stock_scores(Saliency(model), moved, 1), reference, K).mean()
    assert left[TopKAttack] < 0.8 and left[ERAttack] < left[TopKAttack] + 0.1


def test_magnitudes_of_attributions_with_a_sign():
    model, x = mlp(), normal(5, 6)
    moved, info = TopKAttack(InputXGradient(model), K, absolute=True).perturb(
        x, 0.4, target=1, return_info=True
    )
    end, start = (stock_scores(InputXGradient(model), p, 1).abs() for p in (moved, x))
    assert torch.allclose(info.objective, share(K)(end, start), atol=1e-12)
    assert (info.objective > 0).all() and (info.objective < share(K)(start, start) - 1e-3).all()
