import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool
from torch_geometric.utils import k_hop_subgraph

from captum_robust.graph.pyg.padded import PaddedGraphs, padded_graphs
from captum_robust.loss import AdversarialRankingLoss, HessianNormLoss, R2ETLoss
from captum_robust.metrics import precision_at_k, ranking_thickness
from captum_robust.robust import ERAttack, RandomSearchAttack
from tests.graph.explaining import gcn, ring_with_chords

SIZES = (5, 3, 7, 4)
LABELS = torch.tensor([0, 2, 1, 1])


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = gcn()

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.conv(x, edge_index), batch)


def graphs():
    generator = torch.Generator().manual_seed(0)
    return [
        Data(
            x=torch.randn(n, 3, generator=generator).double(),
            edge_index=torch.randint(0, n, (2, 2 * n), generator=generator),
        )
        for n in SIZES
    ]


def padded(model=None, edge_weights=False):
    model = Classifier() if model is None else model
    features, weights, structure = padded_graphs(Batch.from_data_list(graphs()))
    inputs = (features, weights) if edge_weights else features
    return PaddedGraphs(model, edge_weights), inputs, structure


def alone(model, graph, x=None):
    batch = torch.zeros(len(graph.x), dtype=torch.long)
    return model(graph.x if x is None else x, graph.edge_index, batch)


def test_outputs_are_those_of_the_graphs_alone():
    model = Classifier()
    outputs = torch.cat([alone(model, graph) for graph in graphs()])
    for edge_weights in (False, True):
        masked, inputs, structure = padded(model, edge_weights)
        inputs = inputs if edge_weights else (inputs,)
        assert torch.allclose(masked(*inputs, *structure), outputs)
        rows = torch.tensor([2, 0, 2])
        chosen = [t[rows] for t in (*inputs, *structure)]
        assert torch.allclose(masked(*chosen), outputs[rows])


def test_edges_in_any_order():
    batch = Batch.from_data_list(graphs())
    order = torch.randperm(batch.num_edges, generator=torch.Generator().manual_seed(1))
    batch.edge_index = batch.edge_index[:, order]
    features, _, structure = padded_graphs(batch)
    model = Classifier()
    expected = torch.cat([alone(model, graph) for graph in graphs()])
    assert torch.allclose(PaddedGraphs(model)(features, *structure), expected)


def saliency(model, graph, label):
    leaf = graph.x.clone().requires_grad_()
    score = alone(model, graph, leaf).softmax(dim=1)[0, label]
    return torch.autograd.grad(score, leaf, create_graph=True)[0].abs()


