import pytest
import torch
from torch_geometric.nn import SimpleConv

from captum_robust.graph.pyg.neighbourhood import receptive_field, undirected_edge_groups
from tests.graph.explaining import gcn, ring_with_chords

X, EDGE_INDEX = ring_with_chords()


def test_both_directions_and_all_copies_of_an_edge_are_one_group():
    edge_index = torch.tensor([[3, 0, 1, 3, 2, 0], [0, 3, 2, 0, 1, 0]])
    groups = undirected_edge_groups(edge_index)
    assert groups.tolist() == [1, 1, 2, 1, 2, 0]
    assert undirected_edge_groups(edge_index[:, :0]).tolist() == []


def test_every_group_of_an_undirected_graph_has_two_edges():
    groups = undirected_edge_groups(EDGE_INDEX)
    assert groups.bincount().tolist() == [2] * (EDGE_INDEX.shape[1] // 2)


@pytest.mark.parametrize("shape", [(3, 4), (4,), (2, 3, 1)])
def test_edges_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"edge_index must have shape \(2, E\)"):
        undirected_edge_groups(torch.zeros(shape, dtype=torch.long))


def random_directed():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, len(X), (2, 20), generator=generator)


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("n_hops", [0, 1, 2, 3])
@pytest.mark.parametrize("edge_index", [EDGE_INDEX, random_directed()])
def test_receptive_field_is_where_the_gradient_of_sums_is_not_zero(edge_index, n_hops, flow):
    layers = [SimpleConv(combine_root="sum", flow=flow) for _ in range(n_hops)]
    for node in (0, 5):
        x = torch.ones(len(X), 1, requires_grad=True)
        used, n_edges = x, edge_index.shape[1]
        weights = torch.ones(n_hops, n_edges, requires_grad=True)
        source, sink = edge_index if flow == "source_to_target" else edge_index.flip(0)
        for hop in range(n_hops):
            assert layers[hop].flow == flow
            used = used + torch.zeros_like(used).index_add(
                0, sink, weights[hop][:, None] * used[source]
            )
        nodes, edges = receptive_field(edge_index, node, n_hops, len(X), flow)
        of_x, of_weights = torch.autograd.grad(
            used[node].sum(), (x, weights), allow_unused=True, materialize_grads=True
        )
        assert torch.equal(nodes, of_x[:, 0] != 0)
        assert torch.equal(edges, (of_weights != 0).any(dim=0))


def test_a_model_depends_on_nothing_beyond():
    model, x = gcn(), X.clone().requires_grad_()
    nodes, _ = receptive_field(EDGE_INDEX, 4, 2, len(X))
    slope = torch.autograd.grad(model(x, EDGE_INDEX)[4].square().sum(), x)[0]
    assert torch.equal(nodes, (slope != 0).any(dim=1))
