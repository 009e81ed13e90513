"""Models of edges: their gradient, and everything that explains, measures, attacks and trains."""

import copy
import re
from functools import partial

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import nn

from captum_robust import loss, metrics
from captum_robust._utils.random import seeded
from captum_robust.graph import UndirectedModel, adjacency, upper_triangle
from captum_robust.ranking import flatten_attributions
from captum_robust.robust import (
    AutoERAttack,
    ERAttack,
    ExplanationComparator,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
    TopKAttack,
)
from tests.graph.brains import N_EDGES, N_NODES, Weighted, connectomes, pair_model, pairs, siamese

FEATURES = torch.linspace(-1, 1, 4 * N_NODES).double().view(4, N_NODES)


def leaves(inputs):
    return tuple(t.detach().clone().requires_grad_() for t in inputs)


def test_the_model_sees_matrices_and_the_rest():
    seen = []

    class Watch(nn.Module):
        def forward(self, *inputs):
            seen.append(inputs)
            return inputs[0].sum(dim=(1, 2))

    first, second = pairs(3)
    UndirectedModel(Watch(), N_NODES, 2)(first, second, "more", 7)
    expected = (adjacency(first), adjacency(second), "more", 7)
    assert all(torch.equal(a, b) for a, b in zip(seen[0][:2], expected[:2], strict=True))
    assert seen[0][2:] == expected[2:]
    UndirectedModel(Watch(), N_NODES)(first, second)
    assert torch.equal(seen[1][0], adjacency(first)) and seen[1][1] is second


def test_the_gradient_of_a_matrix_is_not_symmetric_and_that_of_edges_is_right():
    inner, edges = Weighted().double(), connectomes(4)
    matrix = adjacency(edges).requires_grad_()
    (raw,) = torch.autograd.grad(inner(matrix, FEATURES)[:, 1].sum(), matrix)
    assert (raw - raw.mT).abs().max() > 0.1
    model = UndirectedModel(inner, N_NODES)
    (leaf,) = leaves((edges,))
    maps = Saliency(model).attribute(leaf, target=1, abs=False, additional_forward_args=(FEATURES,))
    assert torch.allclose(maps, upper_triangle(raw + raw.mT), rtol=0, atol=1e-12)
    step, differences = 1e-6, torch.zeros_like(edges)
    for e in range(N_EDGES):
        ends = [edges.clone(), edges.clone()]
        ends[0][:, e] += step
        ends[1][:, e] -= step
        up, down = (inner(adjacency(end), FEATURES)[:, 1].detach() for end in ends)
        differences[:, e] = (up - down) / (2 * step)
    assert torch.allclose(maps, differences, rtol=0, atol=1e-8)


def test_it_can_be_differentiated_twice():
    model = pair_model()
    first, second = leaves(pairs(2))
    assert torch.autograd.gradgradcheck(lambda a, b: model(a, b), (first, second))


def test_parameters_are_shared_and_nothing_is_added_to_the_checkpoint():
    inner = siamese()
    model = UndirectedModel(inner, N_NODES, 2)
    assert list(model.parameters()) == list(inner.parameters())
    assert list(model.state_dict()) == [f"model.{name}" for name in inner.state_dict()]
    twin, inputs = copy.deepcopy(model), pairs(2)
    assert torch.equal(twin(*inputs), model(*inputs))
    single = model.float()
    assert single(*(t.float() for t in inputs)).dtype == torch.float32


# --- explanations of a pair ----------------------------------------------------------------------


def test_gradient_times_input_is_the_explanation_of_the_papers():
    model, x = pair_model(), leaves(pairs(5))
    gradients = torch.autograd.grad(model(*x).sum(), x)
    maps = InputXGradient(model).attribute(x, target=0)
    for m, g, edges in zip(maps, gradients, x, strict=True):
        assert torch.allclose(m, g * edges, rtol=0, atol=1e-12)
    # |gradient| times the input, both graphs in one ranking, normalised to the sum 1
    papers = torch.cat([g.abs() * e for g, e in zip(gradients, x, strict=True)], dim=1)
    papers = papers / papers.sum(dim=1, keepdim=True)
    scores = flatten_attributions(maps, absolute=True)
    assert torch.allclose(scores / scores.sum(dim=1, keepdim=True), papers, rtol=0, atol=1e-12)


def test_ablating_an_edge_takes_it_out_of_both_rows():
    model, x = pair_model(), pairs(2)
    maps = FeatureAblation(model).attribute(x, target=0)
    for member in (0, 1):
        for e in range(N_EDGES):
            without = [t.clone() for t in x]
            without[member][:, e] = 0
            change = (model(*x) - model(*without))[:, 0]
            assert torch.allclose(maps[member][:, e], change, rtol=0, atol=1e-12)


