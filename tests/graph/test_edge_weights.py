import pytest
import torch
from torch import nn
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.nn import GAT, GCN, GIN, MLP, GCNConv, GraphSAGE, MessagePassing, SimpleConv
from torch_geometric.utils import add_self_loops

from captum_robust.graph.pyg.edge_weights import weighted_messages
from tests.graph.explaining import gcn, ring_with_chords

X, EDGE_INDEX = ring_with_chords()
WEIGHTS = torch.rand(EDGE_INDEX.shape[1], generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize("cls", [GCN, GAT, GraphSAGE, GIN])
def test_weights_are_the_edge_mask_of_torch_geometric(cls):
    model = gcn(cls)
    set_masks(model, WEIGHTS, EDGE_INDEX, apply_sigmoid=False)
    expected = model(X, EDGE_INDEX)
    clear_masks(model)
    with weighted_messages(model, EDGE_INDEX, WEIGHTS):
        assert torch.equal(model(X, EDGE_INDEX), expected)
    assert not torch.allclose(model(X, EDGE_INDEX), expected)


def test_messages_are_sums_over_a_weighted_adjacency_matrix():
    matrix = torch.zeros(len(X), len(X)).double()
    matrix[EDGE_INDEX[1], EDGE_INDEX[0]] = WEIGHTS
    model = SimpleConv()
    with weighted_messages(model, EDGE_INDEX, WEIGHTS):
        assert torch.allclose(model(X, EDGE_INDEX), matrix @ X)


def normalised_with_loops(layer, x, edge_index, weights):
    """A GCN layer from its definition: degrees of the unweighted graph, and a loop at each node."""
    matrix = torch.zeros(len(x), len(x)).double()
    matrix[edge_index[1], edge_index[0]] = 1
    ones = matrix.clone().fill_diagonal_(1)
    matrix[edge_index[1], edge_index[0]] = weights
    matrix.fill_diagonal_(1)
    root = ones.sum(dim=1) ** -0.5
    return (root[:, None] * matrix * root) @ (x @ layer.lin.weight.T) + layer.bias


@pytest.mark.parametrize("looped", [[3], list(range(len(X)))])
def test_loops_that_a_layer_replaces_weigh_one(looped):
    # With a loop at every node, the number of edges does not tell that their order has changed.
    loops = torch.tensor([looped, looped])
    edge_index = torch.cat([loops, EDGE_INDEX], dim=1)
    weights = torch.cat([torch.full((len(looped),), 0.3).double(), WEIGHTS])
    torch.manual_seed(0)
    layer = GCNConv(3, 2).double()
    with weighted_messages(layer, edge_index, weights):
        found = layer(X, edge_index)
    assert torch.allclose(found, normalised_with_loops(layer, X, edge_index, weights))


def test_loops_of_the_graph_are_weighted_where_the_layer_keeps_them():
    edge_index, _ = add_self_loops(EDGE_INDEX)
    weights = torch.cat([WEIGHTS, torch.zeros(len(X)).double()])
    model = SimpleConv()
    with weighted_messages(model, edge_index, weights):
        found = model(X, edge_index)
    with weighted_messages(model, EDGE_INDEX, WEIGHTS):
        assert torch.allclose(model(X, EDGE_INDEX), found)


def traces(model):
    """All that a layer shows of masks and hooks."""
    return [
        (layer.explain, layer._edge_mask, len(layer._message_forward_hooks), len(vars(layer)))
        for layer in model.modules()
        if isinstance(layer, MessagePassing)
    ]


def test_nothing_is_left_in_the_layers():
    model = gcn()
    before, edges = traces(model), EDGE_INDEX.clone()
    with weighted_messages(model, EDGE_INDEX, WEIGHTS):
        model(X, EDGE_INDEX)
        assert traces(model) != before
    assert traces(model) == before and torch.equal(EDGE_INDEX, edges)
    with pytest.raises(KeyError), weighted_messages(model, EDGE_INDEX, WEIGHTS):
        raise KeyError
    assert traces(model) == before


def test_layers_that_are_not_explained_are_left_out():
    model = SimpleConv()
    expected = model(X, EDGE_INDEX)
    model.explain = False
    other = nn.ModuleList([model, SimpleConv()])
    with weighted_messages(other, EDGE_INDEX, WEIGHTS):
        assert torch.equal(model(X, EDGE_INDEX), expected)
        assert not torch.allclose(other[1](X, EDGE_INDEX), expected)


def test_messages_the_other_way_round():
    model = SimpleConv()
    with weighted_messages(model, EDGE_INDEX, WEIGHTS):
        found = model(X, EDGE_INDEX.flip(0))
    matrix = torch.zeros(len(X), len(X)).double()
    matrix[EDGE_INDEX[0], EDGE_INDEX[1]] = WEIGHTS
    assert torch.allclose(found, matrix @ X)


def test_other_edges_than_those_of_the_graph_are_refused():
    model = SimpleConv()
    with (
        weighted_messages(model, EDGE_INDEX, WEIGHTS),
        pytest.raises(ValueError, match="SimpleConv passes messages along other edges"),
    ):
        model(X, EDGE_INDEX[:, 1:])
    with pytest.raises(ValueError, match="model must have MessagePassing layers"):
        weighted_messages(MLP([3, 2]), EDGE_INDEX, WEIGHTS).__enter__()
