"""Rankings, certificates and bounds on the device."""

import pytest
import torch
from captum.attr import Saliency

from captum_robust import ranking
from captum_robust.attr import smooth_relu
from captum_robust.metrics import (
    certified_precision_at_k,
    certified_top_k_radius,
    precision_at_k,
    ranking_thickness,
    thickness_bounds,
)
from captum_robust.robust import AutoERAttack
from tests.certify.networks import ACTIVATIONS, random_network
from tests.gpu.device import DEVICE, assert_same, moved
from tests.metrics.definitions import normal


def scores(n_features=7):
    """Rows that are random, of small integers with many ties, and constant."""
    rows = normal(6, n_features)
    rows[2:4] = (2 * rows[2:4]).round()
    rows[4] = 1.0
    return rows


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_ties_go_to_the_lowest_index(k, dtype):
    rows = scores().to(dtype)
    rows[5, 2] = float("nan")
    for function in (ranking.top_k_indices, ranking.top_k_mask, ranking.ranking):
        clean = rows[:5]
        assert_same(function(moved(clean), k), function(clean, k))
    assert_same(ranking.invalid_rows(moved(rows)), ranking.invalid_rows(rows))
    other = rows.flip(0)
    found = precision_at_k(moved(rows), moved(other), k)
    assert_same(found, precision_at_k(rows, other, k))


def test_all_of_k_is_one():
    """A GPU multiplies by the reciprocal of a plain number, which is rounded."""
    maps = moved(normal(4, 300).float())
    assert all(bool((precision_at_k(maps, maps, k) == 1).all()) for k in range(1, 300))
    for dtype in (torch.int64, torch.float64):
        numbers = torch.arange(1, 300, device=DEVICE, dtype=dtype)
        assert all(float(ranking.fraction(n, int(n))) == 1 for n in numbers)


def test_an_attack_that_finds_nothing_leaves_exactly_one():
    model = moved(torch.nn.Linear(60, 2))  # whose saliency is constant
    attack = AutoERAttack(Saliency(model), 49)
    _, info = attack.perturb(moved(torch.zeros(2, 60)), 0.1, target=0, budget=9, return_info=True)
    assert info.precision.tolist() == [1, 1]


def test_many_equal_features():
    """top-k kernels may return any of equal values; so may sorts that are not stable."""
    rows = normal(50, 3000, seed=1).round()
    assert rows.unique().numel() < 12
    for k in (1, 17, 1500):
        top = ranking.top_k_indices(moved(rows), k)
        expected = rows.sort(dim=1, descending=True, stable=True).indices[:, :k]
        assert torch.equal(top.cpu().sort(dim=1).values, expected.sort(dim=1).values)


@pytest.mark.parametrize("n_features", [7, 4000])
def test_gaps_and_wins(n_features):
    rows, reference, k = scores(n_features), normal(6, n_features, seed=2), 3
    top = ranking.top_k_indices(reference, k)
    assert_same(ranking.win_counts(moved(rows), moved(top)), ranking.win_counts(rows, top))
    assert_same(ranking.min_gap(moved(rows), moved(top)), ranking.min_gap(rows, top))
    for pairs in ("all", "mm", "anchor"):
        for function in (ranking.gap_sum, ranking.log_exp_gap_sum):
            expected = function(rows, reference, k, pairs)
            assert_same(function(moved(rows), moved(reference), k, pairs), expected)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("activation", ["softplus", "sigmoid", "tanh"])
def test_certified_radius(activation, norm):
    radii = []
    for device in (DEVICE, "cpu"):
        network = moved(random_network([6, 8, 5, 2], ACTIVATIONS[activation], seed=1), device)
        x = moved(normal(5, 6), device)
        radii.append(certified_top_k_radius(network, x, 2, 1, norm, max_radius=1.0))
    # A bisection over a grid of radii.
    assert_same(*radii, rtol=1e-6)
    assert (radii[1] > 0).any()


def test_certified_precision_and_bounds():
    found = []
    for device in (DEVICE, "cpu"):
        network = moved(random_network([6, 8, 3], ACTIVATIONS["softplus"], seed=2), device)
        x, target = moved(normal(5, 6), device), moved(torch.arange(5) % 3, device)

        def saliency(points, network=network, target=target):
            rows = target.repeat_interleave(len(points) // len(target))
            return torch.autograd.grad(network(points)[range(len(rows)), rows].sum(), points)[0]

        with smooth_relu(5.0):  # on the device as well
            certified = certified_precision_at_k(
                saliency, x, 2, radius=0.05, sigma=0.2, n_samples=50, seed=0,
                max_examples_per_batch=5,
            )  # fmt: skip
            thickness = ranking_thickness(
                saliency, x, 2, perturb_radius=0.3, n_perturb_samples=4, n_steps=4, seed=0,
                max_examples_per_batch=5,
            )  # fmt: skip
        found.append((certified, thickness, thickness_bounds(network, x, 2, 0.1, target, seed=0)))
    assert_same(*found)
