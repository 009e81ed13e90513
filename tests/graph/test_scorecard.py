"""PyTorch Geometric's metrics beside ours, against models run by hand."""

import math

import pytest
import torch
from torch_geometric.explain import GNNExplainer
from torch_geometric.nn import to_captum_model

from captum_robust.graph.pyg.explained import ExplainedGraph
from captum_robust.graph.pyg.scorecard import compare_explainers, top_k_explanation
from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.robust import AutoERAttack, RandomSearchAttack
from tests.graph.explaining import BOTH, EDGE, explainer_of, gcn, ring_with_chords

X, EDGE_INDEX = ring_with_chords()
K, RADIUS = 3, 0.8
SMALL = {"n_perturb_samples": 2, "n_steps": 2, "budget": 30, "seed": 0}


def explained(algorithm="Saliency", masks=EDGE, index=2, **options):
    explainer = explainer_of(gcn(), algorithm, masks)
    return ExplainedGraph(explainer, X, EDGE_INDEX, index=index, **options)


def test_masks_of_the_top_k():
    graph = explained()
    top = top_k_explanation(graph, K)
    soft = graph.explain().edge_mask
    assert top.edge_mask.nonzero()[:, 0].tolist() == sorted(soft.topk(K).indices.tolist())
    assert top.edge_mask.unique().tolist() == [0, 1]


def test_nodes_and_edges_share_the_top_k():
    graph = explained(masks=BOTH)
    top, soft = top_k_explanation(graph, 12), graph.explain()
    lowest = min(soft.node_mask[top.node_mask == 1].min(), soft.edge_mask[top.edge_mask == 1].min())
    assert int(top.node_mask.sum() + top.edge_mask.sum()) == 12
    assert int((soft.node_mask >= lowest).sum() + (soft.edge_mask >= lowest).sum()) == 12


def test_both_directions_of_an_undirected_edge():
    graph = explained(undirected=True)
    top = top_k_explanation(graph, K).edge_mask.nonzero()[:, 0].tolist()
    pairs = {tuple(sorted(EDGE_INDEX[:, e].tolist())) for e in top}
    assert len(pairs) == K < len(top)


@pytest.mark.parametrize("k", [0, 10**6])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match="k must be an int with 1 <= k <"):
        top_k_explanation(explained(), k)


def test_a_map_without_a_ranking():
    model = gcn()
    torch.nn.init.zeros_(model.convs[1].lin.weight)
    graph = ExplainedGraph(explainer_of(model), X, EDGE_INDEX, index=2)
    with pytest.raises(ValueError, match="graph must have a ranking"):
        top_k_explanation(graph, K)


@torch.no_grad()
def by_hand(graph, mask):
    """Return whether the label changes, and the unfaithfulness, if a mask weights the messages."""
    model, index = graph.explainer.model, 2
    before = model(X, EDGE_INDEX)[index].softmax(0)
    after = to_captum_model(model, "edge", index)(mask[None], X, EDGE_INDEX)[0].softmax(0)
    divergence = float((after * (after / before).log()).sum())  # of the masked from the whole
    return float(after.argmax() != before.argmax()), 1 - math.exp(-divergence)


def test_a_row_holds_what_each_metric_says():
    explainer = explainer_of(gcn(), "InputXGradient")
    row = compare_explainers({"one": explainer}, X, EDGE_INDEX, [2], K, RADIUS, **SMALL)["one"]
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=2)
    mask = torch.zeros(EDGE_INDEX.shape[1]).double()
    mask[graph.explain().edge_mask.topk(K).indices] = 1
    assert row["fidelity+"] == by_hand(graph, 1 - mask)[0]
    assert row["fidelity-"] == by_hand(graph, mask)[0]
    assert row["unfaithfulness"] == pytest.approx(by_hand(graph, mask)[1], abs=1e-6)
    call = {"perturb_func": graph.noise, "perturb_radius": RADIUS, "seed": 0}
    call["n_perturb_samples"] = 2
    assert row["thickness"] == ranking_thickness(
        graph.explanation_func, graph.inputs, K, n_steps=2, **call
    )
    assert row["P@k noise"] == precision_at_k_min(graph.explanation_func, graph.inputs, K, **call)
    _, info = AutoERAttack(graph.attribution, K).perturb(
        graph.inputs, RADIUS, seed=0, budget=30, return_info=True, **graph.arguments
    )
    assert row["P@k attack"] == pytest.approx(float(info.precision))
    assert row["P@k attack"] <= row["P@k noise"]


def test_rows_of_several_explainers_are_means_over_nodes():
    explainers = {
        "saliency": explainer_of(gcn()), "gnn": explainer_of(gcn(), GNNExplainer(epochs=2)),
    }  # fmt: skip
    state = torch.random.get_rng_state()
    call = {**SMALL, "n_perturb_samples": 1, "budget": 8}
    table = compare_explainers(explainers, X, EDGE_INDEX, [2, 5], K, RADIUS, **call)
    assert list(table) == ["saliency", "gnn"] and torch.equal(torch.random.get_rng_state(), state)
    parts = [
        compare_explainers(explainers, X, EDGE_INDEX, [index], K, RADIUS, **call)
        for index in (2, 5)
    ]
    for name, row in table.items():
        for column, value in row.items():
            assert value == pytest.approx(sum(part[name][column] for part in parts) / 2)


def test_model_is_left_as_found():
    model = gcn(dropout=0.5)
    model.train()
    model.dropout.eval()
    before = [(m.training, sorted(vars(m))) for m in model.modules()]
    compare_explainers({"one": explainer_of(model)}, X, EDGE_INDEX, [2], K, RADIUS, **SMALL)
    assert [(m.training, sorted(vars(m))) for m in model.modules()] == before


def test_explainers_without_a_gradient_are_searched_at_random():
    explainer = explainer_of(gcn(), GNNExplainer(epochs=2))
    call = {**SMALL, "n_perturb_samples": 1, "budget": 12}
    row = compare_explainers({"gnn": explainer}, X, EDGE_INDEX, [2], K, 1.0, **call)["gnn"]
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=2)
    _, info = RandomSearchAttack(graph.attribution, K).perturb(
        graph.inputs, 1.0, seed=0, step_num=11, return_info=True, **graph.arguments
    )
    assert int(info.n_queries) <= 12 + 8  # the explainer is random: eight with other seeds
    assert row["P@k attack"] == pytest.approx(float(info.precision))


def test_a_budget_for_nothing():
    with pytest.raises(ValueError, match="budget must be at least 2, got 1"):
        compare_explainers({}, X, EDGE_INDEX, [2], K, RADIUS, budget=1)
