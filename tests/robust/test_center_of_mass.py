"""The mass-centre attack against SciPy and a grid over the whole ball."""

from itertools import product

import pytest
import torch
from captum.attr import LayerGradCam, Saliency
from scipy import ndimage
from torch import nn

from captum_robust.metrics import center_of_mass_shift
from captum_robust.robust import CenterOfMassAttack, ExplanationAttack, ZeroGradientWarning
from captum_robust.robust.objectives import CenterOfMassObjective
from tests.robust.targets import (
    Quadratic,
    TwoInputs,
    convnet,
    drawn,
    mlp,
    normal,
    relu_mlp,
    shift,
    stock_scores,
)


def centre(row, shape):
    mass = row.abs().reshape(shape)
    return torch.tensor(ndimage.center_of_mass((mass.sum(0) if mass.dim() == 3 else mass).numpy()))


@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 2, 3)])
def test_the_objective_is_the_distance_between_the_centres_of_scipy(shape):
    scores, reference = normal(5, 12), normal(5, 12, seed=1)
    expected = torch.stack(
        [
            -(centre(a, shape) - centre(b, shape)).norm()
            for a, b in zip(scores, reference, strict=True)
        ]
    )
    assert torch.allclose(CenterOfMassObjective((shape,))(scores, reference), expected, rtol=1e-9)
    assert torch.allclose(shift(shape)(scores, reference), expected, rtol=1e-9)
    if len(shape) == 1:
        assert torch.allclose(CenterOfMassObjective()(scores, reference), expected, rtol=1e-9)


def test_the_slope_is_that_of_the_distance():
    scores, reference = normal(3, 12).requires_grad_(), normal(3, 12, seed=1)
    objective = CenterOfMassObjective(((2, 2, 2), (4,)))
    assert torch.autograd.gradcheck(lambda s: objective(s, reference), scores)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_centre_of_a_quadratic_model_goes_as_far_as_it_can(norm):
    n, radius = 6, 0.5
    model, x = Quadratic(n), normal(4, n)
    model.b = 8 + normal(n, seed=5)  # a positive map: the centre is a quotient of linear functions
    options = {"preserve_prediction": "none", "step_rule": "halving"}
    run = {"norm": norm, "n_restarts": 6, "seed": 0, "return_info": True}
    _, info = CenterOfMassAttack(Saliency(model), **options).perturb(x, radius, **run)
    for row, found in zip(x, info.objective, strict=True):
        start = row @ model.A + model.b
        assert (start > 0).all()
        places = torch.arange(n).double()
        if norm == "Linf":  # such a quotient is largest at a corner
            corners = row + radius * torch.tensor(list(product((-1.0, 1.0), repeat=n))).double()
            maps = corners @ model.A + model.b
            ends = (maps @ places / maps.sum(dim=1)).aminmax()
        else:  # or where its level line touches the ball
            levels = torch.linspace(0, n - 1, 200_001).double()
            weights = places - levels[:, None]
            reach = radius * (weights @ model.A).norm(dim=1)
            ends = levels[(weights @ start).abs() <= reach].aminmax()
        centre = (start @ places) / start.sum()
        furthest = torch.stack([centre - ends.min, ends.max - centre]).max()
        assert found.item() == pytest.approx(-furthest.item(), abs=1e-4) and furthest > 0.1


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_map_may_have_another_shape_than_the_input(chunk):
    model = drawn(
        nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Conv2d(3, 2, 3), nn.Softplus(), nn.Flatten(),
            nn.Linear(24, 3),
        )
    )  # fmt: skip
    x, attribution = normal(5, 1, 7, 8), LayerGradCam(model, model[0])
    moved, info = CenterOfMassAttack(attribution).perturb(
        x, 0.5, target=1, seed=0, return_info=True, max_examples_per_batch=chunk
    )
    end, start = (attribution.attribute(p, target=1).detach() for p in (moved, x))
    assert start.shape == (5, 1, 5, 6)
    assert torch.allclose(info.objective, -center_of_mass_shift(end, start), atol=1e-9)
    assert (info.objective < -0.05).all()


def test_examples_that_are_left_out_leave_the_shape_of_the_others_alone():
    model, x = convnet(), normal(8, 1, 4, 4)
    attack = CenterOfMassAttack(Saliency(model), k=1, keep="precision")
    moved, info = attack.perturb(x, 0.5, target=0, seed=0, n_restarts=2, return_info=True)
    assert len(info.n_queries.unique()) > 1, "no example was left out"
    end, start = (stock_scores(Saliency(model), p, 0).view(-1, 1, 4, 4) for p in (moved, x))
    assert torch.allclose(info.objective, -center_of_mass_shift(end, start), atol=1e-9)


def test_the_centres_of_a_tuple_are_one_long_vector():
    model, pair = TwoInputs(), (normal(5, 3), normal(5, 1, 2, seed=1))
    moved, info = CenterOfMassAttack(Saliency(model)).perturb(
        pair, 0.4, target=1, seed=0, return_info=True
    )
    maps = [
        Saliency(model).attribute(tuple(t.requires_grad_() for t in p), 1) for p in (moved, pair)
    ]
    assert torch.allclose(info.objective, -center_of_mass_shift(*maps), atol=1e-9)


def test_shapes_that_were_given_stand():
    model, x = mlp(), normal(5, 6)
    attack = ExplanationAttack(Saliency(model), CenterOfMassObjective(((2, 3),)))
    moved, info = attack.perturb(x, 0.5, target=1, random_start=True, seed=0, return_info=True)
    end, start = (stock_scores(Saliency(model), p, 1).view(5, 2, 3) for p in (moved, x))
    assert torch.allclose(info.objective, -center_of_mass_shift(end, start), atol=1e-9)


def test_it_starts_where_it_is_not_stationary():
    attack, x = CenterOfMassAttack(Saliency(mlp())), normal(5, 6)
    with pytest.warns(ZeroGradientWarning, match="random_start=True"):
        attack.perturb(x, 0.3, target=1, random_start=False)
    _, info = attack.perturb(x, 0.3, target=1, seed=0, return_info=True)
    assert info.gradient_found.all() and (info.objective < -0.05).all()


def test_a_relu_network_by_its_softplus():
    x, arguments = normal(20, 6), {"radius": 0.5, "target": 1, "seed": 0, "return_info": True}
    _, info = CenterOfMassAttack(Saliency(relu_mlp()), smooth_relu=5.0).perturb(x, **arguments)
    _, kinks = CenterOfMassAttack(Saliency(relu_mlp()), gradient="finite_difference").perturb(
        x, **arguments
    )
    assert info.objective.mean() < -0.3 and kinks.objective.mean() < -0.3


def test_groups_have_no_position():
    with pytest.raises(ValueError, match="feature_mask must be None"):
        CenterOfMassAttack(Saliency(mlp()), feature_mask=torch.tensor([[0, 0, 1, 1, 2, 2]]))


def test_maps_of_five_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"attributions must have shape .* got \(2, 1, 1, 2, 3\)"):
        CenterOfMassAttack(Saliency(nn.Flatten())).perturb(
            normal(2, 1, 1, 2, 3)[:, :1], 0.1, target=0
        )
