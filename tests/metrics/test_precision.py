"""P@k against Python sets, the paper's worked example, and the worst of n perturbations."""

import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.metrics import precision_at_k, precision_at_k_min
from captum_robust.noise import GaussianNoise, UniformNoise
from tests.metrics.definitions import (
    Recorder,
    Watch,
    many,
    normal,
    precision,
    softplus_net,
)

scores = st.integers(-4, 4).map(float)


@st.composite
def maps_and_k(draw):
    n_examples, n_features = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    rows = st.lists(scores, min_size=n_features, max_size=n_features)
    rows = rows.filter(lambda row: len(set(row)) > 1)
    maps = [draw(st.lists(rows, min_size=n_examples, max_size=n_examples)) for _ in range(2)]
    return *maps, draw(st.integers(1, n_features - 1))


# --- two maps ----------------------------------------------------------------------------------


def test_the_worked_example_of_the_paper():
    # Savings, income, education, spouse, race, age: arXiv 2212.14106, Fig. 2.
    at_x = torch.tensor([[1.2, 0.8, 0.7, 0.4, 0.1, 0.2]])
    near_in_rank = torch.tensor([[2.5, 1.2, 1.0, 0.6, 0.2, 0.4]])
    near_in_distance = torch.tensor([[1.2, 0.1, 0.7, 1.2, 0.1, 0.2]])
    assert round(float((at_x - near_in_distance).norm()), 3) == 1.063
    assert round(float((at_x - near_in_rank).norm()), 3) == 1.425
    assert precision_at_k(near_in_distance, at_x, k=3).tolist() == [pytest.approx(2 / 3)]
    assert precision_at_k(near_in_rank, at_x, k=3).tolist() == [1.0]


