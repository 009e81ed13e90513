"""The targeted attack: the loss by definition, the prediction term, one target per example."""

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

from captum_robust.robust import TargetMapAttack
from captum_robust.robust.objectives import TargetMapObjective
from tests.robust.targets import Quadratic, TwoInputs, mlp, normal, relu_mlp, stock_scores

RUN = {"radius": 0.4, "target": 1, "return_info": True}


def part(row):
    return row / sum(abs(value) for value in row)


def distance(scores, reference, target):
    """The map part of the loss, row by row."""
    target = target.expand_as(scores)
    values = []
    for now, start, aim in zip(scores, reference, target, strict=True):
        far, first = (sum((part(m) - part(aim)) ** 2) for m in (now, start))
        values.append(far / first)
    return torch.stack(values)


def loss(model, moved, x, target, weight=1.0):
    end, start = (stock_scores(Saliency(model), p, 1) for p in (moved, x))
    change = (model(moved) - model(x)).detach().square().sum(dim=1)
    return distance(end, start, target) + weight * change


def test_the_objective_by_hand():
    scores, start = torch.tensor([[2.0, -2.0, 4.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    target = torch.tensor([[0.0, 0.0, 5.0]])
    found = TargetMapObjective(target)(scores, start)
    assert torch.allclose(found, torch.tensor([(0.25**2 + 0.25**2 + 0.5**2) / 2]))
    assert TargetMapObjective(target)(start, start).item() == 1
    assert TargetMapObjective(target)(3 * target, start).item() == 0
    assert TargetMapObjective(start)(start, start).item() == 0, "nothing to aim for"


def test_its_slope():
    scores, reference = normal(3, 6).requires_grad_(), normal(3, 6, seed=1)
    objective = TargetMapObjective(normal(1, 6, seed=2))
    assert torch.autograd.gradcheck(lambda s: objective(s, reference), scores)


@pytest.mark.parametrize("gradient", ["autograd", "finite_difference", "spsa"])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_reported_objective_is_the_loss_and_falls(weight, gradient):
    model, x, target = mlp(), normal(5, 6), normal(5, 6, seed=3).abs()
    attack = TargetMapAttack(Saliency(model), target, weight, gradient=gradient)
    moved, info = attack.perturb(x, seed=0, **RUN)
    assert torch.allclose(info.objective, loss(model, moved, x, target, weight), atol=1e-9)
    assert torch.allclose(info.trace[0, 0], torch.ones(5).double())
    assert (info.objective < 0.95).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_target_that_the_ball_holds_is_reached(norm):
    model, x = Quadratic(6), normal(4, 6)
    model.b = 8 + normal(6, seed=5)
    offsets = 0.5 * normal(4, 6, seed=9).tanh() / 6**0.5
    target = stock_scores(Saliency(model), x + offsets)
    options = {"preserve_prediction": "none", "step_rule": "halving", "prediction_weight": 0.0}
    _, info = TargetMapAttack(Saliency(model), 7 * target, **options).perturb(
        x, 0.5, norm=norm, step_num=200, return_info=True
    )
    assert (info.objective < 1e-2).all()


# --- the prediction term -------------------------------------------------------------------------


class Sum(nn.Module):
    """A map that no move changes, and a second output that every move changes."""

    def forward(self, x):
        weights = torch.tensor([1.0, 2.0, 4.0]).to(x)
        return torch.stack([x @ weights, x.square().sum(dim=1)], dim=1)


@pytest.mark.parametrize("gradient", ["autograd", "finite_difference", "spsa"])
def test_the_gradient_of_the_prediction_term_reaches_the_attack(gradient):
    x, start = torch.zeros(1, 3).double(), torch.full((1, 3), 0.25).double()
    target = torch.tensor([[4.0, 2.0, 1.0]]).double()
    run = {"radius": 0.5, "target": 0, "start": start, "norm": "L2", "seed": 0}
    run |= {"step_size": 0.02, "step_num": 10}
    seen = []

    def remember(points):
        seen.append(points.clone())
        return points

    attack = TargetMapAttack(
        Saliency(Sum()), target, 1.0, preserve_prediction="none", gradient=gradient
    )
    attack.perturb(x, project=remember, **run)
    begin, end = seen[0], seen[-1]
    # The map part has no slope: only the term moves the point, back towards the example.
    assert (end.norm() < begin.norm() - 0.1).all()
    if gradient != "spsa":
        weights = torch.tensor([1.0, 2.0, 4.0]).double()
        slope = 2 * (begin @ weights) * weights + 4 * begin.square().sum() * begin
        step = seen[1] - begin
        assert torch.allclose(step, -0.02 * slope / slope.norm(), atol=1e-9)


def test_a_heavier_term_keeps_the_output_closer_at_the_price_of_the_map():
    model, x, target = mlp(), normal(20, 6), normal(1, 6, seed=3).abs()
    changes, distances = [], []
    for weight in (0.0, 1.0, 100.0):
        attack = TargetMapAttack(Saliency(model), target, weight)
        moved, _ = attack.perturb(x, **RUN)
        changes.append((model(moved) - model(x)).square().sum(dim=1).mean())
        distances.append(loss(model, moved, x, target, 0.0).mean())
    assert changes[0] > 2 * changes[1] and changes[1] > 5 * changes[2]
    assert distances[0] < distances[1] < distances[2]


def test_soft_constraints_have_no_second_term_beside_them():
    options = {"preserve_prediction": "gda"}
    with pytest.raises(ValueError, match="prediction_weight must be 0 with preserve_prediction"):
        TargetMapAttack(Saliency(mlp()), torch.ones(1, 6), **options)
    attack = TargetMapAttack(Saliency(mlp()), torch.ones(1, 6), 0.0, **options)
    _, info = attack.perturb(normal(5, 6), **RUN)
    assert (info.objective < 0.95).all()


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_the_weight_is_checked(weight):
    with pytest.raises(ValueError, match="prediction_weight must be finite and not negative"):
        TargetMapAttack(Saliency(mlp()), torch.ones(1, 6), weight)


# --- targets follow their examples ---------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("keep", ["objective", "precision"])
def test_every_example_has_its_own_target(keep, chunk):
    model, x, target = mlp(), normal(5, 6), normal(5, 6, seed=3).abs()
    options = {"k": 1, "keep": keep, "prediction_weight": 0.2}
    moved, info = TargetMapAttack(Saliency(model), target, **options).perturb(
        x, step_num=15, n_restarts=2, seed=0, max_examples_per_batch=chunk, **RUN
    )
    assert torch.allclose(info.objective, loss(model, moved, x, target, 0.2), atol=1e-9)
    assert keep == "objective" or len(info.n_queries.unique()) > 1, "none was left out"
    for i in range(5):
        alone = TargetMapAttack(Saliency(model), target[i : i + 1], **options)
        own, _ = alone.perturb(x[i : i + 1], step_num=15, n_restarts=2, seed=0, **RUN)
        assert torch.allclose(moved[i : i + 1], own, rtol=0, atol=1e-9)


def test_groups_and_magnitudes_are_those_of_the_maps():
    model, x, target = mlp(), normal(5, 6), normal(1, 6, seed=3)
    groups = torch.stack([torch.tensor([0, 0, 1, 1, 2, 2]).roll(i) for i in range(5)])
    attack = TargetMapAttack(InputXGradient(model), target, 0.0, absolute=True, feature_mask=groups)
    moved, info = attack.perturb(x, max_examples_per_batch=2, **RUN)

    def grouped(maps):
        return torch.stack(
            [
                torch.stack([row[g == n].abs().sum() for n in range(3)])
                for row, g in zip(maps, groups, strict=True)
            ]
        )

    end, start = (grouped(stock_scores(InputXGradient(model), p, 1)) for p in (moved, x))
    assert torch.allclose(
        info.objective, distance(end, start, grouped(target.expand(5, 6))), atol=1e-9
    )


def test_a_tuple_of_maps():
    model, pair = TwoInputs(), (normal(5, 3), normal(5, 1, 2, seed=1))
    target = (normal(1, 3, seed=4).abs(), normal(1, 1, 2, seed=5).abs())
    moved, info = TargetMapAttack(Saliency(model), target, 0.0).perturb(pair, **RUN)
    end, start = (stock_scores(Saliency(model), p, 1) for p in (moved, pair))
    aim = torch.cat([t.flatten(1) for t in target], dim=1)
    assert torch.allclose(info.objective, distance(end, start, aim), atol=1e-9)


@pytest.mark.parametrize("shape", [(6,), (1, 5), (4, 6), (1, 2, 3)])
def test_targets_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="target_map must have the shapes"):
        TargetMapAttack(Saliency(mlp()), torch.ones(shape)).perturb(normal(5, 6), **RUN)


def test_a_relu_network_with_a_growing_beta_and_targets_of_other_precision():
    model, x = relu_mlp().float(), normal(20, 6).float()
    target = normal(1, 6, seed=3).abs()
    attack = TargetMapAttack(Saliency(model), target, 0.1, smooth_relu=(5.0, 50.0))
    moved, info = attack.perturb(x, **RUN)
    value = loss(model, moved, x, target.float(), 0.1)
    assert info.objective.dtype == torch.float32
    assert torch.allclose(info.objective, value, atol=1e-5) and value.mean() < 0.85
