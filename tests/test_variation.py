"""Chance and batch statistics are found by evaluation, whatever form they take."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_robust._utils.random import seeded
from captum_robust._utils.variation import output_varies


def seed_and(make):
    torch.manual_seed(0)
    return make()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, x):
        return self.rnn(x[:, None].expand(-1, 5, -1))[0][:, -1]


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)

    def forward(self, x):
        tokens = x[:, None] + torch.arange(4.0)[:, None]
        return self.attention(tokens, tokens, tokens)[0][:, 0]


def among_nodes(x):
    """A graph network on the nodes of one graph."""
    return x + x.roll(1, dims=0)


STEADY = {
    "a network": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    "dropout in evaluation mode": lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout()).eval(),
    "dropout of nothing": lambda: nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.0)).train(),
    "batch statistics at rest": lambda: nn.BatchNorm1d(3).eval(),
    "an LSTM": lambda: Recurrent().eval(),
    "attention": lambda: Attending().eval(),
    "one output for all": lambda: lambda x: x.sum(),
    "integers": lambda: lambda x: x.argmax(dim=1),
    "NaN": lambda: lambda x: x / 0 * 0,
    "rounding": lambda: lambda x: (1e5 * x).sum(1) + 1e-3 * x[-1, 0],
}
VARYING = {
    "dropout": lambda: nn.Dropout().train(),
    "functional dropout": lambda: lambda x: F.dropout(x, 0.3, training=True),
    "closure around dropout": lambda: (lambda m: lambda x: m(x))(nn.Dropout().train()),
    "randomised ReLU": lambda: nn.RReLU().train(),
    "an LSTM with dropout": lambda: Recurrent().train(),
    "attention with dropout": lambda: Attending().train(),
    "batch statistics": lambda: nn.BatchNorm1d(3).train(),
    "functional batch statistics": lambda: lambda x: F.batch_norm(x, None, None, training=True),
    "noise of NumPy": lambda: lambda x: x + torch.tensor(__import__("numpy").random.rand()),
    "noise of Python": lambda: lambda x: x + __import__("random").random(),
    "softmax over the batch": lambda: lambda x: x.softmax(dim=0),
    "nodes of one graph": lambda: among_nodes,
}


def measured(model, n_examples, seed=0, dtype=torch.float32):
    x = torch.randn(n_examples, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[:1] = -x[:1].abs()
    return output_varies(lambda rows: model(x[rows]), n_examples, seed)


@pytest.mark.parametrize("n_examples", [1, 2, 3, 8])
@pytest.mark.parametrize("make", STEADY.values(), ids=STEADY)
def test_an_output_of_the_example_alone_does_not_vary(make, n_examples):
    assert not measured(seed_and(make), n_examples)


@pytest.mark.parametrize("n_examples", [2, 3, 8])
@pytest.mark.parametrize("make", VARYING.values(), ids=VARYING)
def test_an_output_that_depends_on_chance_or_on_others_varies(make, n_examples):
    assert any(measured(seed_and(make), n_examples, seed) for seed in (0, 5))


def test_half_precision_has_a_coarser_rounding():
    model = seed_and(lambda: nn.Linear(3, 50)).half()
    assert not measured(model, 8, dtype=torch.float16)
    assert measured(lambda x: F.dropout(model(x), training=True), 8, dtype=torch.float16)


def test_the_random_numbers_outside_are_unchanged():
    with seeded(3):
        expected = torch.rand(4)
    with seeded(3):
        assert measured(nn.Dropout().train(), 4)
        assert torch.equal(torch.rand(4), expected)


def test_no_example_varies():
    assert not measured(nn.Dropout().train(), 0)