@many
@given(maps_and_k())
def test_precision_is_that_of_sets(case):
    left, right, k = case
    found = precision_at_k(torch.tensor(left), torch.tensor(right), k)
    expected = [precision(a, b, k) for a, b in zip(left, right, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("k", [1, 10, 1000, 4999])
def test_wide_maps_full_of_ties(k):
    left, right = (
        torch.randint(0, 4, (3, 5000), generator=torch.Generator().manual_seed(seed)).float()
        for seed in (0, 1)
    )
    expected = [precision(a, b, k) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    torch.testing.assert_close(precision_at_k(left, right, k), torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 31, 33, 700])
@pytest.mark.parametrize("n_features", [2047, 2048, 2111, 5000])
def test_wide_maps_of_which_some_have_ties(n_features, k, dtype):
    left, right = (
        normal(3, n_features, seed=seed).to(dtype).clamp_min(low)
        for seed, low in ((0, -9.0), (1, 1.5))
    )
    right[2] = normal(1, n_features, seed=2)[0].to(dtype)
    expected = [precision(a, b, k) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    found = precision_at_k(left, right, k)
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("n_features", [40, 3000])
def test_more_maps_than_one_block_holds(n_features):
    n_examples = 3 + 500_000 // (4 * n_features)
    left, right = (normal(n_examples, n_features, seed=seed).float() for seed in (0, 1))
    found = precision_at_k(left, right, 5)
    for i in (0, 1, n_examples // 2, n_examples - 2, n_examples - 1):
        expected = precision(left[i].tolist(), right[i].tolist(), 5)
        assert found[i].item() == pytest.approx(expected)


@many
@given(maps_and_k(), st.randoms())
def test_precision_sees_the_order_only(case, random):
    left, right = (torch.tensor(m, dtype=torch.float64) for m in case[:2])
    k = case[2]
    found = precision_at_k(left, right, k)
    assert torch.equal(precision_at_k(right, left, k), found)
    assert torch.equal(precision_at_k(left.exp(), 1e-300 * right, k), found)
    assert precision_at_k(left, left, k).tolist() == [1.0] * len(left)
    # Without ties, which go by place, features may be listed in any order.
    places = torch.arange(left.shape[1]) / 100
    left, right = left - places, right - places
    order = list(range(left.shape[1]))
    random.shuffle(order)
    assert torch.equal(precision_at_k(left[:, order], right[:, order], k), found)


def test_precision_of_integer_maps():
    maps, reference = torch.tensor([[4, 3, 2, 1]]), torch.tensor([[4, 1, 3, 2]])
    assert precision_at_k(maps, reference, k=2).tolist() == [0.5]


def test_absolute_groups_and_tuples():
    maps, reference = normal(4, 2, 5), normal(4, 2, 5, seed=1)
    found = precision_at_k(maps, reference, 3, absolute=True)
    assert torch.equal(found, precision_at_k(maps.abs(), reference.abs(), 3))
    assert not torch.equal(found, precision_at_k(maps, reference, 3))
    pixels = torch.arange(5)[None, None]
    summed = precision_at_k(maps.sum(dim=1), reference.sum(dim=1), 2)
    assert torch.equal(precision_at_k(maps, reference, 2, feature_mask=pixels), summed)
    first, second = (maps[:, 0], maps[:, 1]), (reference[:, 0], reference[:, 1])
    assert torch.equal(precision_at_k(first, second, 3), precision_at_k(maps, reference, 3))


# --- the worst of n perturbations --------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("absolute", [False, True])
def test_the_minimum_is_that_of_a_loop_over_the_perturbations(chunk, absolute):
    inputs, target = normal(4, 10), torch.tensor([0, 1, 2, 0])
    saliency, perturb = Saliency(softplus_net(10)), Recorder(radius=0.4)
    found = precision_at_k_min(
        saliency.attribute, inputs, 4, perturb, n_perturb_samples=7, target=target, abs=False,
        absolute=absolute, max_examples_per_batch=chunk, seed=0,
    )  # fmt: skip
    assert len(perturb.returned) == 7
    rows = []
    for example in range(4):

        def explain(point, example=example):
            maps = saliency.attribute(point.requires_grad_(), int(target[example]), abs=False)
            return (maps.abs() if absolute else maps).flatten().tolist()

        at_start = explain(inputs[example : example + 1].clone())
        rows.append(min(precision(explain(p), at_start, 4) for p in perturb.neighbours(example)))
    assert found.tolist() == pytest.approx(rows)
    assert len(set(rows)) > 1


def test_perturbed_points_are_explained_exactly_as_returned():
    # x + (x' − x) would be off by the rounding of x, which is larger than x' here.
    inputs, watch = 100 * normal(3, 6).float(), Watch(lambda x: x**2)
    precision_at_k_min(watch, inputs, 2, lambda x: x / 1000, n_perturb_samples=1)
    assert torch.equal(watch.points[-1], inputs / 1000)
    assert not torch.equal(inputs + (inputs / 1000 - inputs), inputs / 1000)


@pytest.mark.parametrize("chunk", [None, 1, 4, 100])
@pytest.mark.parametrize("perturb_func", [UniformNoise(), Recorder(0.1)])
def test_every_point_is_explained_once(chunk, perturb_func):
    watch = Watch(Saliency(softplus_net(6)).attribute)
    arguments = {"max_examples_per_batch": chunk, "n_perturb_samples": 7, "target": 0}
    precision_at_k_min(watch, normal(5, 6), 2, perturb_func, 0.1, **arguments)
    assert watch.n_rows == 5 * 7 + 5
    assert len(torch.cat(watch.points).unique(dim=0)) == watch.n_rows


@pytest.mark.parametrize("noise", [UniformNoise(), UniformNoise("L2"), GaussianNoise()])
def test_more_perturbations_are_never_kinder(noise):
    saliency, inputs = Saliency(softplus_net(6)), normal(20, 6)
    worst = [
        precision_at_k_min(
            saliency.attribute, inputs, 3, noise, 0.5, n_perturb_samples=n, target=0, seed=0
        )
        for n in (1, 1000)
    ]
    assert (worst[1] <= worst[0]).all() and (worst[1] < worst[0]).any()


@pytest.mark.parametrize("noise", [UniformNoise(), UniformNoise("L2"), GaussianNoise()])
@pytest.mark.parametrize("method", [Saliency, IntegratedGradients])
def test_a_linear_model_keeps_its_top(noise, method):
    model = nn.Linear(6, 2).double()
    model.weight.data = normal(2, 6)
    inputs = torch.ones(5, 6).double()
    radius = 100.0 if method is Saliency else 1e-3  # the latter multiplies with the input
    found = precision_at_k_min(method(model).attribute, inputs, 3, noise, radius, target=1)
    assert found.tolist() == [1.0] * 5


def test_radius_zero_gives_one():
    attribute = Saliency(softplus_net(6)).attribute
    found = precision_at_k_min(attribute, normal(5, 6), 2, perturb_radius=0, target=0)
    assert found.tolist() == [1.0] * 5