def test_r2et_is_the_mean_over_graphs_alone():
    model, k = Classifier(), 4
    masked, features, structure = padded(model)
    criterion = R2ETLoss(masked, k, lambda1=0.3, lambda2=0)
    loss = criterion(features, LABELS, structure)
    by_hand = []
    for graph, label in zip(graphs(), LABELS, strict=True):
        ordered = saliency(model, graph, label).flatten().sort(descending=True).values
        anchor = ordered[k - 1]
        gaps = (ordered[: k - 1] - anchor).sum() + (anchor - ordered[k : 2 * k]).sum()
        by_hand.append(nn.functional.cross_entropy(alone(model, graph), label[None]) - 0.3 * gaps)
    expected = torch.stack(by_hand).mean()
    assert torch.allclose(loss, expected)
    parameters = list(model.parameters())
    slopes = (torch.autograd.grad(value, parameters) for value in (loss, expected))
    assert all(torch.allclose(a, b) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("edge_weights", [False, True])
@pytest.mark.parametrize(
    "loss",
    [
        lambda m: R2ETLoss(m, 3, hessian="finite_difference"),
        lambda m: R2ETLoss(m, 3, pairs="mm", hessian="hvp", fraction=0.5, seed=0),
        lambda m: HessianNormLoss(m),
        lambda m: AdversarialRankingLoss(m, 3, radius=0.1),
    ],
)
def test_losses_train_on_sparse_batches(loss, edge_weights):
    masked, inputs, structure = padded(edge_weights=edge_weights)
    criterion = loss(masked)
    criterion.train()
    criterion(inputs, LABELS, structure).backward()
    slopes = [p.grad for p in masked.model.parameters()]
    assert all(s is not None and bool(s.isfinite().all()) for s in slopes)
    assert any(bool(s.abs().sum() > 0) for s in slopes)


def test_node_features_of_a_batch_are_refused_with_a_way_out():
    batch, model = Batch.from_data_list(graphs()), Classifier()
    criterion = R2ETLoss(model, 2)
    with pytest.raises(ValueError, match="got 19 for 4 outputs; node features of a batch"):
        criterion(batch.x, LABELS, (batch.edge_index, batch.batch))


def test_attacks_and_metrics_of_a_batch_are_those_of_each_graph():
    masked, features, structure = padded()
    maps = Saliency(masked)
    leaves = features.clone().requires_grad_()
    arguments = {"target": LABELS, "additional_forward_args": structure}
    mask = structure[0][:, :, None]
    attack = ERAttack(maps, k=3)
    moved = attack.perturb(leaves, 0.3, mask=mask, step_num=5, **arguments)
    assert bool((moved[~structure[0]] == 0).all())
    for rows in torch.arange(4).split(1):
        further = tuple(s[rows] for s in structure)
        own = attack.perturb(
            leaves[rows], 0.3, mask=mask[rows], step_num=5, target=LABELS[rows],
            additional_forward_args=further,
        )  # fmt: skip
        assert torch.allclose(own, moved[rows])
    chunked = attack.perturb(
        leaves, 0.3, mask=mask, step_num=5, max_examples_per_batch=3, **arguments
    )
    assert torch.allclose(chunked, moved)
    call = {"perturb_radius": 0.3, "n_perturb_samples": 2, "n_steps": 2, "seed": 0, **arguments}
    thickness = ranking_thickness(maps.attribute, leaves, 3, **call)
    assert thickness.shape == (4,)
    assert torch.allclose(
        thickness, ranking_thickness(maps.attribute, leaves, 3, max_examples_per_batch=3, **call)
    )
    _, info = RandomSearchAttack(maps, 3).perturb(
        leaves, 0.3, step_num=20, seed=0, return_info=True, **arguments
    )
    assert info.precision.shape == (4,)


def test_captums_own_batches_hold_whole_graphs():
    masked, inputs, structure = padded(edge_weights=True)
    inputs = tuple(t.requires_grad_() for t in inputs)
    call = {"target": LABELS, "additional_forward_args": structure, "n_steps": 6}
    maps = IntegratedGradients(masked).attribute(inputs, **call)
    small = IntegratedGradients(masked).attribute(inputs, internal_batch_size=5, **call)
    assert all(torch.allclose(a, b) for a, b in zip(maps, small, strict=True))
    nodes, _, edges = structure
    assert bool((maps[0][~nodes] == 0).all() and (maps[1][~edges] == 0).all())
    assert precision_at_k(maps, small, 3).tolist() == [1] * 4


class AtRoot(nn.Module):
    """A node classifier on graphs around nodes, whose first node is the one that is meant."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, edge_index, batch):
        first = torch.searchsorted(batch, torch.arange(int(batch.max()) + 1))
        return self.model(x, edge_index)[first]


def test_node_classification_by_the_graphs_around_nodes():
    x, edge_index = ring_with_chords()
    model, nodes = gcn(), [2, 7, 11]
    around = []
    for node in nodes:
        kept, edges, place, _ = k_hop_subgraph(node, 3, edge_index, relabel_nodes=True)
        order = torch.arange(len(kept))
        order[[0, int(place)]] = order[[int(place), 0]]  # swaps, so it is its own inverse
        around.append(Data(x=x[kept][order], edge_index=order[edges]))
    features, _, structure = padded_graphs(Batch.from_data_list(around))
    masked = PaddedGraphs(AtRoot(model))
    assert torch.allclose(masked(features, *structure), model(x, edge_index)[nodes])
    R2ETLoss(masked, k=4)(features, torch.tensor([0, 1, 2]), structure).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("edge_weights", [False, True])
def test_a_wrong_number_of_arguments(edge_weights):
    masked, inputs, structure = padded(edge_weights=not edge_weights)
    masked.edge_weights = edge_weights
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    with pytest.raises(ValueError, match="nodes, edge_index and edges, as padded_graphs"):
        masked(*inputs, *structure)


def test_a_batch_without_features():
    bare = Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    with pytest.raises(ValueError, match="batch must have node features"):
        padded_graphs(Batch.from_data_list([bare]))
