"""Certified ≤ true ≤ attacked, for every attack there is.

A new attack is one more line in ``ATTACKS``; one that is missing there fails a test.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from captum.attr import Saliency
from torch import nn
from torch.nn.functional import logsigmoid, normalize

from captum_robust import robust
from captum_robust._utils.captum import Perturbation
from captum_robust.metrics import certified_precision_at_k, certified_top_k_radius
from captum_robust.ranking import top_k_mask
from captum_robust.robust import (
    AutoERAttack,
    CenterOfMassAttack,
    ERAttack,
    ExplanationAttack,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
    TargetMapAttack,
    TopKAttack,
)
from captum_robust.robust.objectives import RankingObjective
from tests.certify.networks import ACTIVATIONS, gradients, points_of_balls, random_network
from tests.metrics.definitions import normal


def steps(number):
    return {"step_num": number, "random_start": True}


class Line(NamedTuple):
    """Makes an attack from an attribution, k and the options of a case; and how hard it tries."""

    make: Callable[..., Any]
    effort: Callable[[int], dict[str, Any]] = steps  # arguments of perturb for a number of steps


ATTACKS = {
    "AutoERAttack": Line(
        lambda a, k, smooth_relu, **options: AutoERAttack(a, k, **options),
        lambda number: {"budget": 10 * number},
    ),
    "CenterOfMassAttack": Line(lambda a, k, **options: CenterOfMassAttack(a, **options)),
    "ERAttack": Line(ERAttack),
    "ERAttack, exponential": Line(lambda a, k, **options: ERAttack(a, k, gap="exp", **options)),
    "ERAttack, one pair": Line(lambda a, k, **options: ERAttack(a, k, "mm", k_prime=1, **options)),
    "ExplanationAttack": Line(
        lambda a, k, **options: ExplanationAttack(
            a, RankingObjective(k, "anchor", "linear", None), **options
        )
    ),
    "MSEAttack": Line(lambda a, k, **options: MSEAttack(a, **options)),
    "ParetoERAttack": Line(ParetoERAttack),
    "RandomSearchAttack": Line(
        lambda a, k, smooth_relu, **options: RandomSearchAttack(a, k, **options)
    ),
    "TargetMapAttack": Line(
        lambda a, k, **options: TargetMapAttack(a, normal(1, N_FEATURES, seed=7), **options)
    ),
    "TopKAttack": Line(TopKAttack),
}

N_FEATURES, MAX_RADIUS = 6, 2.0
NAMES = [name for name in ACTIVATIONS if name != "low threshold"]
HIDDEN = {"shallow": [8], "deep": [6, 5]}
DEPTHS = list(HIDDEN)
RULES = [(1, True), (2, False), (3, True)]  # k, absolute
NORMS = ["Linf", "L2"]
INSIDE = 1 - 1e-9  # what the rounding of x + δ may add


def test_every_attack_takes_part():
    exported = {name: getattr(robust, name) for name in robust.__all__}
    attacks = {
        name
        for name, value in exported.items()
        if inspect.isclass(value) and issubclass(value, Perturbation)
    } - {"UniformNoise", "GaussianNoise", "SubstitutionAttack"}  # none of which searches a ball
    assert {name.split(",")[0] for name in ATTACKS} == attacks
    saliency = Saliency(nn.Linear(4, 2))
    for name, line in ATTACKS.items():
        attack = line.make(saliency, 2, preserve_prediction="none", smooth_relu=None)
        assert type(attack).__name__ == name.split(",")[0]


class Case:
    """The examples of one network, and who changes their top-k within a radius."""

    def __init__(self, network, inputs, norm, k, absolute, target=1, smooth_relu=None):
        self.network, self.inputs, self.target = network, inputs, target
        self.norm, self.k, self.absolute, self.smooth_relu = norm, k, absolute, smooth_relu
        self.radius = certified_top_k_radius(
            network, inputs, k, target, norm, MAX_RADIUS, absolute
        )  # fmt: skip
        self.ranked = ~self.radius.isnan()
        self.certified = self.radius.nan_to_num(0)
        self.top = self.tops(inputs)

    def tops(self, points):
        maps = gradients(self.network, points, self.target)
        return top_k_mask(maps.abs() if self.absolute else maps, self.k)

    def changed_by_points(self, radius, n_points):
        points = points_of_balls(self.inputs, radius, self.norm, n_points)
        tops = self.tops(points.flatten(0, 1)).view(*points.shape)
        return (tops != self.top[:, None]).any(dim=2).any(dim=1)

    def moved(self, name, radius, step_num):
        options = {"preserve_prediction": "none", "smooth_relu": self.smooth_relu}
        attack = ATTACKS[name].make(Saliency(self.network), self.k, **options)
        return attack.perturb(
            self.inputs, radius, target=self.target, norm=self.norm, abs=self.absolute, seed=0,
            **ATTACKS[name].effort(step_num),
        )  # fmt: skip

    def changed_by(self, name, radius, step_num):
        return (self.tops(self.moved(name, radius, step_num)) != self.top).any(dim=1)


# --- the radius ----------------------------------------------------------------------------------


def check_networks(cases, n_examples, n_points, step_num, n_cases):
    """No point, random or attacked, changes the top-k within the radius; beyond it, most do."""
    checked, changed, certified = 0, [], []
    for (name, hidden), norm, (k, absolute), seed in cases:
        network = random_network(
            [N_FEATURES, *HIDDEN[hidden], 2], ACTIVATIONS[name], seed, gain=1.5
        )  # fmt: skip
        case = Case(
            network, normal(n_examples, N_FEATURES, seed=seed), norm, k, absolute,
            smooth_relu=8.0 if "relu" in name else None,
        )  # fmt: skip
        inside, beyond = INSIDE * case.certified, 2 * case.certified
        found = case.changed_by_points(inside, n_points)
        for attack in ATTACKS:
            found |= case.changed_by(attack, inside, step_num)
        broken = case.changed_by_points(beyond, n_points)
        broken |= case.changed_by("ERAttack, one pair", beyond, step_num)
        assert not found[case.ranked].any(), (name, hidden, norm, k, absolute, seed)
        checked += int(case.ranked.sum())
        changed.append(broken[case.ranked & (case.radius < MAX_RADIUS)])
        certified.append(case.radius[case.ranked] > 1e-4)
    assert checked >= n_cases
    # The radius is neither zero nor far from what an attack needs.
    assert torch.cat(certified).double().mean() > 0.95
    assert torch.cat(changed).double().mean() > 0.7
    assert len(torch.cat(changed)) > 0.8 * checked


@pytest.mark.parametrize("name", NAMES)
def test_nothing_within_the_certified_radius_changes_the_top(name):
    i = NAMES.index(name)  # each activation once; depths, norms and rules in turn
    case = ((name, DEPTHS[i % 2]), NORMS[i // 2 % 2], RULES[i % 3], 1)
    check_networks([case], n_examples=180, n_points=80, step_num=5, n_cases=170)


@pytest.mark.slow
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("network", list(product(NAMES, DEPTHS)), ids="-".join)
def test_nothing_within_the_certified_radius_changes_the_top_of_many(network, norm):
    cases = product([network], [norm], RULES, range(2, 5))
    check_networks(cases, n_examples=150, n_points=400, step_num=20, n_cases=1300)


def softplus_units(weights):
    """f(x) = Σ w_m softplus(x_m), whose gradient is w_m σ(x_m)."""
    n = len(weights)
    model = nn.Sequential(nn.Linear(n, n), nn.Softplus(), nn.Linear(n, 1)).double()
    model[0].weight.data = torch.eye(n, dtype=torch.float64)
    model[0].bias.data.zero_()
    model[2].weight.data = weights[None]
    return model


def true_radii(weights, inputs, k):
    """The smallest cube in which |w_i| σ(x_i − r) meets |w_j| σ(x_j + r), i in the top, j not."""
    log = weights.abs().log()
    top = top_k_mask(log + logsigmoid(inputs), k)
    kept = torch.zeros(len(inputs), 1, dtype=torch.float64)
    lost = torch.full_like(kept, 4 * MAX_RADIUS)
    for _ in range(60):
        r = (kept + lost) / 2
        lowest = (log + logsigmoid(inputs - r)).masked_fill(~top, torch.inf).amin(dim=1)
        highest = (log + logsigmoid(inputs + r)).masked_fill(top, -torch.inf).amax(dim=1)
        keeps = (lowest > highest)[:, None]
        kept, lost = torch.where(keeps, r, kept), torch.where(keeps, lost, r)
    return lost[:, 0]


def check_units(seeds, n_examples, step_num):
    n_broken = defaultdict(int)
    for seed in seeds:
        k = 1 + seed % 3
        weights = 1 + 0.3 * normal(N_FEATURES, seed=100 + seed)
        weights = weights * normal(N_FEATURES, seed=200 + seed).sign()
        inputs = normal(n_examples, N_FEATURES, seed=seed)
        case = Case(softplus_units(weights), inputs, "Linf", k, True, target=0)
        true = true_radii(weights, inputs, k)
        assert (case.radius <= true).all()
        assert (case.radius > 0.8 * true.clamp(max=MAX_RADIUS)).double().mean() > 0.9
        for name in ATTACKS:
            assert not case.changed_by(name, 0.999999 * true, step_num).any()
            n_broken[name] += int(case.changed_by(name, 1.2 * true, step_num).sum())
    share = {name: broken / len(seeds) / n_examples for name, broken in n_broken.items()}
    assert max(share.values()) > 0.9, share  # the attacks are no decoration


def test_certified_true_attacked():
    check_units(range(3), n_examples=70, step_num=8)


@pytest.mark.slow
def test_certified_true_attacked_many_times():
    check_units(range(10, 40), n_examples=200, step_num=25)


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_network_is_certified_as_far_as_asked(norm):
    network = random_network([N_FEATURES, 4, 2], nn.Identity(), 1)
    case = Case(network, normal(60, N_FEATURES), norm, 2, True)
    assert (case.radius == MAX_RADIUS).all()
    assert not case.changed_by_points(case.radius, 80).any()


# --- the precision of the smoothed map -----------------------------------------------------------


class Lines:
    """A map of straight lines aᵢ t + cᵢ in t = w·x: its smoothed map is known exactly."""

    def __init__(self, seed, n_features=5, n_inputs=3):
        self.direction = normalize(normal(n_inputs, seed=seed), dim=0)
        self.slopes, self.offsets = normal(n_features, seed=1000 + seed), normal(n_features)
        crossings = (self.offsets - self.offsets[:, None]) / (self.slopes[:, None] - self.slopes)
        upper = torch.triu_indices(n_features, n_features, 1)
        self.crossings = crossings[upper[0], upper[1]].sort().values

    def __call__(self, x):
        return self.at(x @ self.direction)

    def at(self, t):
        return t[:, None] * self.slopes + self.offsets

    def smoothed(self, t, k, sigma):
        """The probability that each is among the top k at N(t, σ²): the parts between crossings."""
        ends = torch.cat(
            [self.crossings[:1] - 1, (self.crossings[1:] + self.crossings[:-1]) / 2,
             self.crossings[-1:] + 1]
        )  # fmt: skip
        tops = top_k_mask(self.at(ends), k).double()
        below = torch.special.ndtr((self.crossings - t[:, None]) / sigma)
        zero = torch.zeros_like(below[:, :1])
        return torch.cat([below, zero + 1], dim=1).diff(dim=1, prepend=zero) @ tops


def check_lines(seeds, n_examples, n_samples):
    """No shift leaves fewer of the top k of the smoothed map than certified."""
    sigma, bounds, kept = 0.5, [], []
    for seed in seeds:
        lines, k = Lines(seed), 1 + seed % 3
        inputs = normal(n_examples, 3, seed=seed)
        t = inputs @ lines.direction
        here = top_k_mask(lines.smoothed(t, k, sigma), k)
        for radius in (0.05, 0.2):
            bound = certified_precision_at_k(
                lines, inputs, k, radius, sigma, n_samples, confidence=0.9999, seed=seed
            )
            worst = torch.ones_like(bound)
            # Only the part along w matters; the worst need not be at the end.
            for shift in torch.linspace(-radius, radius, 41, dtype=torch.float64):
                there = top_k_mask(lines.smoothed(t + shift, k, sigma), k)
                worst = worst.minimum((here & there).sum(dim=1) / k)
            assert (bound <= worst).all(), (seed, radius)
            bounds.append(bound)
            kept.append(worst)
    bounds, kept = torch.cat(bounds), torch.cat(kept)
    assert (bounds > 0).double().mean() > 0.5 and (kept < 1).double().mean() > 0.05
    assert ((bounds > 0) & (bounds < 1)).any()


def test_no_shift_keeps_fewer_of_the_smoothed_map_than_certified():
    check_lines(range(6), n_examples=90, n_samples=300)


@pytest.mark.slow
def test_no_shift_keeps_fewer_of_the_smoothed_map_than_certified_many_times():
    check_lines(range(100, 120), n_examples=300, n_samples=2000)


def check_votes(n_examples, n_samples, step_num, seed):
    """No attack leaves fewer of the top k of the smoothed saliency than certified."""
    k, sigma, total = 2, 0.5, 0
    network = random_network([N_FEATURES, 8, 2], nn.Softplus(beta=5), seed, gain=1.5)
    case = Case(network, 0.5 * normal(n_examples, N_FEATURES, seed=seed), "L2", k, True)
    saliency = Saliency(network)

    def votes(points):
        noisy = points[:, None] + sigma * normal(n_samples, N_FEATURES, seed=99)  # one for all
        return case.tops(noisy.flatten(0, 1)).view(*noisy.shape).double().mean(dim=1)

    here = top_k_mask(votes(case.inputs), k)
    for radius in (0.1, 0.3):
        bound = certified_precision_at_k(
            saliency.attribute, case.inputs, k, radius, sigma, n_samples, confidence=0.999,
            seed=3, target=1,
        )  # fmt: skip
        total += int((bound > 0).sum())
        for name in ATTACKS:
            moved = case.moved(name, radius, step_num)
            assert ((moved - case.inputs).norm(dim=1) <= radius * (1 + 1e-9)).all()
            there = top_k_mask(votes(moved), k)
            assert ((there & here).sum(dim=1) / k >= bound).all(), (name, radius)
    assert total > n_examples / 2


def test_no_attack_keeps_fewer_of_the_smoothed_map_than_certified():
    check_votes(n_examples=16, n_samples=1000, step_num=6, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
def test_no_attack_keeps_fewer_of_the_smoothed_map_than_certified_many_times(seed):
    check_votes(n_examples=100, n_samples=3000, step_num=20, seed=seed)