def test_integrated_gradients_of_a_pair_are_complete():
    model, x = pair_model(), pairs(3)
    maps, gap = IntegratedGradients(model).attribute(
        x, target=0, n_steps=200, return_convergence_delta=True
    )
    assert gap.abs().max() < 1e-4 and all(m.shape == (3, N_EDGES) for m in maps)
    difference = (model(*x) - model(*(torch.zeros_like(t) for t in x)))[:, 0]
    assert torch.allclose(sum(m.sum(dim=1) for m in maps), difference, rtol=0, atol=1e-4)


ATTRIBUTIONS = {
    "saliency": (Saliency, {}),
    "input x gradient": (InputXGradient, {}),
    "integrated gradients": (IntegratedGradients, {"n_steps": 5}),
    "noise tunnel": (
        lambda model: NoiseTunnel(Saliency(model)),
        {"nt_samples": 3, "stdevs": 0.01},
    ),
    "gradient shap": (
        GradientShap,
        {"baselines": tuple(torch.zeros(2, N_EDGES).double() for _ in range(2)), "n_samples": 3},
    ),
    "ablation": (FeatureAblation, {}),
}


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_every_attribution_is_measured_and_attacked_on_pairs(name):
    make, arguments = ATTRIBUTIONS[name]
    model, x = pair_model(), leaves(pairs(4))
    attribution = make(model)
    explain = partial(attribution.attribute, target=0, **arguments)
    with seeded(0):  # gradient SHAP draws from the global generators
        thickness = metrics.ranking_thickness(
            explain, x, k=4, n_perturb_samples=2, n_steps=3, perturb_radius=0.05, seed=0
        )
    assert thickness.shape == (4,) and ((thickness > 0.5) & (thickness <= 1)).all()
    gradient = "spsa" if name == "ablation" else "autograd"
    attack = ERAttack(
        attribution, k=4, gradient=gradient, n_directions=2, lower_bound=0.0, upper_bound=1.0,
        absolute=True, predictions=model.predictions,
    )  # fmt: skip
    moved, info = attack.perturb(
        x, 0.1, step_num=4, target=0, seed=0, return_info=True, **arguments
    )
    assert (info.objective <= info.trace[0, 0]).all()
    assert (info.objective < info.trace[0, 0] - 1e-6).any()
    for after, before in zip(moved, x, strict=True):
        assert ((after >= 0) & (after <= 1)).all() and (after - before).abs().max() <= 0.1 + 1e-12
        matrix = adjacency(after)
        assert torch.equal(matrix, matrix.mT) and not matrix.diagonal(dim1=1, dim2=2).any()


# --- which ranking, which perturbation -----------------------------------------------------------


def test_the_edges_of_both_graphs_are_ranked_together():
    model, x = pair_model(), leaves(pairs(6))
    maps = Saliency(model).attribute(x, target=0)
    other = Saliency(model).attribute(leaves(pairs(6)[::-1]), target=0)
    joined, joined_other = (torch.cat(m, dim=1) for m in (maps, other))
    expected = [
        len(
            {i for _, i in sorted((-float(v), i) for i, v in enumerate(a))[:5]}
            & {i for _, i in sorted((-float(v), i) for i, v in enumerate(b))[:5]}
        )
        / 5
        for a, b in zip(joined, joined_other, strict=True)
    ]
    found = metrics.precision_at_k(maps, other, k=5)
    assert found.tolist() == pytest.approx(expected) and 0 < found.mean() < 1


def test_equal_ids_rank_connections_whichever_graph_they_are_in():
    model, x = pair_model(), leaves(pairs(6))
    same = torch.arange(N_EDGES), torch.arange(N_EDGES)
    attack = ERAttack(Saliency(model), k=3, feature_mask=same)
    _, info = attack.perturb(x, 0.1, target=0, return_info=True)
    sums = torch.stack(torch.autograd.grad(model(*x).sum(), x)).abs().sum(dim=0)
    top = sums.sort(dim=1, descending=True).values
    gaps = (N_EDGES - 3) * top[:, :3].sum(dim=1) - 3 * top[:, 3:].sum(dim=1)
    assert torch.allclose(info.trace[0, 0], gaps, rtol=0, atol=1e-10)


def test_one_member_is_explained_by_itself_given_the_other():
    model = pair_model()
    first, second = leaves(pairs(4))
    whole = Saliency(model).attribute((first, second), target=0)
    alone = Saliency(model).attribute(first, target=0, additional_forward_args=(second.detach(),))
    assert torch.allclose(alone, whole[0], rtol=0, atol=1e-14)

    def turned(second, first):
        return model(first, second)

    of_second = Saliency(turned).attribute(
        second, target=0, additional_forward_args=(first.detach(),)
    )
    assert torch.allclose(of_second, whole[1], rtol=0, atol=1e-14)
    attack = ERAttack(Saliency(model), k=4, predictions=model.predictions)
    moved, info = attack.perturb(
        first, 0.1, target=0, additional_forward_args=(second.detach(),), return_info=True
    )
    assert moved.shape == first.shape and (info.objective < info.trace[0, 0]).any()
    results = [model.predictions(f, second) for f in (moved, first)]
    assert not metrics.prediction_change_rate(*results).any()


