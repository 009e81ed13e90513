"""The thickness of single pairs, against loops, closed forms and the top-k thickness."""

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

from captum_robust.metrics import pairwise_ranking_thickness, ranking_thickness
from captum_robust.noise import GaussianNoise, UniformNoise
from tests.metrics.definitions import (
    Quadratic,
    Recorder,
    fraction_above_zero,
    mean,
    normal,
    softplus_net,
)

PAIRS = torch.tensor([[0, 1], [1, 0], [2, 5], [4, 3], [3, 3]])


def by_loops(attribute, example, neighbours, i, j, n_steps, surrogate, reduction):
    """Equation (2): one neighbour and one step at a time."""
    of_draws = []
    for neighbour in neighbours:
        h = []
        for m in range(1, n_steps + 1):
            t = (m - 0.5) / n_steps
            row = attribute((1 - t) * example + t * neighbour)[0].tolist()
            h.append(row[i] - row[j])
        of_draws.append(mean(g >= 0 for g in h) if surrogate == "indicator" else mean(h))
    return min(of_draws) if reduction == "min" else mean(of_draws)


@pytest.mark.parametrize("reduction", ["mean", "min"])
@pytest.mark.parametrize("surrogate", ["indicator", "margin"])
@pytest.mark.parametrize("pairs", [PAIRS, torch.stack([PAIRS, PAIRS.flip(1), PAIRS.flip(0)])])
def test_pairs_are_those_of_loops(pairs, surrogate, reduction):
    inputs, target = normal(3, 6), [2, 0, 1]
    saliency, perturb = Saliency(softplus_net(6)), Recorder(radius=1.0)
    found = pairwise_ranking_thickness(
        saliency.attribute, inputs, pairs, perturb, n_perturb_samples=4, n_steps=5,
        surrogate=surrogate, reduction=reduction, target=target, max_examples_per_batch=7, seed=0,
    )  # fmt: skip
    expected = [
        [
            by_loops(
                lambda point, e=e: saliency.attribute(point.requires_grad_(), target[e]).detach(),
                inputs[e : e + 1].clone(), perturb.neighbours(e), i, j, 5, surrogate, reduction,
            )
            for i, j in (pairs if pairs.dim() == 2 else pairs[e]).tolist()
        ]
        for e in range(3)
    ]  # fmt: skip
    torch.testing.assert_close(found, torch.tensor(expected).double())
    assert any(0 < value < 1 for row in expected for value in row)


@pytest.mark.parametrize("surrogate", ["indicator", "margin"])
@pytest.mark.parametrize("noise", [UniformNoise(), UniformNoise("L2"), GaussianNoise()])
@pytest.mark.parametrize("sampling", ["grid", "stratified"])
def test_top_k_thickness_is_the_mean_over_its_pairs(surrogate, noise, sampling):
    attribute, inputs, k = Saliency(softplus_net(6)).attribute, normal(3, 6), 2
    top = attribute(inputs.clone().requires_grad_(), 0).topk(k, dim=1).indices
    rest = [[j for j in range(6) if j not in row] for row in top.tolist()]
    pairs = [
        [(i, j) for i in row for j in other] for row, other in zip(top.tolist(), rest, strict=True)
    ]
    arguments = {
        "perturb_func": noise, "perturb_radius": 1.0, "surrogate": surrogate, "sampling": sampling,
        "target": 0, "seed": 0,
    }  # fmt: skip
    of_pairs = pairwise_ranking_thickness(attribute, inputs, torch.tensor(pairs), **arguments)
    assert of_pairs.shape == (3, k * (6 - k))
    together = ranking_thickness(attribute, inputs, k, **arguments)
    torch.testing.assert_close(of_pairs.mean(dim=1), together)


def test_pairs_of_a_quadratic_model():
    n, n_steps = 6, 500
    curvature = normal(n, n)
    model = Quadratic(curvature + curvature.T, normal(n, seed=1))
    inputs, moves = normal(3, n, seed=2), normal(3, n, seed=3)
    maps = [(x @ model.curvature + model.slope) for x in (inputs, inputs + moves)]
    order = maps[0].argsort(dim=1, descending=True)
    pairs = torch.stack([order[:, :-1], order[:, 1:]], dim=2)  # neighbours in the ranking
    found = pairwise_ranking_thickness(
        Saliency(model).attribute, inputs, pairs, lambda x: x + moves, n_perturb_samples=1,
        n_steps=n_steps, abs=False,
    )  # fmt: skip
    for e, row in enumerate(pairs.tolist()):
        for p, (i, j) in enumerate(row):
            expected = fraction_above_zero(*(float(m[e, i] - m[e, j]) for m in maps))
            assert float(found[e, p]) == pytest.approx(expected, abs=0.5 / n_steps + 1e-9)


def test_a_pair_and_its_mirror_share_the_neighbourhood():
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.ones(1, 2).double()
    inputs, pairs = torch.tensor([[0.3, 0.0]]).double(), torch.tensor([[0, 1], [1, 0], [1, 1]])
    found = pairwise_ranking_thickness(
        InputXGradient(model).attribute, inputs, pairs, perturb_radius=1.0, target=0, seed=0
    )
    there, back, same = found[0].tolist()
    assert 0.5 < there < 1 and there + back == pytest.approx(1) and same == 1.0


def test_pairs_of_groups():
    attribute, inputs = Saliency(softplus_net(6)).attribute, normal(3, 6)
    mask = torch.tensor([[7, 7, 9, 9, 4, 4]])  # columns 4, 7, 9
    found = pairwise_ranking_thickness(
        attribute, inputs, [[1, 2]], perturb_radius=1.0, feature_mask=mask, target=0, seed=0
    )

    def grouped(x, **kwargs):
        maps = attribute(x, **kwargs)
        return torch.stack([maps[:, 0] + maps[:, 1], maps[:, 2] + maps[:, 3]], dim=1)

    expected = pairwise_ranking_thickness(
        grouped, inputs, [[0, 1]], perturb_radius=1.0, target=0, seed=0
    )
    assert torch.equal(found, expected)
    assert ((found > 0) & (found < 1)).any()


def test_no_pairs_give_no_columns():
    found = pairwise_ranking_thickness(
        Saliency(softplus_net(6)).attribute, normal(3, 6), torch.zeros(0, 2).long(), target=0
    )
    assert found.shape == (3, 0)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (torch.tensor([0, 1]), r"pairs must have shape \(P, 2\) or \(3, P, 2\), got \(2,\)"),
        (torch.zeros(4, 3).long(), r"pairs must have shape .* got \(4, 3\)"),
        (torch.zeros(2, 4, 2).long(), r"pairs must have shape .* got \(2, 4, 2\)"),
        (torch.zeros(1, 2), r"pairs must hold integers, got torch.float32"),
        (torch.tensor([[0, 6]]), "pairs must hold indices in 0 … 5, got 0 … 6"),
        (torch.tensor([[-1, 3]]), "pairs must hold indices in 0 … 5, got -1 … 3"),
    ],
)
def test_other_pairs_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        pairwise_ranking_thickness(
            Saliency(softplus_net(6)).attribute, normal(3, 6), pairs, target=0
        )
