import warnings

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import GAT, GCN, GraphNorm, GraphSAGE, global_mean_pool, to_captum_model

from captum_robust.attr import attribution_gradcheck
from captum_robust.graph.pyg.explained import ExplainedGraph
from captum_robust.metrics import precision_at_k, ranking_thickness
from captum_robust.robust import AutoERAttack, ERAttack, MinRadius
from tests.graph.explaining import BOTH, EDGE, NODE, explainer_of, gcn, ring_with_chords

X, EDGE_INDEX = ring_with_chords()
INDEX = 2


def quietly(explainer, *args, **kwargs):
    """What the explainer returns, without Captum's warning about its inputs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        return explainer(*args, **kwargs)


def masks_of(explanation):
    return [explanation[name] for name in ("node_mask", "edge_mask") if name in explanation]


@pytest.mark.parametrize("cls", [GCN, GAT, GraphSAGE])
@pytest.mark.parametrize("masks", [EDGE, NODE, BOTH])
@pytest.mark.parametrize("algorithm", ["Saliency", "IntegratedGradients", "InputXGradient"])
def test_the_explanation_is_that_of_the_explainer(algorithm, masks, cls):
    explainer = explainer_of(gcn(cls), algorithm, masks)
    expected = quietly(explainer, X, EDGE_INDEX, index=INDEX)
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    found = graph.explain()
    assert found.available_explanations == expected.available_explanations
    for mask, own in zip(masks_of(found), masks_of(expected), strict=True):
        assert torch.allclose(mask, own.double(), atol=1e-7)  # the masks of the explainer are float
    assert torch.equal(found.target, expected.target) and torch.equal(found.index, expected.index)
    assert torch.allclose(found.prediction, expected.prediction)
    again = ExplainedGraph.of(explainer, expected)
    assert all(torch.equal(a, b) for a, b in zip(again.inputs, graph.inputs, strict=True))


def test_what_cannot_matter_is_no_input():
    graph = ExplainedGraph(explainer_of(gcn(), masks=BOTH), X, EDGE_INDEX, index=INDEX)
    features, weights = graph.inputs
    whole = quietly(graph.explainer, X, EDGE_INDEX, index=INDEX)
    assert whole.node_mask.abs().sum(dim=1).nonzero()[:, 0].tolist() == graph.nodes.tolist()
    assert whole.edge_mask.nonzero()[:, 0].tolist() == graph.edges.tolist()
    assert features.shape == (1, len(graph.nodes), X.shape[1]) and 3 < len(graph.nodes) < len(X)
    assert weights.shape == (1, len(graph.edges)) and len(graph.edges) < EDGE_INDEX.shape[1]


def on_the_whole_graph(model, weights, graph):
    """The output of the node by torch_geometric's own edge masks, from weights of the inputs."""
    mask = torch.ones(EDGE_INDEX.shape[1]).double()
    mask[graph.edges] = weights[0]
    return to_captum_model(model, "edge", INDEX)(mask[None], X, EDGE_INDEX)


def test_the_part_of_the_graph_gives_the_same_function():
    model = gcn()
    graph = ExplainedGraph(explainer_of(model), X, EDGE_INDEX, index=INDEX)
    assert len(graph.model.call.x) < len(X)
    weights = torch.rand(2, len(graph.edges)).double()
    expected = [on_the_whole_graph(model, row[None], graph) for row in weights]
    assert torch.allclose(graph.model(weights), torch.cat(expected))


@pytest.mark.parametrize(
    ("algorithm", "masks"),
    [
        ("Saliency", EDGE),
        ("IntegratedGradients", EDGE),
        ("InputXGradient", BOTH),
        ("Saliency", NODE),
    ],
)
def test_maps_are_differentiated_rightly(algorithm, masks):
    few = {"n_steps": 6} if algorithm == "IntegratedGradients" else {}
    explainer = explainer_of(gcn(), algorithm, masks, **few)
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    arguments = {n: v for n, v in graph.arguments.items() if n != "project"}
    inputs = tuple(0.9 * tensor for tensor in graph.inputs)
    assert attribution_gradcheck(graph.attribution, inputs, **arguments) < 1e-6


def test_saliency_of_weights_by_central_differences_on_the_whole_graph():
    model = gcn()
    graph = ExplainedGraph(explainer_of(model), X, EDGE_INDEX, index=INDEX)
    weights = torch.full((1, len(graph.edges)), 0.7).double()
    slopes = []
    for step in 1e-5 * torch.eye(weights.shape[1]).double():
        ahead, behind = (on_the_whole_graph(model, weights + s * step, graph) for s in (1, -1))
        slopes.append((ahead - behind)[0, graph.target] / 2e-5)
    assert torch.allclose(
        graph.explanation_func((weights,))[0][0], torch.stack(slopes).abs(), atol=1e-8
    )


