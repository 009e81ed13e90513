"""CrossLipschitzLoss beside its definition: rows of an exact Hessian, one pair after another."""

from functools import partial

import pytest
import torch
from captum.attr import DeepLift, InputXGradient, Saliency
from torch import nn
from torch.autograd.functional import jacobian

from captum_robust.attr import NotDifferentiableError
from captum_robust.loss import CrossLipschitzLoss
from tests.loss.r2et_by_definition import (
    CLASSES,
    FORMS,
    class_loss,
    labels,
    mlp,
    normal,
    pairs_by_definition,
    parameter_gradients,
    score,
)


def ratios_by_definition(maps_of, x, y, k, pairs, k_prime):
    """Sum over the pairs of the gap divided by the length of its gradient, for each row."""
    totals = []
    for row, label in zip(x, y, strict=True):
        maps = maps_of(row, int(label))
        slopes = jacobian(partial(maps_of, label=int(label)), row)
        total = torch.zeros((), dtype=x.dtype)
        for i, j in pairs_by_definition(maps.tolist(), k, pairs, k_prime):
            total = total + (maps[i] - maps[j]) / (slopes[i] - slopes[j]).norm()
        totals.append(total)
    return torch.stack(totals)


def saliency(model, explain, row, label, groups=None, normalize=False):
    row = row if row.requires_grad else row.clone().requires_grad_()
    value = score(model(row[None]), label, explain)
    maps = torch.autograd.grad(value, row, create_graph=True)[0].abs()
    if groups is not None:
        maps = torch.stack([maps[groups == g].sum() for g in groups.unique()])
    return maps / maps.sum() if normalize else maps


def assert_is_the_definition(criterion, maps_of, form=CLASSES, pairs="mm", k=2, k_prime=None):
    x, y = normal(4, 6), labels(form)
    ratios = ratios_by_definition(maps_of, x, y, k, pairs, k if k_prime is None else k_prime)
    base = torch.stack(
        [class_loss(criterion.forward_func(x[i : i + 1]), int(y[i])) for i in range(4)]
    )
    torch.testing.assert_close(criterion(x, y), base - 0.3 * ratios)
    torch.testing.assert_close(criterion.last_terms["ratio"], ratios.mean().detach())


@pytest.mark.parametrize("pairs", ["mm", "anchor", "all"])
@pytest.mark.parametrize(("k", "k_prime"), [(1, None), (2, None), (3, 2), (4, 4), (5, 1)])
def test_pairs(k, k_prime, pairs):
    model = mlp()
    criterion = CrossLipschitzLoss(
        model, k, weight=0.3, pairs=pairs, k_prime=k_prime, reduction="none"
    )
    maps_of = partial(saliency, model, "probability")
    assert_is_the_definition(criterion, maps_of, pairs=pairs, k=k, k_prime=k_prime)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("explain", ["probability", "logit"])
def test_forms_of_the_outputs(explain, form):
    model = mlp(form)
    criterion = CrossLipschitzLoss(model, 2, weight=0.3, explain=explain, reduction="none")
    assert_is_the_definition(criterion, partial(saliency, model, explain), form)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 0, 2, 3, 3])])
def test_groups_and_normalised_maps(groups, normalize):
    model = mlp()
    criterion = CrossLipschitzLoss(
        model, 2, weight=0.3, feature_mask=groups, normalize=normalize, reduction="none"
    )
    maps_of = partial(saliency, model, "probability", groups=groups, normalize=normalize)
    assert_is_the_definition(criterion, maps_of)


def test_other_attributions():
    model = mlp()
    criterion = CrossLipschitzLoss(
        model, 2, weight=0.3, attribution=InputXGradient(model), reduction="none"
    )

    def maps_of(row, label):
        row = row if row.requires_grad else row.clone().requires_grad_()
        logit = model(row[None])[0, label]
        return row * torch.autograd.grad(logit, row, create_graph=True)[0]

    assert_is_the_definition(criterion, maps_of)
    losses = [
        CrossLipschitzLoss(model, 2, explain="logit", attribution=a)(normal(4, 6), labels())
        for a in (None, Saliency(model))
    ]
    torch.testing.assert_close(*losses)
    with pytest.raises(NotDifferentiableError, match="DeepLift"):
        CrossLipschitzLoss(model, 2, attribution=DeepLift(model))


def test_the_ratio_has_the_unit_of_the_inputs_whatever_the_scale_of_the_score():
    class Scaled(nn.Module):
        def __init__(self, outside, inside):
            super().__init__()
            self.model, self.outside, self.inside = mlp(), outside, inside

        def forward(self, x):
            return self.outside * self.model(self.inside * x)

    ratios = []
    for outside, inside in ((1.0, 1.0), (7.0, 1.0), (1.0, 2.0)):
        criterion = CrossLipschitzLoss(Scaled(outside, inside), 2, explain="logit")
        criterion(normal(4, 6) / inside, labels())
        ratios.append(criterion.last_terms["ratio"])
    torch.testing.assert_close(ratios[1], ratios[0])
    torch.testing.assert_close(ratios[2], ratios[0] / 2)


def test_a_pair_without_a_slope_adds_nothing():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    criterion = CrossLipschitzLoss(model, 2, explain="logit")
    loss = criterion(normal(4, 6), labels())
    assert criterion.last_terms["ratio"] == 0 and loss == criterion.last_terms["base"]
    assert torch.isfinite(parameter_gradients(loss, model)).all()


def test_a_step_raises_the_ratio():
    model, x, y = mlp(), normal(4, 6), labels()
    ratios = []
    for _ in range(2):
        criterion = CrossLipschitzLoss(model, 2, lambda outputs, target: 0 * outputs.sum())
        criterion(x, y).backward()
        torch.optim.SGD(model.parameters(), lr=1e-2).step()
        ratios.append(criterion.last_terms["ratio"])
    assert ratios[1] > ratios[0]
