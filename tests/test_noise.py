"""Random neighbours: where they lie, how they are distributed, and what they depend on."""

import random

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from captum.metrics import sensitivity_max
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from captum_robust._utils.checks import check_radius
from captum_robust.noise import GaussianNoise, UniformNoise

many = settings(max_examples=100, deadline=None, derandomize=True)

NOISES = [UniformNoise("Linf"), UniformNoise("L2"), GaussianNoise()]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]

shapes = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(tuple)
radii = st.floats(0, 100, allow_subnormal=False)
seeds = st.integers(0, 2**62)


def batch(n_examples=6, shape=(2, 3), dtype=torch.float64):
    """Examples that all differ."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn((n_examples, *shape), dtype=torch.float64, generator=generator).to(dtype)


def many_neighbours_of_zero(noise, n, radius, n_neighbours=4000):
    """One an example: (n_neighbours, n). The examples differ by less than rounding can show."""
    examples = torch.arange(n_neighbours, dtype=torch.float64)[:, None].expand(-1, n) * 1e-200
    return noise.perturb(examples, radius, seed=0).numpy()


def lengths(moves, norm):
    order = float("inf") if norm == "Linf" else 2
    return torch.linalg.vector_norm(moves.flatten(1), ord=order, dim=1)


def global_states():
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.get_rng_state().tolist(), str(numpy_state), random.getstate()


# --- where they lie ----------------------------------------------------------------------------


@many
@given(st.sampled_from(["Linf", "L2"]), shapes, st.integers(0, 3), radii, seeds)
def test_uniform_neighbours_of_zero_lie_in_the_ball(norm, shape, n_examples, radius, seed):
    moved = UniformNoise(norm).perturb(torch.zeros(n_examples, *shape).double(), radius, seed=seed)
    assert moved.shape == (n_examples, *shape)
    rounding = 1 if norm == "Linf" else 1 + 1e-14  # of a root of a sum of squares
    assert (lengths(moved[:, None], norm) <= radius * rounding).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_uniform_neighbours_lie_in_the_ball_up_to_the_spacing_of_the_dtype(norm, dtype):
    inputs, radius = batch(50, dtype=dtype), 0.5
    moved = UniformNoise(norm).perturb(inputs, radius, seed=0)
    assert moved.dtype == dtype
    spacing = torch.finfo(dtype).eps * (inputs.double().abs() + 2 * radius)
    moves = moved.double() - inputs.double()
    assert (lengths(moves, norm) <= radius + lengths(spacing, norm)).all()
    assert (lengths(moves, norm) > radius / 2).any()


@pytest.mark.parametrize("noise", NOISES)
def test_radius_zero_leaves_the_inputs(noise):
    inputs = batch()
    assert torch.equal(noise.perturb(inputs, 0), inputs)


@many
@given(st.sampled_from(["Linf", "L2", "Gauss"]), seeds)
def test_neighbours_keep_within_bounds(name, seed):
    bounds = {"lower_bound": -0.25, "upper_bound": torch.tensor([0.125, 0.5, 1.0])}
    noise = GaussianNoise(**bounds) if name == "Gauss" else UniformNoise(name, **bounds)
    inputs = torch.zeros(20, 3)
    free = type(noise)() if name == "Gauss" else UniformNoise(name)
    expected = free.perturb(inputs, 2.0, seed).numpy().clip(-0.25, [0.125, 0.5, 1.0])
    moved = noise.perturb(inputs, 2.0, seed).numpy()
    assert (moved == expected.astype(np.float32)).all()


@pytest.mark.parametrize("noise", [UniformNoise, GaussianNoise])
def test_each_bound_may_be_a_number_a_tensor_or_missing(noise):
    lows = [float("-inf"), -0.1, torch.tensor([-0.5, -0.25, 0.0])]
    highs = [float("inf"), 0.1, torch.tensor([0.5, 0.25, 0.0])]
    inputs = torch.zeros(20, 3)
    free = noise().perturb(inputs, 2.0, seed=0)
    for low in lows:
        for high in highs:
            moved = noise(lower_bound=low, upper_bound=high).perturb(inputs, 2.0, seed=0)
            assert torch.equal(moved, free.clamp(torch.as_tensor(low), torch.as_tensor(high)))


# --- how they are distributed ------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_l2_noise_is_uniform_in_the_volume_of_the_ball(n):
    moved = many_neighbours_of_zero(UniformNoise("L2"), n, radius=0.5)
    radius = np.linalg.norm(moved, axis=1) / 0.5
    assert stats.kstest(radius**n, "uniform").pvalue > 0.01


@pytest.mark.parametrize("n", [2, 3, 10])
def test_l2_noise_has_no_preferred_direction(n):
    moved = many_neighbours_of_zero(UniformNoise("L2"), n, radius=0.5)
    directions = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    axes = np.vstack([np.eye(n), np.ones(n) / np.sqrt(n)])
    for axis in axes:  # (1 + cosine) / 2 of a uniform direction is Beta((n-1)/2, (n-1)/2)
        cosine = (1 + directions @ axis) / 2
        assert stats.kstest(cosine, stats.beta((n - 1) / 2, (n - 1) / 2).cdf).pvalue > 0.01
    deviation = np.sqrt(1 / n / len(moved))
    assert (np.abs(directions.mean(axis=0)) < 4 * deviation).all()


def test_linf_noise_is_uniform_and_independent_in_every_feature():
    moved = many_neighbours_of_zero(UniformNoise("Linf"), 4, radius=0.5)
    for feature in moved.T:
        assert stats.kstest(feature, stats.uniform(-0.5, 1).cdf).pvalue > 0.01
    correlation = np.corrcoef(moved.T) - np.eye(4)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(moved))


def test_gaussian_noise_has_the_radius_as_its_standard_deviation():
    moved = many_neighbours_of_zero(GaussianNoise(), 4, radius=0.5)
    for feature in moved.T:
        assert stats.kstest(feature, stats.norm(0, 0.5).cdf).pvalue > 0.01
    assert abs(moved.mean()) < 4 * 0.5 / np.sqrt(moved.size)
    assert abs(moved.var() - 0.25) < 4 * 0.25 * np.sqrt(2 / moved.size)
    correlation = np.corrcoef(moved.T) - np.eye(4)
    assert np.abs(correlation).max() < 4 / np.sqrt(len(moved))


@pytest.mark.parametrize("noise", NOISES)
def test_several_draws_of_one_example_differ_and_have_its_shape(noise):
    drawn = noise.directions(5, torch.zeros(2, 3), torch.Generator().manual_seed(0))
    assert drawn.shape == (5, 2, 3) and len(drawn.flatten(1).unique(dim=0)) == 5


@pytest.mark.parametrize("noise", NOISES)
def test_noise_of_double_precision_inputs_has_double_precision(noise):
    moved = noise.perturb(torch.zeros(20, 3).double(), 0.5)
    assert (moved != moved.float().double()).any(dim=1).all()


# --- what they depend on -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("noise", NOISES)
def test_the_seed_decides(noise, dtype):
    inputs = batch(dtype=dtype)
    first = noise.perturb(inputs, 0.5, seed=3)
    assert torch.equal(first, noise.perturb(inputs, 0.5, seed=3))
    others = [noise.perturb(inputs, 0.5, seed=4), noise.perturb(inputs, 0.5)]
    assert all((first != other).flatten(1).any(dim=1).all() for other in others)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_does_not_depend_on_position_neighbours_or_chunks(noise):
    inputs = batch(7)
    together = noise.perturb(inputs, 0.5, seed=3)
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3])
    assert torch.equal(noise.perturb(inputs[order], 0.5, seed=3), together[order])
    for size in (1, 2, 5):
        chunks = [noise.perturb(chunk, 0.5, seed=3) for chunk in inputs.split(size)]
        assert torch.equal(torch.cat(chunks), together)
    strided = inputs.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(noise.perturb(strided, 0.5, seed=3), together)


@pytest.mark.parametrize("noise", NOISES)
def test_examples_get_unlike_noise(noise):
    inputs = batch(20)
    moves = noise.perturb(inputs, 0.5, seed=3) - inputs
    assert len((moves * 1e6).round().flatten(1).unique(dim=0)) == 20


@pytest.mark.parametrize("noise", NOISES)
def test_equal_examples_get_equal_noise_with_a_seed_and_unlike_noise_without(noise):
    inputs = batch(1).expand(8, -1, -1)
    assert len(noise.perturb(inputs, 0.5, seed=3).flatten(1).unique(dim=0)) == 1
    assert len(noise.perturb(inputs, 0.5).flatten(1).unique(dim=0)) == 8


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("noise", NOISES)
def test_global_generators_are_neither_used_nor_moved(noise, seed):
    before = global_states()
    first = noise.perturb(batch(), 0.5, seed=seed)
    assert global_states() == before
    torch.manual_seed(5)
    assert torch.equal(first, noise.perturb(batch(), 0.5, seed=seed)) == (seed is not None)


# --- what they take ----------------------------------------------------------------------------


@pytest.mark.parametrize("noise", NOISES)
def test_tuples_give_tuples_with_noise_of_their_own(noise):
    inputs = batch(4, (3,)), batch(4, (3,)), batch(4, (2, 2), torch.float32)
    moved = noise.perturb(inputs, 0.5, seed=3)
    assert isinstance(moved, tuple)
    assert [(m.shape, m.dtype) for m in moved] == [(t.shape, t.dtype) for t in inputs]
    assert (moved[0] != moved[1]).any(dim=1).all()
    single = noise.perturb(inputs[:1], 0.5, seed=3)
    assert isinstance(single, tuple) and len(single) == 1
    assert torch.equal(single[0], noise.perturb(inputs[0], 0.5, seed=3))


def test_the_l2_ball_is_that_of_each_tensor():
    inputs = torch.zeros(500, 1).double(), torch.zeros(500, 400).double()
    moved = UniformNoise("L2").perturb(inputs, 1.0)
    longest = [lengths(m, "L2").max().item() for m in moved]
    assert longest == pytest.approx([1, 1], rel=0.02)


@pytest.mark.parametrize("noise", NOISES)
def test_inputs_are_left_as_they_were_and_no_graph_is_kept(noise):
    inputs = batch().requires_grad_()
    before = inputs.detach().clone()
    moved = noise.perturb(inputs, 0.5)
    assert torch.equal(inputs.detach(), before) and inputs.requires_grad
    assert not moved.requires_grad and inputs.grad is None


@pytest.mark.parametrize("noise", NOISES)
def test_no_examples_no_neighbours(noise):
    for seed in (None, 3):
        assert noise.perturb(torch.zeros(0, 3), 0.5, seed=seed).shape == (0, 3)


@pytest.mark.parametrize("radius", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("noise", NOISES)
def test_a_bad_radius_is_refused(noise, radius):
    with pytest.raises(ValueError, match=f"^radius must be .*not negative, got {radius}"):
        noise.perturb(batch(), radius)


def test_a_radius_may_differ_by_example_but_none_may_be_bad():
    check_radius(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"^eps must be"):
        check_radius(torch.tensor([0.5, -0.5]), "eps")


@pytest.mark.parametrize("norm", ["l2", "L1", 2, None])
def test_an_unknown_norm_is_refused(norm):
    with pytest.raises(ValueError, match=f"^norm must be 'Linf' or 'L2', got {norm!r}"):
        UniformNoise(norm)


@pytest.mark.parametrize("noise", NOISES)
def test_integer_inputs_are_refused_instead_of_left_unmoved(noise):
    with pytest.raises(ValueError, match=r"^inputs must be floating point .*torch.int64"):
        noise.perturb((batch(2), torch.zeros(2, 3, dtype=torch.int64)), 0.5)


@pytest.mark.parametrize("noise", NOISES)
def test_captums_sensitivity_max_takes_them_and_sees_as_many_neighbours_as_it_asks_for(noise):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 2)).double()
    inputs, seen = batch(3, (4,)), []

    def explain(x, **kwargs):
        seen.append((x[0] if isinstance(x, tuple) else x).detach().requires_grad_())
        maps = Saliency(model).attribute(seen[-1], **kwargs)
        return (maps,) if isinstance(x, tuple) else maps

    found = sensitivity_max(
        explain, inputs, lambda x, r: noise.perturb(x, r), 0.5, n_perturb_samples=6, target=1
    )
    _, neighbours = seen  # the inputs themselves, then 6 neighbours of each
    assert len(neighbours.detach().unique(dim=0)) == 18
    maps = Saliency(model).attribute(neighbours, target=1).view(3, 6, 4)
    own = Saliency(model).attribute(inputs.requires_grad_(), target=1)
    expected = (maps - own[:, None]).norm(dim=2).amax(dim=1) / own.norm(dim=1)
    torch.testing.assert_close(found, expected)
    assert (found > 0).all()


@pytest.mark.parametrize("noise", NOISES)
def test_every_example_may_have_its_own_radius(noise):
    inputs, radii = batch(4), torch.tensor([0.0, 0.5, 1.0, 2.0])
    moved = noise.perturb((inputs, inputs[:, :1]), radii, seed=3)
    for i, radius in enumerate(radii.tolist()):
        rows = slice(i, i + 1)
        alone = noise.perturb((inputs[rows], inputs[rows, :1]), radius, seed=3)
        assert all(torch.equal(m[rows], a) for m, a in zip(moved, alone, strict=True))
    same = noise.perturb(inputs, torch.tensor(0.5), seed=3)
    assert torch.equal(same, noise.perturb(inputs, 0.5, seed=3))
    with pytest.raises(ValueError, match=r"radius must be .* \(4,\), got shape \(3,\)"):
        noise.perturb(inputs, radii[:3])
