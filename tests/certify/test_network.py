"""Networks that are read, as which layers, and networks that are refused."""

import re

import pytest
import torch
from torch import nn

from captum_robust.certify.network import Dense, read_network
from captum_robust.models import TabularMLP


def same_layers(network, expected):
    assert network.first is network.layers[0]
    linear = [layer for layer in network.layers if isinstance(layer, Dense)]
    assert len(linear) == len(expected)
    for layer, module in zip(linear, expected, strict=True):
        assert layer.weight.dtype == layer.bias.dtype == torch.float64
        assert torch.equal(layer.weight, module.weight.double())
        bias = torch.zeros(len(module.weight)) if module.bias is None else module.bias
        assert torch.equal(layer.bias, bias.double())
        assert not layer.weight.requires_grad and not layer.bias.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_linear_layers_are_read_exactly(dtype):
    a, b, c = nn.Linear(3, 4).to(dtype), nn.Linear(4, 5, bias=False).to(dtype), nn.Linear(5, 2)
    network = read_network(nn.Sequential(a, nn.Tanh(), b, c))
    same_layers(network, [a, b, c])
    assert len(network.layers) == 4
    assert network.widths == [3, 4, 5, 2]


def test_the_mlp_for_tables_is_read():
    model = TabularMLP(6, hidden=4, activation=nn.Softplus)
    same_layers(read_network(model), [model.hidden, model.output])


def test_nested_networks_and_a_module_used_twice_are_read():
    a, b, c, tanh = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1), nn.Tanh()
    network = read_network(
        nn.Sequential(nn.Sequential(a, tanh, b, tanh), nn.Sequential(b, tanh), c)
    )
    same_layers(network, [a, b, b, c])
    assert len(network.layers) == 7
    same_layers(read_network(a), [a])


def test_what_changes_nothing_is_skipped():
    a, b = nn.Linear(12, 4), nn.Linear(4, 1)
    dropout = nn.Dropout().eval()
    network = read_network(
        nn.Sequential(nn.Flatten(), dropout, a, nn.Identity(), nn.ReLU(), nn.Dropout(0.0), b)
    )
    same_layers(network, [a, b])
    assert len(network.layers) == 3


def test_a_sigmoid_on_top_is_left_out():
    a, b = nn.Linear(3, 4), nn.Linear(4, 1)
    network = read_network(nn.Sequential(a, nn.Sigmoid(), b, nn.Sigmoid()))
    same_layers(network, [a, b])
    assert len(network.layers) == 3


class Doubled(nn.Sequential):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnLinear(nn.Linear):
    pass


class OwnTanh(nn.Tanh):
    pass


class OwnMLP(TabularMLP):
    def forward(self, x):
        return super().forward(x) ** 2


def chain(*between):
    return nn.Sequential(nn.Linear(3, 4), *between, nn.Linear(4, 1))


REFUSED = {
    "one that does not start and end with Linear": nn.Sequential(nn.Tanh(), nn.Linear(3, 1)),
    "one that does not start and end with Linear ": nn.Sequential(nn.Linear(3, 1), nn.Tanh()),
    "one that does not start and end with Linear  ": nn.Sequential(),
    "GELU": chain(nn.GELU()),
    "Softmax": nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)),
    "Conv2d": nn.Sequential(nn.Conv2d(1, 1, 2), nn.Flatten(), nn.Linear(4, 1)),
    "BatchNorm1d": chain(nn.BatchNorm1d(4).eval()),
    "Dropout in training mode": chain(nn.Dropout()),
    "Flatten": chain(nn.Flatten(2)),
    "Doubled with a forward of its own": Doubled(nn.Linear(3, 1)),
    "Doubled with a forward of its own ": chain(Doubled(nn.Linear(4, 4))),
    "OwnLinear": chain(OwnLinear(4, 4)),
    "OwnTanh": chain(OwnTanh()),
    "OwnMLP with a forward of its own": OwnMLP(3),
}


def patched(module):
    module.forward = lambda x: 2 * x
    return module


REFUSED["Tanh with a forward of its own"] = chain(patched(nn.Tanh()))
REFUSED["Linear with a forward of its own"] = chain(patched(nn.Linear(4, 4)))


@pytest.mark.parametrize("what", REFUSED)
def test_other_networks_are_refused_with_a_list_of_what_is_accepted(what):
    message = f"model must be a network that can be bounded, got {what.strip()}; accepted: "
    with pytest.raises(ValueError, match=re.escape(message) + ".*Sequential.*TabularMLP.*Softplus"):
        read_network(REFUSED[what])


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_hook_might_change_anything(kind, place):
    model = chain(nn.Tanh())
    register = getattr([model, model[1]][place], f"register_{kind}_hook")
    handle = register(lambda *args: None)
    with pytest.raises(ValueError, match=f"got {['Sequential', 'Tanh'][place]} with a hook"):
        read_network(model)
    handle.remove()
    read_network(model)