def saliency_of_mask(model, mask, target):
    """The saliency of an edge mask of the whole graph by PyTorch Geometric and autograd alone."""
    leaf = mask[None].clone().requires_grad_()
    output = to_captum_model(model, "edge", INDEX)(leaf, X, EDGE_INDEX)[0, target]
    return torch.autograd.grad(output, leaf)[0][0].abs()


def test_thickness_by_its_definition():
    model, k = gcn(), 3
    graph = ExplainedGraph(explainer_of(model), X, EDGE_INDEX, index=INDEX)
    n_edges, drawn = len(graph.edges), []

    def neighbour(inputs, radius):
        drawn.append(inputs[0] - radius * torch.rand(1, n_edges).double())
        return (drawn[-1],)

    found = ranking_thickness(
        graph.explanation_func, graph.inputs, k, perturb_func=neighbour, perturb_radius=0.9,
        n_perturb_samples=3, n_steps=4, seed=0,
    )  # fmt: skip
    ones = torch.ones(EDGE_INDEX.shape[1]).double()
    top = saliency_of_mask(model, ones, graph.target)[graph.edges].topk(k).indices.tolist()
    held = []
    for end in drawn:
        for t in (0.125, 0.375, 0.625, 0.875):
            mask = ones.clone()
            mask[graph.edges] = 1 + t * (end[0] - 1)
            scores = saliency_of_mask(model, mask, graph.target)[graph.edges].tolist()
            rest = [j for j in range(n_edges) if j not in top]
            held += [scores[i] >= scores[j] for i in top for j in rest]
    assert len(drawn) == 3 and 0 < sum(held) < len(held)
    assert found.item() == pytest.approx(sum(held) / len(held), abs=1e-9)


def test_chunks_do_not_change_a_metric():
    explainer = explainer_of(gcn(), "IntegratedGradients", n_steps=4)
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    arguments = {"n_perturb_samples": 3, "n_steps": 2, "perturb_radius": 0.9, "seed": 0}
    values = [
        ranking_thickness(
            graph.explanation_func,
            graph.inputs,
            3,
            graph.noise,
            max_examples_per_batch=chunk,
            **arguments,
        )
        for chunk in (None, 1, 4)
    ]
    assert values[0] == values[1] == values[2] < 1


@pytest.mark.parametrize(("algorithm", "seed"), [("Saliency", 3), ("InputXGradient", 2)])
def test_no_grid_of_weights_is_worse_than_the_attack(algorithm, seed):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double()
    edge_index = torch.tensor([[1, 2, 3, 4], [0, 0, 0, 2]])
    graph = ExplainedGraph(explainer_of(gcn(), algorithm), x, edge_index, index=0)
    k, radius = 2, 0.8
    grid = torch.cartesian_prod(*[torch.linspace(1 - radius, 1, 4).double()] * 4)
    grid = grid[graph.model(grid).argmax(dim=1) == graph.target]
    maps = graph.explanation_func((grid,))[0]
    reference = graph.explanation_func(graph.inputs)[0].expand_as(maps)
    precisions = precision_at_k(maps, reference, k)
    assert precisions.min() < 1
    (weights,), info = AutoERAttack(graph.attribution, k).perturb(
        graph.inputs, radius, seed=0, budget=250, return_info=True, **graph.arguments
    )
    assert info.precision <= precisions.min()
    assert bool((weights >= 1 - radius).all() and (weights <= 1).all())
    assert graph.model(weights).argmax() == graph.target


@pytest.mark.parametrize("masks", [EDGE, NODE, BOTH])
def test_attacks_stay_in_the_ball_and_weights_in_their_range(masks):
    graph = ExplainedGraph(explainer_of(gcn(), masks=masks), X, EDGE_INDEX, index=INDEX)
    attack = ERAttack(graph.attribution, k=3, gradient="finite_difference")
    moved, info = attack.perturb(graph.inputs, 0.5, step_num=8, return_info=True, **graph.arguments)
    assert info.objective < info.trace[0, 0]
    for before, after in zip(graph.inputs, moved, strict=True):
        assert bool(((after - before).abs() <= 0.5).all()) and not torch.equal(before, after)
    if "edge_mask_type" in masks:
        assert bool((moved[-1] <= 1).all() and (moved[-1] >= 0.5).all())
    noisy = [graph.noise(graph.inputs, 2.0) for _ in range(2)]
    assert not torch.equal(noisy[0][0], noisy[1][0])
    if "edge_mask_type" in masks:
        assert 0 <= noisy[0][-1].min() < 0.5 and noisy[0][-1].max() <= 1


