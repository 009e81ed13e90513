"""Explainers of PyTorch Geometric that have no gradient."""

import warnings

import pytest
import torch
from torch_geometric.explain import GNNExplainer, GraphMaskExplainer, PGExplainer

from captum_robust.attr import NotDifferentiableError, is_differentiable
from captum_robust.graph.pyg.explained import ExplainedGraph
from captum_robust.metrics import precision_at_k, precision_at_k_min, ranking_thickness
from captum_robust.robust import AutoERAttack, ERAttack, MinRadius, RandomSearchAttack
from tests.graph.explaining import BOTH, EDGE, NODE, explainer_of, gcn, ring_with_chords

X, EDGE_INDEX = ring_with_chords(torch.float32)
INDEX = 2


def explained(algorithm=None, masks=EDGE, model=None, **options):
    model = gcn(dtype=torch.float32) if model is None else model
    explainer = explainer_of(model, algorithm or GNNExplainer(epochs=4), masks)
    return ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX, **options)


def trained_pg_explainer(model):
    """An explainer with a network of its own, and its labels."""
    algorithm = PGExplainer(epochs=2)
    explainer = explainer_of(model, algorithm, kind="phenomenon")
    labels = model(X, EDGE_INDEX).argmax(dim=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad")  # of its loss
        for epoch in range(2):
            algorithm.train(epoch, model, X, EDGE_INDEX, target=labels, index=INDEX)
    return explainer, labels


@pytest.mark.parametrize("masks", [EDGE, NODE, BOTH, {"node_mask_type": "object", **EDGE}])
def test_the_explanation_is_that_of_the_explainer(masks):
    graph = explained(masks=masks)
    torch.manual_seed(3)
    expected = graph.explainer(X, EDGE_INDEX, index=INDEX)
    torch.manual_seed(3)
    found = graph.explain()
    assert found.available_explanations == expected.available_explanations
    for name in found.available_explanations:
        assert torch.equal(found[name], expected[name])


def test_a_trained_explainer():
    model = gcn(dtype=torch.float32)
    explainer, labels = trained_pg_explainer(model)
    expected = explainer(X, EDGE_INDEX, index=INDEX, target=labels)
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX, target=labels)
    assert torch.equal(graph.explain().edge_mask, expected.edge_mask)
    moved = graph.explain((torch.full_like(graph.inputs[0], 0.5),))
    assert not torch.allclose(moved.edge_mask, expected.edge_mask)


def test_graph_mask_explainer_leaves_no_layer_replaced():
    model = gcn(dtype=torch.float32)
    algorithm = GraphMaskExplainer(2, epochs=1, layer_type="GCN", log=False)
    explainer = explainer_of(model, algorithm, BOTH)
    before = [sorted(vars(module)) for module in model.modules()]
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    assert graph.explain().edge_mask.shape == (EDGE_INDEX.shape[1],)
    assert [sorted(vars(module)) for module in model.modules()] == before
    assert all(module.explain is None for module in model.convs)


@pytest.mark.parametrize("masks", [EDGE, BOTH])
def test_metrics_take_it_as_it_is(masks):
    graph = explained(GNNExplainer(epochs=15, lr=0.1), masks)
    k, seed, drawn = 4, 5, []

    def neighbour(inputs, radius):
        moved = (t - radius * torch.rand_like(t) for t in inputs)
        drawn.append(graph.project(tuple(moved)))
        return drawn[-1]

    found = precision_at_k_min(
        graph.explanation_func, graph.inputs, k, neighbour, 1.0, n_perturb_samples=8, seed=seed
    )
    each = []
    for version in (graph.inputs, *drawn):
        torch.manual_seed(seed)  # all versions see the same random numbers
        each.append(graph.attribution.attribute(version))
    precisions = [precision_at_k(maps, each[0], k).item() for maps in each[1:]]
    assert found.item() == pytest.approx(min(precisions))
    assert len(drawn) == 8 and min(precisions) < 1


def test_no_change_of_the_graph_is_no_change_of_the_explanation():
    graph = explained()
    still = {"perturb_func": graph.noise, "perturb_radius": 0.0, "n_perturb_samples": 2, "seed": 0}
    assert precision_at_k_min(graph.explanation_func, graph.inputs, 3, **still) == 1


def test_random_search_attacks_it():
    graph = explained()
    attack = RandomSearchAttack(graph.attribution, k=3)
    moved, info = attack.perturb(
        graph.inputs, 0.9, step_num=15, seed=0, return_info=True, **graph.arguments
    )
    assert info.precision < 1 and info.prediction_kept
    assert bool((moved[0] >= 0.1 - 1e-6).all() and (moved[0] <= 1).all())
    radius = MinRadius(attack, n_radii=2, n_bisections=1).evaluate(
        graph.inputs, seed=0, step_num=8, **graph.arguments
    )
    assert 0 < radius <= 1


def test_gradients_are_refused():
    graph = explained()
    assert not is_differentiable(graph.attribution)
    with pytest.raises(
        NotDifferentiableError, match="AlgorithmAttribution has no correct gradient"
    ):
        ERAttack(graph.attribution, k=3)
    assert ERAttack(graph.attribution, k=3, gradient="spsa") is not None


def test_the_ensemble_attacks_it_within_a_budget():
    graph = explained()
    _, info = AutoERAttack(graph.attribution, k=3).perturb(
        graph.inputs, 0.9, seed=0, budget=60, return_info=True, **graph.arguments
    )
    assert info.precision <= 1 and int(info.n_queries) <= 60


def test_the_model_is_left_as_found():
    model = gcn(dtype=torch.float32)
    graph = explained(masks=BOTH, model=model)
    before = [sorted(vars(module)) for module in model.modules()]
    state = torch.random.get_rng_state()
    ranking_thickness(graph.explanation_func, graph.inputs, 3, graph.noise, 0.3, 1, 1, seed=0)
    assert [sorted(vars(module)) for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all("_edge_mask" not in module._parameters for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_edge_masks_after_gnn_explainer_has_used_the_model():
    # It leaves a parameter in the layers, through which torch_geometric's own masks lose gradients.
    model = gcn(dtype=torch.float32)
    fresh = explained("Saliency", model=model).explain().edge_mask
    explainer_of(model, GNNExplainer(epochs=2))(X, EDGE_INDEX, index=INDEX)
    assert "_edge_mask" in model.convs[0]._parameters
    assert torch.equal(explained("Saliency", model=model).explain().edge_mask, fresh)


def test_both_directions_of_an_edge_are_added():
    directed, undirected = explained(), explained(undirected=True)
    torch.manual_seed(0)
    one = directed.explanation_func(directed.inputs)[0]
    torch.manual_seed(0)
    both = undirected.explanation_func(undirected.inputs)[0]
    assert both.shape == undirected.inputs[0].shape
    total = torch.zeros(both.shape[1]).index_add(0, directed.feature_mask[0][0], one[0])
    assert torch.allclose(both[0], total)
    assert precision_at_k(both, total[None], 3) == 1
