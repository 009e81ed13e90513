"""The warning of a zero gradient: once, and with a remedy."""

import warnings

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.robust import ERAttack, MSEAttack, ZeroGradientWarning
from tests.robust.targets import mlp, normal, relu_mlp


def warned(attack, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attack.perturb(*args, target=0, **kwargs)
    return caught


class HalfCurved(nn.Module):
    """Curved for a positive first feature, linear otherwise."""

    def forward(self, x):
        weights = torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)
        curved = (x[:, :1] > 0) * (x**3 * weights).sum(dim=1, keepdim=True)
        return torch.cat([curved + x @ weights[:, None], -x[:, :1]], dim=1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("n_restarts", [1, 3])
def test_zero_for_every_example_warns_once(norm, n_restarts):
    caught = warned(
        ERAttack(Saliency(relu_mlp()), k=2), normal(5, 6), 0.1, norm=norm, n_restarts=n_restarts,
        max_examples_per_batch=2,
    )  # fmt: skip
    assert [w.category for w in caught] == [ZeroGradientWarning]
    message = str(caught[0].message)
    assert "smooth_relu=10.0" in message and "gradient='finite_difference'" in message
    assert caught[0].filename == __file__


def test_calling_the_attack_warns_at_the_call_as_well():
    with pytest.warns(ZeroGradientWarning) as caught:
        ERAttack(Saliency(relu_mlp()), k=2)(normal(5, 6), 0.1, target=0)
    assert len(caught) == 1


def test_one_example_with_a_gradient_is_enough_not_to_warn():
    x = torch.tensor([[-1.0, 0.5, 0.7], [-2.0, 0.1, 0.3], [1.0, 0.5, 0.7]]).double()
    attack = ERAttack(Saliency(HalfCurved()), k=1)
    assert not warned(attack, x, 0.1)
    assert not warned(attack, x, 0.1, max_examples_per_batch=1)
    assert [w.category for w in warned(attack, x[:2], 0.1)] == [ZeroGradientWarning]
    _, info = attack.perturb(x, 0.1, target=0, return_info=True)
    assert info.gradient_found.tolist() == [False, False, True]


def test_the_squared_change_is_stationary_at_the_example_and_starts_elsewhere_by_default():
    attack, x = MSEAttack(Saliency(mlp())), normal(5, 6)
    assert not warned(attack, x, 0.1)
    caught = warned(attack, x, 0.1, random_start=False)
    assert [w.category for w in caught] == [ZeroGradientWarning]
    assert "random_start=True" in str(caught[0].message)


def test_only_a_gradient_that_was_looked_for_can_be_missed():
    relu, x = ERAttack(Saliency(relu_mlp()), k=2), normal(5, 6)
    assert not warned(relu, x, 0.1, step_num=0)
    assert not warned(relu, x, 0.0)
    assert not warned(relu, x[:0], 0.1)
    differences = ERAttack(Saliency(mlp()), k=2, gradient="finite_difference")
    assert not warned(differences, x, 0.0)


def test_examples_without_a_ranking_are_no_evidence():
    curved, broken = Saliency(mlp()), torch.full((2, 6), float("nan")).double()
    assert not warned(ERAttack(curved, k=2), broken, 0.1)
    mixed = torch.cat([broken, normal(1, 6)])
    assert not warned(ERAttack(curved, k=2), mixed, 0.1)
    caught = warned(ERAttack(Saliency(relu_mlp()), k=2), mixed, 0.1)
    assert [w.category for w in caught] == [ZeroGradientWarning]


def test_a_random_start_that_stops_at_once_looked_for_no_gradient():
    class Fickle(nn.Module):
        """Any move changes the label."""

        def __init__(self, x):
            super().__init__()
            self.x, self.inner = x, mlp()

        def forward(self, x):
            out = self.inner(x)
            moved = (x - self.x).abs().sum(dim=1) > 0
            return torch.cat([out, 100.0 * moved[:, None]], dim=1)

    x = normal(5, 6)
    attack = MSEAttack(Saliency(Fickle(x)), preserve_prediction="early_stop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(attack.perturb(x, 0.1, target=0, seed=0), x)
