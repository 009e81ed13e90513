"""Masks whose rows have different numbers of groups: every example as if it were alone."""

import functools

import pytest
import torch
from captum.attr import FeatureAblation, Saliency
from torch import nn

from captum_robust.metrics import (
    attribution_mse,
    certified_precision_at_k,
    pairwise_ranking_thickness,
    pearson_correlation,
    precision_at_k,
    precision_at_k_min,
    ranking_gap,
    ranking_thickness,
    spearman_correlation,
)
from captum_robust.ranking import flatten_attributions
from captum_robust.robust import (
    AutoERAttack,
    ERAttack,
    ExplanationComparator,
    MinRadius,
    RandomSearchAttack,
)

N = 6
# 4, 3, 8, 3, 4 and 5 groups; ids have gaps, one example has features without a group.
MASK = torch.tensor(
    [
        [0, 0, 1, 1, 2, 2, 3, 3],
        [5, 5, 5, 7, 7, 9, 9, 9],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [2, 0, 1, 2, 0, 1, 2, 0],
        [3, 3, 1, 1, 1, 0, 2, 2],
        [0, 1, 2, 3, 4, -1, -1, -1],
    ]
).view(N, 1, 8)


def network():
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(8, 24), nn.Softplus(beta=3), nn.Linear(24, 3)
    return nn.Sequential(*layers).double().eval()


NET = network()
X = torch.randn(N, 1, 8, generator=torch.Generator().manual_seed(1)).double()
Y = torch.arange(N) % 3
K = 2


def alone(call):
    """The values of a call on every example alone."""
    return torch.cat([call(torch.tensor([i])) for i in range(N)])


OF_MAPS = [
    functools.partial(precision_at_k, k=K),
    functools.partial(ranking_gap, k=K),
    attribution_mse,
    pearson_correlation,
    spearman_correlation,
]


@pytest.mark.parametrize("metric", OF_MAPS, ids=str)
@pytest.mark.parametrize("absolute", [True, False])
def test_metrics_of_maps(metric, absolute):
    maps, other = (torch.randn(N, 1, 8, generator=torch.Generator().manual_seed(s)) for s in (2, 3))
    second = "reference_attributions"

    def call(rows):
        own = {second: other[rows], "feature_mask": MASK[rows], "absolute": absolute}
        return metric(maps[rows], **own)

    torch.testing.assert_close(call(torch.arange(N)), alone(call))


def thickness_of_pairs(*args, **kwargs):
    pairs = torch.tensor([[0, 1], [2, 0]])
    return pairwise_ranking_thickness(args[0], args[1], pairs, **kwargs)


OF_MODELS = {
    "thickness": functools.partial(ranking_thickness, k=K, perturb_radius=1.0),
    "margin": functools.partial(ranking_thickness, k=K, perturb_radius=1.0, surrogate="margin"),
    "pairs": functools.partial(thickness_of_pairs, perturb_radius=1.0),
    "precision": functools.partial(precision_at_k_min, k=K, perturb_radius=2.0),
    "certified": functools.partial(
        certified_precision_at_k, k=K, radius=0.3, sigma=0.6, n_samples=300
    ),
}


@pytest.mark.parametrize("name", OF_MODELS)
@pytest.mark.parametrize("chunk", [None, 7, 1])
def test_metrics_of_models(name, chunk):
    def call(rows, chunk=None):
        return OF_MODELS[name](
            Saliency(NET).attribute, X[rows], target=Y[rows], feature_mask=MASK[rows], seed=0,
            max_examples_per_batch=chunk,
        )  # fmt: skip

    values = alone(call)
    assert values.unique().numel() > 1
    torch.testing.assert_close(call(torch.arange(N), chunk), values)


@pytest.mark.parametrize("reference", [True, False])
def test_the_mask_of_the_attribution_follows_its_examples(reference):
    ablation = FeatureAblation(NET)
    mask = MASK.clamp_min(0)  # for Captum every feature has a group

    def call(rows):
        explain = functools.partial(ablation.attribute, feature_mask=mask[rows])
        maps = explain(X[rows], target=Y[rows]) if reference else None
        return ranking_thickness(
            explain, X[rows], K, target=Y[rows], feature_mask=MASK[rows], seed=0,
            perturb_radius=1.0, n_steps=4, reference_attributions=maps,
        )  # fmt: skip

    torch.testing.assert_close(call(torch.arange(N)), alone(call))


ATTACKS = {
    "er": ERAttack,
    "halving": functools.partial(ERAttack, step_rule="halving", keep="precision"),
    "random": RandomSearchAttack,
    "auto": AutoERAttack,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name):
    given = {"auto": {}, "random": {"step_num": 30}}.get(name, {"step_num": 6})

    def call(rows):
        attack = ATTACKS[name](Saliency(NET), K, feature_mask=MASK[rows])
        return attack.perturb(X[rows], 0.4, target=Y[rows], seed=0, return_info=True, **given)

    moved, info = call(torch.arange(N))
    each = [call(torch.tensor([i])) for i in range(N)]
    expected = torch.cat([one.precision for _, one in each])
    torch.testing.assert_close(info.precision, expected)
    maps = [Saliency(NET).attribute(x.clone().requires_grad_(), target=Y) for x in (moved, X)]
    torch.testing.assert_close(precision_at_k(*maps, K, feature_mask=MASK), info.precision)
    if name != "auto":
        torch.testing.assert_close(moved, torch.cat([point for point, _ in each]))
        trace = torch.cat([one.trace for _, one in each], dim=2)
        assert name != "er" or torch.allclose(info.trace, trace)


def test_smallest_radii_and_the_comparator():
    def radius(rows):
        attack = ERAttack(Saliency(NET), K, feature_mask=MASK[rows])
        return MinRadius(attack, upper=2.0, n_bisections=4).evaluate(X[rows], Y[rows], seed=0)

    torch.testing.assert_close(radius(torch.arange(N)), alone(radius))
    make = functools.partial(ERAttack, k=K, feature_mask=MASK)
    metric = functools.partial(precision_at_k, k=K, feature_mask=MASK)
    table = ExplanationComparator(
        {"saliency": Saliency(NET)}, {"er": make}, {"P": metric}
    ).evaluate(X, 0.4, Y, seed=0)
    _, info = make(Saliency(NET)).perturb(X, 0.4, target=Y, seed=0, return_info=True)
    torch.testing.assert_close(table["saliency", "er"].values["P"], info.precision)


def test_k_is_below_the_number_of_groups_of_every_example():
    maps = torch.randn(N, 1, 8)
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 3"):
        precision_at_k(maps, maps, 3, feature_mask=MASK)
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 3"):
        ranking_thickness(Saliency(NET).attribute, X, 3, target=Y, feature_mask=MASK)
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 3"):
        ERAttack(Saliency(NET), 3, feature_mask=MASK).perturb(X, 0.1, target=Y)


def test_rows_of_different_lengths_have_no_common_form():
    with pytest.raises(ValueError, match="feature_mask must have the same number of groups"):
        flatten_attributions(torch.randn(N, 1, 8), MASK)
