"""replace_relu: what it puts where, what it refuses, and how it is undone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_robust.attr import smooth_relu
from captum_robust.loss import replace_relu
from tests.loss.r2et_by_definition import drawn, normal


def softplus(x, beta):
    return (1 + (beta * x).exp()).log() / beta


class Block(nn.Module):
    """One activation in two places, and once more under another name."""

    def __init__(self, inplace=False):
        super().__init__()
        self.relu = nn.ReLU(inplace)
        self.again = self.relu
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        drawn(self)

    def forward(self, x):
        hidden = self.relu(self.first(x))
        return self.again(self.second(hidden) + hidden)


def children_of(model):
    return dict(model.named_modules(remove_duplicate=False))


@pytest.mark.parametrize("beta", [0.5, 5.0])
@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU(), nn.RReLU()], ids=repr
)
def test_the_network_with_softplus(activation, beta):
    model = nn.Sequential(nn.Linear(6, 5), activation, nn.Sequential(activation), nn.Linear(5, 3))
    model, x = drawn(model), normal(4, 6)
    replaced = replace_relu(model, beta)
    assert replaced.names == ("1", "2.0")
    expected = model[3](softplus(softplus(model[0](x), beta), beta))
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)
    assert model[1] is model[2][0]


def test_beta_is_the_sharpness():
    model, x = Block(), normal(4, 4)
    expected = model(x)
    for beta, low, high in ((1.0, 0.1, 9.0), (10.0, 1e-3, 0.1)):
        with replace_relu(model, beta):
            assert low < (model(x) - expected).abs().max() < high


def test_it_is_what_smooth_relu_is_for_a_while():
    model, x = Block(), normal(4, 4)
    with smooth_relu(beta=3.0):
        expected = model(x)
    with replace_relu(model, 3.0):
        assert torch.equal(model(x), expected)


def test_there_is_a_second_derivative_now():
    model, x = Block(), normal(4, 4).requires_grad_()

    def second_derivatives():
        slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
        return torch.autograd.grad(slope.sum(), x, allow_unused=True, materialize_grads=True)[0]

    assert second_derivatives().abs().max() == 0
    replace_relu(model, 2.0)
    assert second_derivatives().abs().max() > 0.01


def test_shared_modules_stay_shared_and_all_else_stays():
    model = nn.Sequential(Block(), nn.ReLU(), nn.Sigmoid())
    before = children_of(model)
    parameters = dict(model.named_parameters())
    model.eval()
    replaced = replace_relu(model, 2.0)
    assert replaced.names == ("0.relu", "0.again", "1")
    assert model[0].relu is model[0].again is not model[1]
    assert not model[0].relu.training
    for name, module in children_of(model).items():
        assert (module is before[name]) is (name not in replaced.names)
    assert all(p is parameters[name] for name, p in model.named_parameters())


def test_a_block_that_is_used_twice():
    block = Block()
    model = nn.ModuleList([block, block])
    replace_relu(model, 2.0)
    assert model[0].relu is model[1].relu


def test_in_place_modules_stay_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            hidden = x * 1.0
            self.act(hidden)  # nothing is done with what it returns
            return hidden + hidden.sum(dim=1, keepdim=True)

    model, x = InPlace(), normal(4, 6).requires_grad_()
    replace_relu(model, 2.0)
    hidden = softplus(x, 2.0)
    expected = hidden + hidden.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(f.square().sum(), x)[0] for f in (model(x), expected))
    )
    torch.testing.assert_close(Block(inplace=True)(x[:, :4]), Block()(x[:, :4]))


@pytest.mark.parametrize("how", ["restore", "with", "exception"])
def test_it_is_undone(how):
    model, x = nn.Sequential(Block(), nn.LeakyReLU()), normal(4, 4)
    before, expected = children_of(model), model(x)
    state = copy.deepcopy(model.state_dict())
    if how == "restore":
        replaced = replace_relu(model, 2.0)
        replaced.restore()
        replaced.restore()
    elif how == "with":
        with replace_relu(model, 2.0) as replaced:
            assert replaced.names == ("0.relu", "0.again", "1")
            assert not torch.equal(model(x), expected)
    else:
        with pytest.raises(KeyError), replace_relu(model, 2.0):
            raise KeyError
    assert children_of(model) == before
    assert torch.equal(model(x), expected)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_parameters_of_a_prelu_come_back():
    model = nn.Sequential(nn.Linear(4, 4), nn.PReLU(4))
    slopes = model[1].weight
    with replace_relu(model, 2.0):
        assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert model[1].weight is slopes


def test_what_was_trained_meanwhile_stays_trained():
    model = Block()
    with replace_relu(model, 2.0):
        model(normal(4, 4)).sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(model.first.weight, Block().first.weight)


def test_a_copy_and_a_state_dict():
    model = Block()
    replace_relu(model, 2.0)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(normal(4, 4)), model(normal(4, 4)))
    fresh = Block()
    fresh.load_state_dict(model.state_dict())


# --- refused -----------------------------------------------------------------------------------


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        return F.relu(self.act(x))


class Method(Functional):
    def forward(self, x):
        return self.act(x).relu_()


class Torch(Functional):
    def forward(self, x):
        return torch.relu(self.act(x))


class Leaky(Functional):
    def forward(self, x):
        return F.leaky_relu(self.act(x))


class Attribute(Functional):
    def __init__(self):
        super().__init__()
        self.function = F.relu

    def forward(self, x):
        return self.function(self.act(x))


class Helper(Functional):
    def forward(self, x):
        return self.act(self.rectified(x))

    @staticmethod
    def rectified(x):
        return torch.stack([F.relu(row) for row in x])


class Decorated(Functional):
    @torch.no_grad()
    def forward(self, x):
        return F.rrelu(self.act(x))


class Inherited(Method):
    def __init__(self):
        super().__init__()
        self.more = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Helper(), r"1 \(the function relu\)"),
        (Decorated(), r"1 \(the function rrelu\)"),
        (Inherited(), r"1 \(the function relu_\)"),
        (Functional(), r"1 \(the function relu\)"),
        (Method(), r"1 \(the function relu_\)"),
        (Torch(), r"1 \(the function relu\)"),
        (Leaky(), r"1 \(the function leaky_relu\)"),
        (Attribute(), r"1 \(the function relu\)"),
        (nn.TransformerEncoderLayer(4, 2, 8), r"1 \(the function relu\)"),
        (nn.ReLU6(), r"1 \(nn.ReLU6\)"),
        (nn.Sequential(nn.Hardtanh(), nn.Hardswish()), r"1.0 .*Hardtanh\), 1.1 .*Hardswish\)"),
        (nn.RNN(4, 4, nonlinearity="relu"), r"1 \(nonlinearity='relu'\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_replaced_is_named_and_nothing_is_changed(part, message):
    model = nn.Sequential(nn.ReLU(), part)
    before = children_of(model)
    with pytest.raises(
        ValueError, match=rf"^model has activations that replace_relu cannot .*: {message}$"
    ):
        replace_relu(model, 2.0)
    assert children_of(model) == before


def test_what_is_no_relu_is_not_refused():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()  # its name is not that of a function

        def forward(self, x):
            return torch.sigmoid(self.relu(x)).clamp(min=0)

    gelu = nn.TransformerEncoderLayer(4, 2, 8, activation="gelu")
    model = nn.Sequential(Other(), nn.RNN(4, 4), gelu, nn.GELU(), nn.MaxPool1d(2))
    assert replace_relu(model, 2.0).names == ("0.relu",)


def test_nothing_to_replace():
    with pytest.raises(ValueError, match=r"model must have one of nn.ReLU, .* got none$"):
        replace_relu(nn.Linear(3, 3), 2.0)
    with pytest.raises(ValueError, match=r"the model itself \(it is a ReLU\)$"):
        replace_relu(nn.ReLU(), 2.0)


@pytest.mark.parametrize("beta", [0.0, -1.0, float("inf"), float("nan")])
def test_beta_must_be_positive(beta):
    with pytest.raises(ValueError, match=f"^beta must be positive and finite, got {beta}$"):
        replace_relu(Block(), beta)
