"""Graphs on the device: edges as features, pairs of graphs, and models of PyTorch Geometric."""

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.graph import EdgeFlipAttack, UndirectedModel, adjacency, upper_triangle
from captum_robust.loss import R2ETLoss
from captum_robust.models import DenseGCN, SparseGCN
from captum_robust.robust import ERAttack
from tests.gpu.device import DEVICE, assert_same, moved
from tests.graph.brains import binary, connectomes, pair_model, pairs, siamese

both = (DEVICE, "cpu")


def test_triangle_and_matrix():
    edges = connectomes(4)
    assert_same(adjacency(moved(edges)), adjacency(edges))
    assert_same(upper_triangle(moved(adjacency(edges))), edges)


def test_pairs_of_graphs():
    found = []
    for device in both:
        model, inputs = moved(pair_model(), device), moved(pairs(5), device)
        attack = ERAttack(Saliency(model), 3, predictions=model.predictions)
        points = attack.perturb(inputs, 0.2, target=0, step_num=4, seed=0)
        found.append((model(*inputs), model.predictions(*inputs), points))
    assert_same(*found, rtol=1e-7, atol=1e-8)


def test_flips():
    found = []
    for device in both:
        model, inputs = (
            moved(pair_model(), device),
            moved((binary(6, 15), binary(6, 15, 1)), device),
        )
        attack = EdgeFlipAttack(Saliency(model), 4, 3, predictions=model.predictions)
        points, info = attack.perturb(inputs, 3, target=0, seed=0, return_info=True)
        flips = sum((p - i).abs().sum(1) for p, i in zip(points, inputs, strict=True))
        assert all(((p == 0) | (p == 1)).all() for p in points) and (flips <= 3).all()
        found.append((points, info.objective, info.precision, info.n_flips))
        assert info.precision.min() < 1
    assert_same(moved(found[0]), found[1])


def test_r2et_on_a_dense_gcn():
    found = []
    for device in both:
        network = moved(siamese(), device)
        model = UndirectedModel(network, 6, n_graphs=2)
        labels = moved(torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]).double(), device)
        loss = R2ETLoss(moved(model, device), 3)(moved(pairs(5), device), labels)
        loss.backward()
        grads = [p.grad for n, p in network.named_parameters() if not n.startswith("classifier")]
        found.append((loss, grads))
    assert_same(*found, rtol=1e-6, atol=1e-8)


# --- PyTorch Geometric ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def geometric():
    return pytest.importorskip("torch_geometric")


def test_sparse_and_dense_agree(geometric):
    torch.manual_seed(0)
    dense = moved(DenseGCN(6, 7, 3, nn.Softplus).double())
    sparse = moved(SparseGCN(6, 7, 3, nn.Softplus).double())
    sparse.load_state_dict(dense.state_dict())
    graphs = moved(adjacency(connectomes(3)))
    graph, source, end = graphs.nonzero().T
    features = torch.eye(6, dtype=graphs.dtype, device=DEVICE).repeat(3, 1)
    batch = torch.arange(3, device=DEVICE).repeat_interleave(6)
    edges = torch.stack([source, end]) + 6 * graph
    found = sparse(features, edges, batch, graphs[graph, source, end])
    # Sums in the order in which the threads add.
    torch.testing.assert_close(found, dense(graphs), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("algorithm", ["Saliency", "InputXGradient", "IntegratedGradients"])
def test_explained_graph(geometric, algorithm):
    from captum_robust.graph import ExplainedGraph
    from tests.graph.explaining import BOTH, explainer_of, gcn, ring_with_chords

    found = []
    for device in both:
        x, edge_index = moved(ring_with_chords(), device)
        more = {"n_steps": 4} if algorithm == "IntegratedGradients" else {}
        explainer = explainer_of(moved(gcn(), device), algorithm, BOTH, **more)
        graph = ExplainedGraph(explainer, x, edge_index, index=2)
        before = graph.explain()
        points = ERAttack(graph.attribution, 3).perturb(
            graph.inputs, 0.3, step_num=3, seed=0, **graph.arguments
        )
        after = graph.explain(points)
        masks = before.edge_mask, after.edge_mask, before.node_mask, after.node_mask
        found.append((points, masks, graph.noise(graph.inputs, 0.1)[0] * 0))
    assert_same(*found, rtol=1e-6, atol=1e-8)


@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")
def test_an_algorithm_without_gradient(geometric):
    from torch_geometric.explain import GNNExplainer

    from captum_robust.graph import ExplainedGraph
    from tests.graph.explaining import EDGE, explainer_of, gcn, ring_with_chords

    x, edge_index = moved(ring_with_chords(dtype=torch.float32))
    explainer = explainer_of(moved(gcn(dtype=torch.float32)), GNNExplainer(epochs=5), EDGE)
    graph = ExplainedGraph(explainer, x, edge_index, index=2)
    (maps,) = graph.explanation_func(tuple(t.repeat(2, 1) for t in graph.inputs))
    assert maps.device == DEVICE and maps.isfinite().all() and maps.any()
    # Both begin with the same random mask, from the generator of the device.
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=1e-4)
    (again,) = graph.explanation_func(graph.inputs)
    assert not torch.allclose(again[0], maps[0], rtol=1e-3, atol=1e-4)


def test_padded_graphs(geometric):
    from torch_geometric.data import Batch

    from captum_robust.graph.pyg.padded import PaddedGraphs, padded_graphs
    from tests.graph.test_padded import LABELS, Classifier, graphs

    found = []
    for device in both:
        model = moved(Classifier(), device)
        batch = Batch.from_data_list(graphs()).to(device)
        features, _, structure = padded_graphs(batch)
        masked = PaddedGraphs(model)
        loss = R2ETLoss(masked, 3)(features, moved(LABELS, device), structure)
        loss.backward()
        attack = ERAttack(Saliency(masked), 3)
        points = attack.perturb(
            features, 0.2, target=moved(LABELS, device), additional_forward_args=structure,
            step_num=3, seed=0,
        )  # fmt: skip
        found.append((loss, [p.grad for p in model.parameters()], points))
    assert_same(*found, rtol=1e-6, atol=1e-8)
