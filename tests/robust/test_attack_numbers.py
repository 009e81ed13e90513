"""NaN in the arguments of a perturbation is an error that names the argument."""

from functools import partial

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.robust import (
    AutoERAttack,
    CenterOfMassAttack,
    ERAttack,
    ExplanationComparator,
    GaussianNoise,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
    TopKAttack,
    UniformNoise,
)

NAN = float("nan")
ATTACKS = {
    "AutoERAttack": partial(AutoERAttack, k=2),
    "CenterOfMassAttack": CenterOfMassAttack,
    "ERAttack": partial(ERAttack, k=2),
    "MSEAttack": MSEAttack,
    "ParetoERAttack": partial(ParetoERAttack, k=2),
    "RandomSearchAttack": partial(RandomSearchAttack, k=2),
    "TopKAttack": partial(TopKAttack, k=2),
}
every_attack = pytest.mark.parametrize("make", ATTACKS.values(), ids=ATTACKS)


def saliency():
    torch.manual_seed(0)
    return Saliency(nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)).double())


def rows():
    return torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def broken(*places):
    """Rows with NaN in some entries."""
    x = rows()
    for place in places:
        x[place] = NAN
    return x


@every_attack
@pytest.mark.parametrize("bound", [NAN, broken((1, 2))], ids=["number", "tensor"])
@pytest.mark.parametrize("name", ["lower_bound", "upper_bound"])
def test_nan_in_a_bound_is_an_error(make, name, bound):
    with pytest.raises(ValueError, match=f"{name} must hold numbers, got NaN"):
        make(saliency(), **{name: bound}).perturb(rows(), 0.1, target=0)


@pytest.mark.parametrize("noise", [UniformNoise, GaussianNoise])
@pytest.mark.parametrize("name", ["lower_bound", "upper_bound"])
def test_nan_in_a_bound_of_noise_is_an_error(noise, name):
    for bound in (NAN, broken((1, 2))):
        with pytest.raises(ValueError, match=f"{name} must hold numbers, got NaN"):
            noise(**{name: bound})


def test_nan_in_a_bound_of_the_comparator_is_an_error():
    comparator = ExplanationComparator({"s": saliency()}, {}, {}, lower_bound=NAN)
    with pytest.raises(ValueError, match="lower_bound must hold numbers, got NaN"):
        comparator.evaluate(rows(), 0.1, target=0)


@every_attack
def test_nan_in_a_mask_or_start_is_an_error(make):
    attack = make(saliency())
    with pytest.raises(ValueError, match="mask must hold numbers, got NaN"):
        attack.perturb(rows(), 0.1, target=0, mask=broken((0, 0)))
    with pytest.raises(ValueError, match=r"start must be finite.*\[1, 3\]"):
        attack.perturb(rows(), 0.1, target=0, start=broken((1, 2), (3, 0)))
    with pytest.raises(ValueError, match="start must be finite"):
        attack.perturb(rows(), 0.1, target=0, start=rows() / 0)


@every_attack
def test_nan_or_another_shape_from_a_projection_is_an_error(make):
    attack = make(saliency())
    with pytest.raises(ValueError, match="the result of project must be finite"):
        attack.perturb(rows(), 0.1, target=0, project=lambda x: x / 0 * 0)
    for project in (lambda x: x[:, :3], lambda x: x[0]):
        with pytest.raises(ValueError, match="the result of project must have the shapes"):
            attack.perturb(rows(), 0.1, target=0, project=project)


@every_attack
def test_a_broken_row_may_have_a_broken_start_and_projection(make):
    """Results of broken rows are broken; they start the search of the next radius."""
    x = broken((1, 2))
    attack, clip = make(saliency()), partial(torch.clamp, min=0, max=1)
    moved = attack.perturb(x, 0.1, target=0, seed=0, start=x + 0.01, project=clip)
    assert moved[[0, 2, 3]].isfinite().all() and moved[1].isnan().any()
