"""The points at which the thickness is measured, and the integral that they estimate."""

import math

import numpy as np
import pytest
import torch
from captum.attr import Saliency

from captum_robust._utils.random import example_generators
from captum_robust.metrics import ranking_thickness
from captum_robust.noise import GaussianNoise, Noise, UniformNoise
from tests.metrics.definitions import (
    Recorder,
    Watch,
    mean,
    normal,
    softplus_net,
    stable_top_k,
)

NOISES = [UniformNoise("Linf"), UniformNoise("L2"), GaussianNoise()]
every_noise = pytest.mark.parametrize("noise", NOISES, ids=["Linf", "L2", "Gauss"])


class Steady(Noise):
    """Noise that is always one: the point of a draw shows its time."""

    def directions(self, n_draws, example, generator):
        return torch.ones(n_draws, *example.shape, dtype=example.dtype)


# --- against a closed form ---------------------------------------------------------------------


def expected_thickness(gap, radius):
    """For the map (a, b) of the point (a, b) itself, a − b = gap, and uniform noise.

    On the way to a neighbour whose gap has shrunk by z, the order holds for t <= gap / z, where
    z has the triangular density (2r − |z|) / 4r² on [−2r, 2r].
    """
    z, width = np.linspace(gap, 2 * radius, 200_001, retstep=True)
    lost = (1 - gap / z) * (2 * radius - z) / (4 * radius**2)
    return 1 - (lost.sum() - (lost[0] + lost[-1]) / 2) * width


@pytest.mark.parametrize("sampling", ["grid", "stratified"])
@pytest.mark.parametrize(("n_samples", "n_steps"), [(1, 1), (1, 3), (3, 1), (2, 4), (1, 8)])
def test_both_samplings_are_unbiased(sampling, n_samples, n_steps):
    # Examples that differ by less than rounding can show draw their own noise: one call is 4000.
    gap, radius, n_repeats = 0.5, 1.0, 4000
    inputs = torch.zeros(n_repeats, 2).double()
    inputs[:, 0] = gap + 1e-13 * torch.arange(n_repeats, dtype=torch.float64)
    found = ranking_thickness(
        lambda x: x, inputs, 1, UniformNoise(), radius, n_samples, n_steps, sampling=sampling,
        seed=0,
    )  # fmt: skip
    standard_error = float(found.std()) / math.sqrt(n_repeats)
    expected = expected_thickness(gap, radius)
    assert 0.001 < standard_error < 0.01 and 0.8 < expected < 0.95
    if sampling == "grid" and n_steps < 8:  # a few midpoints are not the integral
        expected = grid_thickness(gap, radius, n_steps)
    assert float(found.mean()) == pytest.approx(expected, abs=3 * standard_error)


def grid_thickness(gap, radius, n_steps):
    """Chance that t z <= gap for the triangular z, at the midpoints t."""
    beyond = [gap / ((m - 0.5) / n_steps) for m in range(1, n_steps + 1)]
    return mean(1 - max(0.0, 2 * radius - z) ** 2 / (8 * radius**2) for z in beyond)


# --- against plain Monte Carlo -------------------------------------------------------------------


def neighbours_by_numpy(name, n_draws, n_features, radius):
    random = np.random.default_rng(7)
    if name == "Linf":
        return random.uniform(-radius, radius, (n_draws, n_features))
    moves = random.standard_normal((n_draws, n_features))
    if name == "Gauss":
        return radius * moves
    lengths = radius * random.uniform(size=(n_draws, 1)) ** (1 / n_features)
    return moves / np.linalg.norm(moves, axis=1, keepdims=True) * lengths


@pytest.mark.parametrize("sampling", ["grid", "stratified"])
@pytest.mark.parametrize(
    ("name", "noise", "radius"),
    [("Linf", NOISES[0], 0.6), ("L2", NOISES[1], 2.0), ("Gauss", NOISES[2], 0.5)],
)
def test_noise_estimates_the_integral_of_the_definition(name, noise, radius, sampling):
    n_points, n_repeats, k = 20_000, 40, 3
    saliency, example = Saliency(softplus_net(8)), normal(1, 8)
    top = stable_top_k(saliency.attribute(example.clone().requires_grad_(), 0)[0].tolist(), k)
    moves = torch.from_numpy(neighbours_by_numpy(name, n_points, 8, radius))
    times = torch.from_numpy(np.random.default_rng(8).uniform(size=(n_points, 1)))
    maps = saliency.attribute((example + times * moves).requires_grad_(), 0).detach()
    upper, lower = maps[:, sorted(top)], maps[:, sorted(set(range(8)) - top)]
    held = (upper[:, :, None] >= lower[:, None, :]).double().mean(dim=(1, 2))
    found = torch.stack([
        ranking_thickness(
            saliency.attribute, example, k, noise, radius, 4, 8, sampling=sampling, seed=s, target=0
        )
        for s in range(n_repeats)
    ])  # fmt: skip
    errors = float(held.std()) / math.sqrt(n_points), float(found.std()) / math.sqrt(n_repeats)
    assert math.hypot(*errors) < 0.02
    assert 0.6 < float(held.mean()) < 0.97
    assert abs(float(found.mean() - held.mean())) < 4 * math.hypot(*errors)


