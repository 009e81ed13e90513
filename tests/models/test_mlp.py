"""The network for tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_robust.models import TabularMLP


def test_mlp_is_two_linear_layers_around_the_activation() -> None:
    torch.manual_seed(0)
    model = TabularMLP(5, hidden=7, activation=nn.Softplus).double()
    inputs = torch.randn(4, 5, dtype=torch.float64)
    first, first_bias, second, second_bias = model.parameters()
    hidden = torch.log1p(torch.exp(inputs @ first.T + first_bias))
    torch.testing.assert_close(model(inputs), hidden @ second.T + second_bias)


def test_mlp_defaults_are_those_of_the_paper() -> None:
    model = TabularMLP(28)
    assert [tuple(weight.shape) for weight in model.parameters()] == [
        (32, 28),
        (32,),
        (1, 32),
        (1,),
    ]
    assert isinstance(model.activation, nn.LeakyReLU)


def test_mlp_makes_its_own_activation_once() -> None:
    made: list[nn.Module] = []

    def activation() -> nn.Module:
        made.append(nn.PReLU())
        return made[-1]

    first, second = TabularMLP(3, activation=activation), TabularMLP(3, activation=activation)
    assert [first.activation, second.activation] == made


def test_mlp_is_reproducible() -> None:
    outputs = []
    for _ in range(2):
        torch.manual_seed(1)
        outputs.append(TabularMLP(3)(torch.ones(2, 3)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(("sizes", "name"), [((0, 32), "n_features"), ((3, 0), "hidden")])
def test_mlp_refuses_empty_layers(sizes: tuple[int, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: got 0, accepted: 1 or more"):
        TabularMLP(*sizes)