def test_smallest_radius_that_changes_the_top_edges():
    graph = ExplainedGraph(explainer_of(gcn()), X, EDGE_INDEX, index=INDEX)
    search = MinRadius(ERAttack(graph.attribution, k=3), n_bisections=3)
    radius, moved = search.evaluate(graph.inputs, return_perturbed=True, **graph.arguments)
    assert 0 < radius <= 1
    maps = graph.explanation_func(moved), graph.explanation_func(graph.inputs)
    assert precision_at_k(*maps, k=3) < 1


def test_the_explanation_of_a_perturbed_graph():
    explainer = explainer_of(gcn(), masks=BOTH)
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    moved = (graph.inputs[0] + 0.1, graph.inputs[1] * 0.4)
    found = graph.explain(moved)
    others = [n for n in range(len(X)) if n not in graph.nodes.tolist()]
    assert torch.equal(found.x[graph.nodes], moved[0][0])
    assert torch.equal(found.x[others], X[others])
    weights = torch.ones(EDGE_INDEX.shape[1]).double()
    weights[graph.edges] = 0.4
    assert torch.equal(found.message_weight, weights)
    assert torch.equal(found.edge_index, EDGE_INDEX) and found.validate()
    for mask, own in zip(masks_of(found), graph.explanation_func(moved), strict=True):
        assert torch.equal(mask[mask != 0], own[own != 0])
    with pytest.raises(ValueError, match=r"inputs must have the shapes \[\(1, "):
        graph.explain((moved[0][:, 1:], moved[1]))


def test_the_threshold_of_the_explainer_holds():
    explainer = explainer_of(gcn(), threshold=("topk_hard", 3))
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    assert graph.explain().edge_mask.unique().tolist() == [0, 1]
    assert graph.explain().edge_mask.sum() == 3


class Breaks(nn.Module):
    """A model that raises at its n-th call."""

    def __init__(self, model, n):
        super().__init__()
        self.model, self.left = model, n

    def forward(self, x, edge_index):
        self.left -= 1
        if self.left < 0:
            raise ArithmeticError
        return self.model(x, edge_index)


def snapshot(model):
    return [
        (m.training, sorted(vars(m)), getattr(m, "explain", None), getattr(m, "_edge_mask", None))
        for m in model.modules()
    ] + [(p.requires_grad, p.grad, p.sum().item()) for p in model.parameters()]


@pytest.mark.parametrize("n_calls", [10**9, 9])
def test_graph_and_model_are_left_as_found(n_calls):
    model = Breaks(gcn(dropout=0.5), n_calls)
    model.model.convs[0].train()  # one part only, and not the root
    x, edge_index = X.clone(), EDGE_INDEX.clone()
    before = snapshot(model)
    state = torch.random.get_rng_state()
    graph = ExplainedGraph(explainer_of(model, masks=BOTH), x, edge_index, index=INDEX)

    def use():
        ERAttack(graph.attribution, 3).perturb(graph.inputs, 0.3, step_num=4, **graph.arguments)
        ranking_thickness(graph.explanation_func, graph.inputs, 3, graph.noise, 0.3, 2, 2, seed=0)
        graph.explain()

    if n_calls < 10**9:
        with pytest.raises(ArithmeticError):
            use()
    else:
        use()
    assert snapshot(model) == before
    assert torch.equal(x, X) and torch.equal(edge_index, EDGE_INDEX)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_undirected_edges_share_a_weight():
    model = gcn()
    directed, undirected = (
        ExplainedGraph(
            explainer_of(model, "IntegratedGradients", n_steps=5), X, EDGE_INDEX, index=INDEX,
            undirected=share,
        )
        for share in (False, True)
    )  # fmt: skip
    n_pairs = undirected.inputs[0].shape[1]
    assert directed.inputs[0].shape[1] > n_pairs == len(directed.feature_mask[0].unique())
    # Integrated gradients are linear: the map of a shared weight is the sum of both directions.
    map_of = directed.explanation_func(directed.inputs)[0][0]
    total = torch.zeros(n_pairs).double().index_add(0, directed.feature_mask[0][0], map_of)
    own = undirected.explanation_func(undirected.inputs)[0][0]
    assert torch.allclose(own, total)
    moved = ERAttack(undirected.attribution, 2).perturb(
        undirected.inputs, 0.3, **undirected.arguments
    )
    mask = undirected.explain(moved).message_weight
    matrix = torch.zeros(len(X), len(X)).double()
    matrix[EDGE_INDEX[0], EDGE_INDEX[1]] = mask
    changed = (matrix < 1) & (matrix > 0)
    # The far edges count in one direction only.
    both = changed & changed.T
    assert torch.equal(matrix[both], matrix.T[both]) and both.sum() >= 4
    with pytest.raises(ValueError, match=f"k must be an int with 1 <= k < {n_pairs}"):
        ranking_thickness(undirected.explanation_func, undirected.inputs, n_pairs, seed=0)
    assert undirected.feature_mask[0].tolist() == [list(range(n_pairs))]


