"""Rows that are no examples, and arguments that are shared although their size fits."""

import threading

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.robust import AutoERAttack, ERAttack, ExplanationComparator


class Graphs(nn.Module):
    """One output per graph, or one per node, from the mean over the neighbours of every node."""

    def __init__(self, per_node=False):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.per_node = nn.Linear(4, 3), per_node

    def forward(self, x, edge_index, batch):
        source, sink = edge_index
        hidden = self.linear(x).softmax(dim=1)
        hidden = hidden.index_add(0, sink, hidden[source])
        if self.per_node:
            return hidden
        return hidden.new_zeros(int(batch.max()) + 1, 3).index_add(0, batch, hidden)


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))

    def forward(self, x, weights):
        return self.layers(x) * weights if weights.dim() == 1 else self.layers(x) + weights


def calls(model, x, extra):
    given = {"target": 1, "additional_forward_args": extra}
    saliency = Saliency(model)
    return {
        "thickness": lambda: ranking_thickness(saliency.attribute, x, 2, seed=0, **given),
        "precision": lambda: precision_at_k_min(saliency.attribute, x, 2, seed=0, **given),
        "attack": lambda: ERAttack(saliency, 2).perturb(x, 0.1, **given),
        "ensemble": lambda: AutoERAttack(saliency, 2).perturb(x, 0.1, **given),
        "comparator": lambda: ExplanationComparator({"s": saliency}, {}, {}).evaluate(
            x, 0.1, **given
        ),
    }


NAMES = ["thickness", "precision", "attack", "ensemble", "comparator"]
CHAIN = torch.stack([torch.arange(29), torch.arange(1, 30)])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("per_node", [True, False])
def test_nodes_are_no_examples(name, per_node):
    x, batch = torch.randn(30, 4), torch.arange(30) // 10
    with pytest.raises(ValueError, match=r"ExplainedGraph.*PaddedGraphs"):
        calls(Graphs(per_node).eval(), x, (CHAIN, batch))[name]()


@pytest.mark.parametrize("name", NAMES)
def test_a_shared_argument_whose_size_fits_by_chance(name):
    """Three examples and the weights of three classes."""
    with pytest.raises(ValueError, match="bind one that all examples share"):
        calls(Weighted().eval(), torch.randn(3, 4), torch.rand(3))[name]()


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_call_leaves_generators_and_other_threads_alone(name):
    model, x, weights = Weighted().eval(), torch.randn(3, 4), torch.rand(3)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="bind one"):
        calls(model, x, weights)[name]()
    assert torch.equal(torch.get_rng_state(), state)
    after = threading.Thread(target=calls(nn.Linear(4, 3), x, None)["thickness"], daemon=True)
    after.start()
    after.join(timeout=60)
    assert not after.is_alive(), "the call holds the lock of all calls"


@pytest.mark.parametrize("name", NAMES)
def test_arguments_per_example_and_shared_ones_of_another_size_pass(name):
    x, model = torch.randn(5, 4), Weighted().eval()
    for extra in (torch.rand(5, 3), torch.rand(3), (torch.rand(5, 1),)):
        calls(model, x, extra)[name]()