# --- the points --------------------------------------------------------------------------------


@every_noise
def test_the_neighbours_are_those_of_the_noise(noise):
    inputs, watch = normal(2, 4), Watch(lambda x: x**2)
    ranking_thickness(watch, inputs, 2, noise, 0.3, 3, 2, sampling="grid", seed=5)
    start, *rest = watch.points
    assert torch.equal(start, inputs)
    points = torch.cat(rest).view(2, 3, 2, 4)  # examples, draws, times
    for example, generator, segments in zip(
        inputs, example_generators((inputs,), 5), points, strict=True
    ):
        ends = example + 0.3 * noise.directions(3, example, generator)
        for m, t in enumerate((0.25, 0.75)):
            torch.testing.assert_close(segments[:, m], (1 - t) * example + t * ends)


@pytest.mark.parametrize("n_steps", [1, 2, 5, 32])
def test_the_grid_holds_the_midpoints(n_steps):
    watch = Watch(lambda x: x + torch.arange(2))
    ranking_thickness(watch, torch.zeros(1, 2), 1, Steady(), 1.0, 3, n_steps, sampling="grid")
    times = torch.cat(watch.points[1:]).view(3, n_steps, 2)
    expected = torch.tensor([(m - 0.5) / n_steps for m in range(1, n_steps + 1)])
    torch.testing.assert_close(times, expected[None, :, None].expand(3, -1, 2))


@pytest.mark.parametrize("perturb_func", [Steady(), lambda x, radius: x + radius])
@pytest.mark.parametrize("n_draws", [1, 2, 3, 7, 8])
def test_the_strata_hold_as_many_times_as_they_are_long(perturb_func, n_draws):
    watch = Watch(lambda x: x + torch.arange(2))
    ranking_thickness(
        watch, torch.zeros(1, 2), 1, perturb_func, 1.0, n_draws, 1, sampling="stratified"
    )
    # Noise comes in pairs x + d, x − d that share a time, and a stratum of twice the length.
    shared = 2 if isinstance(perturb_func, Noise) else 1
    times = torch.cat(watch.points[1:])[:, 0].abs().tolist()
    assert len(times) == n_draws and len(set(times)) == math.ceil(n_draws / shared)
    for draw, t in enumerate(times):
        first = draw // shared * shared
        assert first / n_draws <= t <= min(first + shared, n_draws) / n_draws


@pytest.mark.parametrize("sampling", ["grid", "stratified"])
def test_all_points_keep_to_the_bounds_of_the_noise(sampling):
    inputs, watch = normal(3, 5).clamp(0.0, 0.3).float(), Watch(lambda x: x + torch.arange(5))
    noise = UniformNoise(lower_bound=0.0, upper_bound=0.3)
    ranking_thickness(watch, inputs, 2, noise, 7.0, sampling=sampling)
    points = torch.cat(watch.points)
    assert 0 <= float(points.min()) < 0.01 and 0.29 < float(points.max()) <= np.float32(0.3)


@every_noise
def test_stratified_neighbours_come_in_antithetic_pairs(noise):
    inputs, watch = normal(2, 5), Watch(lambda x: x**2)
    ranking_thickness(watch, inputs, 2, noise, 0.3, 4, 3, sampling="stratified", seed=0)
    moves = torch.cat(watch.points[1:]).view(2, 6, 2, 5) - inputs[:, None, None]
    torch.testing.assert_close(moves[:, :, 0], -moves[:, :, 1])
    # No two pairs and no two examples move alike.
    flat = moves[:, :, 0].reshape(12, 5)
    assert (torch.pdist(flat / flat.norm(dim=1, keepdim=True)) > 1e-3).all()


def test_stratified_sampling_spreads_less_than_a_grid_of_as_many_gradients():
    attribute, example = Saliency(softplus_net(8)).attribute, normal(1, 8)
    spread = {}
    for sampling in ("grid", "stratified"):
        found = [
            ranking_thickness(
                attribute, example, 3, perturb_radius=0.6, n_perturb_samples=4, n_steps=8,
                sampling=sampling, seed=seed, target=0,
            )
            for seed in range(30)
        ]  # fmt: skip
        spread[sampling] = float(torch.stack(found).std())
    assert spread["stratified"] < spread["grid"] / 1.5


@pytest.mark.parametrize(
    ("perturb_func", "reduction", "implied"),
    [
        (UniformNoise(), "mean", "stratified"),
        (UniformNoise(), "min", "grid"),
        (Recorder(0.5), "mean", "grid"),
        (Recorder(0.5), "min", "grid"),
    ],
)
def test_the_sampling_that_is_implied(perturb_func, reduction, implied):
    attribute, inputs = Saliency(softplus_net(6)).attribute, normal(3, 6)

    def found(sampling):
        return ranking_thickness(
            attribute, inputs, 2, perturb_func, 0.5, 2, 4, reduction=reduction, sampling=sampling,
            seed=0, target=0,
        ).tolist()  # fmt: skip

    assert found(None) == found(implied)