def test_groups_of_both_directions_beside_node_features():
    graph = ExplainedGraph(explainer_of(gcn(), masks=BOTH), X, EDGE_INDEX, index=INDEX)
    features, pairs = graph.feature_mask
    assert features.unique().tolist() == list(range(features.numel()))
    assert int(pairs.min()) == features.numel()
    assert features.shape == graph.inputs[0].shape and pairs.shape == graph.inputs[1].shape


class WithReadout(nn.Module):
    """A node sees the mean of all others besides its neighbours."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = gcn(num_layers=1), GraphNorm(3).double()

    def forward(self, x, edge_index):
        return self.norm(self.conv(x, edge_index))


def test_a_model_that_sees_everything_gets_everything():
    graph = ExplainedGraph(explainer_of(WithReadout()), X, EDGE_INDEX, index=INDEX)
    assert len(graph.edges) == EDGE_INDEX.shape[1] and len(graph.model.call.x) == len(X)


class PerEdge(nn.Module):
    """Depends on the size of the graph in a way that no gradient shows."""

    def __init__(self):
        super().__init__()
        self.conv = gcn()

    def forward(self, x, edge_index):
        return self.conv(x, edge_index) * edge_index.shape[1]


@pytest.mark.parametrize("model", [PerEdge(), gcn(cached=True)])
def test_a_part_that_gives_another_output_is_not_used(model):
    graph = ExplainedGraph(explainer_of(model), X, EDGE_INDEX, index=INDEX)
    assert len(graph.edges) < EDGE_INDEX.shape[1] and len(graph.model.call.x) == len(X)
    expected = quietly(graph.explainer, X, EDGE_INDEX, index=INDEX).edge_mask
    assert torch.allclose(graph.explain().edge_mask, expected.double(), atol=1e-7)


def test_edges_of_the_class_edge_index():
    edge_index = EdgeIndex(EDGE_INDEX, sparse_size=(len(X), len(X))).sort_by("col")[0]
    own = ExplainedGraph(explainer_of(gcn()), X, edge_index, index=INDEX).explain()
    plain = ExplainedGraph(explainer_of(gcn()), X, edge_index.as_tensor(), index=INDEX).explain()
    assert own.edge_mask.count_nonzero() > 3 and torch.equal(own.edge_mask, plain.edge_mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precisions(dtype):
    graph = ExplainedGraph(
        explainer_of(gcn(dtype=dtype), masks=BOTH), X.to(dtype), EDGE_INDEX, index=INDEX
    )
    moved = ERAttack(graph.attribution, 3).perturb(graph.inputs, 0.3, step_num=2, **graph.arguments)
    assert all(t.dtype == dtype for t in (*graph.inputs, *moved))
    assert graph.explain(moved).edge_mask.dtype == dtype


def test_arguments_of_nodes_and_edges_are_cut_alike():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = gcn()

        def forward(self, x, edge_index, scale, edge_weight, power=2):
            return self.conv(x * scale[:, None] ** power, edge_index, edge_weight)

    scale = torch.rand(len(X)).double() + 0.5
    edge_weight = torch.rand(EDGE_INDEX.shape[1]).double()
    explainer = explainer_of(Weighted(), masks=BOTH)
    given = {"scale": scale, "edge_weight": edge_weight, "power": 2}
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX, **given)
    assert len(graph.model.call.x) < len(X)
    expected = quietly(explainer, X, EDGE_INDEX, index=INDEX, **given)
    for mask, own in zip(masks_of(graph.explain()), masks_of(expected), strict=True):
        assert torch.allclose(mask, own.double(), atol=1e-7)
    assert ExplainedGraph.of(explainer, expected).inputs[1].shape == graph.inputs[1].shape
    assert torch.equal(graph.explain().edge_weight, edge_weight)
    assert torch.equal(graph.explain().message_weight, torch.ones_like(edge_weight))


class GraphClassifier(nn.Module):
    def __init__(self, out_channels, returns):
        super().__init__()
        self.conv, self.returns = gcn(out_channels=out_channels), returns

    def forward(self, x, edge_index, batch):
        logits = global_mean_pool(self.conv(x, edge_index), batch)
        return logits.sigmoid() if self.returns == "probs" else logits


@pytest.mark.parametrize(
    ("mode", "returns", "n_outputs"),
    [
        ("multiclass_classification", "raw", 3),
        ("binary_classification", "probs", 1),
        ("regression", "raw", 1),
    ],
)
def test_whole_graphs(mode, returns, n_outputs):
    model = GraphClassifier(n_outputs, returns)
    explainer = explainer_of(model, mode=mode, level="graph", returns=returns)
    batch = torch.zeros(len(X), dtype=torch.long)
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, batch=batch)
    expected = quietly(explainer, X, EDGE_INDEX, batch=batch)
    assert torch.allclose(graph.explain().edge_mask, expected.edge_mask.double(), atol=1e-7)
    moved = ERAttack(graph.attribution, 3, preserve_prediction="none").perturb(
        graph.inputs, 0.5, step_num=5, **graph.arguments
    )
    assert not torch.equal(moved[0], graph.inputs[0])
    assert (graph.target is None) == (mode == "regression")


def test_the_label_may_be_given():
    explainer = explainer_of(gcn(), kind="phenomenon")
    labels = torch.arange(len(X)) % 3
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX, target=labels)
    assert graph.target == labels[INDEX]
    expected = quietly(explainer, X, EDGE_INDEX, index=INDEX, target=labels)
    assert torch.allclose(graph.explain().edge_mask, expected.edge_mask.double(), atol=1e-7)
    assert ExplainedGraph.of(explainer, expected).target == graph.target
    with pytest.raises(ValueError, match="target must be given"):
        ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    with pytest.raises(ValueError, match="target must be None"):
        ExplainedGraph(explainer_of(gcn()), X, EDGE_INDEX, index=INDEX, target=labels)


def test_noise_tunnel_needs_no_batch_size():
    graph = ExplainedGraph(explainer_of(gcn()), X, EDGE_INDEX, index=INDEX)
    leaves = tuple(t.requires_grad_() for t in graph.inputs)
    maps = NoiseTunnel(graph.attribution).attribute(
        leaves, nt_samples=4, stdevs=0.1, target=graph.target
    )
    assert maps[0].shape == graph.inputs[0].shape
    many = IntegratedGradients(graph.model).attribute(leaves, target=graph.target, n_steps=6)
    one = IntegratedGradients(graph.model).attribute(
        leaves, target=graph.target, n_steps=6, internal_batch_size=1
    )
    assert torch.allclose(many[0], one[0])


def test_baselines_are_given_for_the_whole_graph():
    baseline = torch.rand(1, EDGE_INDEX.shape[1]).double()
    explainer = explainer_of(gcn(), "IntegratedGradients", n_steps=5, baselines=(baseline,))
    graph = ExplainedGraph(explainer, X, EDGE_INDEX, index=INDEX)
    expected = quietly(explainer, X, EDGE_INDEX, index=INDEX)
    assert torch.allclose(graph.explain().edge_mask, expected.edge_mask.double(), atol=1e-7)
    assert not torch.allclose(
        graph.explain().edge_mask[graph.edges],
        Saliency(graph.model).attribute(
            tuple(t.requires_grad_() for t in graph.inputs), target=graph.target
        )[0][0],
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"index": None}, "index must say which of the 20 outputs"),
        ({"index": torch.tensor([1, 2])}, "index must name one output of the model"),
        ({"index": torch.tensor([True])}, "index must name one output of the model"),
        ({"index": 20}, r"index must lie in 0 … 19"),
        ({"x": {"paper": X}}, "x and edge_index must be tensors"),
        ({"x": X.long()}, "x must hold floating point features"),
        ({"edge_index": EDGE_INDEX[:1]}, r"edge_index must have shape \(2, E\)"),
    ],
)
def test_refusals(changed, message):
    given = {"x": X, "edge_index": EDGE_INDEX, "index": INDEX, **changed}
    with pytest.raises(ValueError, match=message):
        ExplainedGraph(explainer_of(gcn()), given.pop("x"), given.pop("edge_index"), **given)