@pytest.mark.parametrize("kept", [0, 1])
def test_one_member_is_left_alone_under_a_mask(kept):
    model, x = pair_model(), pairs(4)
    mask = [torch.ones(1, N_EDGES), torch.ones(1, N_EDGES)]
    mask[kept] = torch.zeros(1, N_EDGES)
    moved = ERAttack(Saliency(model), k=4).perturb(x, 0.1, target=0, mask=tuple(mask))
    assert torch.equal(moved[kept], x[kept])
    assert (moved[1 - kept] != x[1 - kept]).any(dim=1).all()


@pytest.mark.parametrize("make", [
    partial(ERAttack, k=4),
    MSEAttack,
    partial(TopKAttack, k=4),
    partial(ParetoERAttack, k=4, k_prime=2),
    partial(RandomSearchAttack, k=4),
    partial(AutoERAttack, k=4),
])  # fmt: skip
def test_chunks_of_pairs_change_nothing(make):
    model, x = pair_model(), pairs(5)
    attack = make(Saliency(model), lower_bound=0.0, upper_bound=1.0)
    arguments = {"radius": 0.1, "target": 0, "seed": 0}
    arguments |= {"budget": 70} if isinstance(attack, AutoERAttack) else {"step_num": 4}
    whole = attack.perturb(x, **arguments)
    parts = attack.perturb(x, max_examples_per_batch=2, **arguments)
    assert any(not torch.equal(w, t) for w, t in zip(whole, x, strict=True))
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_a_table_of_pairs():
    model, x = pair_model(), pairs(3)
    table = ExplanationComparator(
        {"saliency": Saliency(model), "gradient x input": InputXGradient(model)},
        {"er": partial(ERAttack, k=4)},
        {"P@4": partial(metrics.precision_at_k, k=4, absolute=True)},
        predictions=model.predictions,
    ).evaluate(x, radius=0.1, target=0, seed=0)
    assert all(m.values["P@4"].shape == (3,) for m in table.measurements)


def test_metrics_of_the_model_take_pairs():
    model, x = pair_model(), pairs(3)
    curvature = metrics.hessian_norm(model, x, target=0)

    def joined(both):
        return model(both[None, :N_EDGES], both[None, N_EDGES:])[0, 0]

    expected = torch.stack(
        [
            torch.linalg.matrix_norm(torch.autograd.functional.hessian(joined, row))
            for row in torch.cat(x, dim=1)
        ]
    )
    assert torch.allclose(curvature, expected, rtol=1e-6)
    lower, upper = metrics.thickness_bounds(model, x, k=4, radius=0.05, n_samples=2, target=0)
    assert (lower <= upper).all()


LOSSES = {
    "r2et": partial(loss.R2ETLoss, k=4),
    "r2et-mm": partial(loss.R2ETLoss, k=4, pairs="mm", hessian="hvp"),
    "of gradient x input": lambda model: loss.R2ETLoss(
        model, k=4, attribution=InputXGradient(model), normalize=True
    ),
    "hessian": loss.HessianNormLoss,
    "ssr": loss.SSRLoss,
    "adversarial": partial(loss.AdversarialRankingLoss, k=4, radius=0.1),
    "cross-lipschitz": partial(loss.CrossLipschitzLoss, k=4),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_train_on_pairs(name):
    inner, x = siamese(), pairs(4)
    target = torch.tensor([0, 1, 1, 0])
    value = LOSSES[name](UndirectedModel(inner, N_NODES, 2))(x, target)
    value.backward()
    own = {n: p.grad for n, p in inner.named_parameters() if not n.startswith("classifier")}
    assert all(g is not None and torch.isfinite(g).all() for g in own.values())
    assert any(g.any() for g in own.values())


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_nodes": 1}, "n_nodes must be an integer of at least 2, got 1"),
        ({"n_nodes": 6, "n_graphs": 0}, "n_graphs must be an integer of at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UndirectedModel(nn.Identity(), **options)


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        ((torch.zeros(2, 15),), "[(2, 15)]"),
        ((torch.zeros(2, 15), torch.zeros(2, 14)), "[(2, 15), (2, 14)]"),
        ((torch.zeros(2, 6, 6), torch.zeros(2, 6, 6)), "[(2, 6, 6), (2, 6, 6)]"),
        ((torch.zeros(2, 15), 3), "[(2, 15), 'int']"),
    ],
)
def test_other_inputs_are_refused(inputs, got):
    message = f"2 tensors of edges, of shape (N, 15) for 6 nodes, got {got}"
    with pytest.raises(ValueError, match=re.escape(message)):
        UndirectedModel(nn.Identity(), N_NODES, 2)(*inputs)
