"""The smoothing certificate: its statistics, its combinatorics, and what it certifies."""

import itertools
import math
import random
import sys
from statistics import NormalDist

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from torch import nn

from captum_robust.metrics import certified_precision_at_k
from captum_robust.metrics.certified_precision import features_that_stay, lower_bounds
from tests.metrics.definitions import Watch, many, normal, softplus_net, stable_top_k


def identity(x):
    return x


# --- the bounds of the probabilities -------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [1, 2, 10, 100, 1000])
@pytest.mark.parametrize("level", [0.025, 0.001, 1e-6])
def test_the_bounds_are_those_of_clopper_and_pearson(n_samples, level):
    found = lower_bounds(n_samples, level)
    assert found.shape == (n_samples + 1,) and found.dtype == torch.float64
    for hits in {0, 1, n_samples // 3, n_samples - 1, n_samples}:
        interval = binomtest(hits, n_samples).proportion_ci(1 - 2 * level, method="exact")
        assert found[hits].item() == pytest.approx(interval.low, rel=1e-7, abs=1e-8)  # of theirs
        assert 1 - found[n_samples - hits].item() == pytest.approx(interval.high, rel=1e-7)


@pytest.mark.parametrize("n_samples", [50, 1000, 100_000])
@pytest.mark.parametrize("level", [0.05, 1.7e-7, 1e-12])
def test_rounding_raises_no_level(n_samples, level):
    hits = np.arange(1, n_samples + 1, max(1, n_samples // 1000))
    bounds = lower_bounds(n_samples, level).numpy()[hits]
    found = binom.sf(hits - 1, n_samples, bounds)  # of that many hits or more, at the bound
    assert (found <= level).all() and (found > 0.9999 * level).all()


@pytest.mark.parametrize("level", [0.05, 0.001])
def test_a_bound_is_wrong_no_more_often_than_its_level(level):
    n_samples = 60
    bounds = lower_bounds(n_samples, level).numpy()
    hits = np.arange(n_samples + 1)
    worst = 0.0
    for p in np.concatenate([np.linspace(0.001, 0.999, 200), bounds[1:] - 1e-12]):
        wrong = binom.pmf(hits, n_samples, p)[bounds > p].sum()
        assert wrong <= level * (1 + 1e-6)
        worst = max(worst, wrong)
    assert worst > 0.9 * level  # nor is it wider than it needs to be


# --- how many features stay ----------------------------------------------------------------------


def quantile(p):
    return NormalDist().inv_cdf(p) if 0 < p < 1 else math.copysign(math.inf, p - 0.5)


def overlap(left, right, k):
    return len(stable_top_k(left, k) & stable_top_k(right, k))


def kept(lower, upper, k, shift):
    rows = (torch.tensor([list(map(quantile, row))]).double() for row in (lower, upper))
    return features_that_stay(*rows, k, shift).item()


def by_definition(lower, upper, k, shift):
    """The largest T of the condition, with Python numbers."""
    best = 0
    for t in range(1, k + 1):
        rival = 2 * k - t + 1
        stays = quantile(sorted(lower, reverse=True)[t - 1]) - shift
        if rival > len(upper) or stays > quantile(sorted(upper, reverse=True)[rival - 1]) + shift:
            best = t
    return best


probabilities = st.one_of(st.floats(0.001, 0.999), st.sampled_from([0.0, 1.0, 0.5]))


@st.composite
def intervals(draw):
    """Bounds of some probabilities, k and r/σ."""
    n = draw(st.integers(2, 7))
    pairs = draw(st.lists(st.tuples(probabilities, probabilities), min_size=n, max_size=n))
    lower, upper = ([f(pair) for pair in pairs] for f in (min, max))
    return lower, upper, draw(st.integers(1, n - 1)), draw(st.floats(0, 1.5))


@many
@given(intervals())
def test_the_count_is_the_largest_that_meets_the_condition(case):
    assert kept(*case) == by_definition(*case)


@many
@given(intervals(), st.randoms())
def test_no_map_within_the_bounds_keeps_fewer(case, rng):
    lower, upper, k, shift = case

    def moved(s, by):
        return NormalDist().cdf(quantile(s) + by)

    count = kept(*case)
    for _ in range(20):
        here = [rng.choice([a, b, rng.uniform(a, b)]) for a, b in zip(lower, upper, strict=True)]
        there = [moved(s, rng.choice([-shift, shift, rng.uniform(-shift, shift)])) for s in here]
        top = stable_top_k(here, k)
        worst = [moved(s, -shift if i in top else shift) for i, s in enumerate(here)]
        assert overlap(here, there, k) >= count
        assert overlap(here, worst, k) >= count


@many
@given(
    st.lists(st.floats(0.001, 0.999), min_size=2, max_size=7, unique=True),
    st.floats(0, 1.5),
    st.data(),
)
def test_with_exact_probabilities_the_count_is_the_worst_case(s, shift, data):
    k = data.draw(st.integers(1, len(s) - 1))
    z, top = map(quantile, s), stable_top_k(s, k)
    worst = [v - shift if i in top else v + shift for i, v in enumerate(z)]
    margins = [abs(a - b) for a, b in itertools.combinations(worst, 2)]
    if min(margins) > 1e-6:  # at a tie the certificate claims nothing
        assert kept(s, s, k, shift) == overlap(s, worst, k)


def test_next_to_certain_votes_are_compared_without_rounding_to_one():
    # Upper bounds of 1 − 1e-18 and 1 − 1e-20, both 1 in float64; s₁ = 1 − 1e-22 beats them.
    z = [-float(torch.special.ndtri(torch.tensor(p).double())) for p in (1e-22, 1e-18, 1e-20)]
    rows = torch.tensor([z]).double()
    assert features_that_stay(rows, rows, 1, 0.0).item() == 1
    assert features_that_stay(rows, rows, 1, 0.3).item() == 0


def test_too_few_features_to_enter_certify_themselves():
    # 3 of 4 features: two of any two sets of three are shared, whatever the probabilities.
    assert kept([0.5] * 4, [0.5] * 4, 3, 10.0) == 2
    noise = certified_precision_at_k(lambda x: -x, normal(2, 4), 3, 1e3, sigma=1.0, n_samples=5)
    torch.testing.assert_close(noise, torch.full((2,), 2 / 3, dtype=torch.float64))


# --- what is certified ---------------------------------------------------------------------------


def halfspace(x):
    """The first feature ranks above the second where x₀ > 0."""
    return torch.stack([x[:, 0], torch.zeros_like(x[:, 0])], dim=1)


def test_the_certified_radius_of_a_halfspace_is_its_distance():
    # s(x + δ) = Φ((x₀ + δ₀) / σ): the order turns at the distance x₀, whatever σ.
    for sigma, distance in ((0.5, 0.3), (2.0, 1.0)):
        x = torch.tensor([[distance, 5.0], [-distance, 1.0]])
        near, beyond = (
            certified_precision_at_k(
                halfspace, x, 1, share * distance, sigma, n_samples=30_000, confidence=0.999,
                seed=0,
            )
            for share in (0.9, 1.001)
        )  # fmt: skip
        assert near.tolist() == [1.0, 1.0] and beyond.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n_samples", [10, 50, 300])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_a_false_certificate_is_exactly_as_rare_as_promised(n_samples, confidence):
    # Of two features, the first has s = Φ(x₀/σ): all numbers of hits, with their probabilities.
    hits = torch.arange(n_samples + 1)
    quantiles = torch.special.ndtri(lower_bounds(n_samples, (1 - confidence) / 4))
    lower = torch.stack([quantiles, quantiles.flip(0)], dim=1)
    upper = -lower.flip(1)
    worst = 0.0
    for share in np.linspace(0.501, 0.999, 60):
        shift = quantile(share) * (1 + 1e-9)  # r/σ, a little farther than the half space
        wrong = features_that_stay(lower, upper, 1, shift) == 1
        worst = max(worst, binom.pmf(hits.numpy(), n_samples, share)[wrong.numpy()].sum())
    # Of the four bounds, two fail at once on either side.
    assert (1 - confidence) / 12 < worst <= (1 - confidence) / 2


def test_a_false_certificate_is_as_rare_as_promised():
    # At the distance itself the first feature may leave: whoever says it stays is wrong.
    x = 0.4 + torch.arange(1000)[:, None] * torch.tensor([0.0, 1.0])  # the same, with other noise
    arguments = {"sigma": 1.0, "n_samples": 50, "confidence": 0.8, "seed": 1}
    wrong = certified_precision_at_k(halfspace, x, 1, 0.4 + 1e-6, **arguments).mean()
    assert 0 < wrong < 0.2
    # Either bound of the two features may fail, at a quarter of 0.2 each; both are wrong at once.
    assert wrong < 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_weaker_claims_are_certified_no_less():
    net, inputs = softplus_net(6), 0.3 * normal(20, 6)

    def of(radius=0.1, **arguments):
        return certified_precision_at_k(
            Saliency(net).attribute, inputs, 2, radius, 0.5,
            **{"target": 1, "n_samples": 300, "seed": 0, **arguments},
        )  # fmt: skip

    assert ((of() >= 0) & (of() <= 1)).all()
    for radii in itertools.pairwise([0.0, 0.1, 0.3, 1.0, 3.0]):
        assert (of(radii[0]) >= of(radii[1])).all()
    assert (of(confidence=0.5) >= of(confidence=0.999)).all()
    assert of(confidence=0.5).mean() > of(confidence=0.999).mean()
    assert of(0.0).mean() > of(0.3).mean()
    assert of(n_samples=2000).mean() > of(n_samples=30).mean()
    assert of(10.0).tolist() == [0.0] * 20


def test_unanimous_votes_prove_as_soon_as_there_are_enough():
    x, shift, confidence = torch.tensor([[9.0, 8.0, -8.0, -9.0]]), 0.5, 0.9
    needed = math.log(2 * 4 / (1 - confidence)) / -math.log(NormalDist().cdf(shift))
    for n_samples, expected in ((math.floor(needed), 0.0), (math.ceil(needed), 1.0)):
        found = certified_precision_at_k(
            identity, x, 2, shift, 1.0, n_samples, confidence=confidence, seed=0
        )
        assert found.item() == expected


# --- the explanation function --------------------------------------------------------------------


def test_the_draws_are_gaussian_and_as_many_as_asked():
    watch = Watch(identity)
    x = torch.tensor([[1.0, 0.0, 3.0]])
    certified_precision_at_k(watch, x, 1, 0.1, sigma=0.5, n_samples=5000, seed=0)
    noise = torch.cat(watch.points)[1:] - x
    assert noise.shape == (5000, 3) and watch.n_rows == 5001
    assert noise.mean(dim=0).abs().amax() < 0.03
    torch.testing.assert_close(noise.T.cov(), 0.25 * torch.eye(3), atol=0.02, rtol=0)


def test_groups_signs_tuples_and_arguments_reach_the_ranking():
    inputs = normal(4, 6)

    def of(explain, given_inputs=inputs, **arguments):
        return certified_precision_at_k(explain, given_inputs, 1, 0.3, 0.5, seed=0, **arguments)

    assert torch.equal(of(identity, absolute=True), of(torch.abs))
    groups = torch.tensor([[0, 0, 1, 1, 2, 2]])
    summed = of(lambda x: x.view(-1, 3, 2).sum(dim=2))
    assert torch.equal(of(identity, feature_mask=groups), summed)
    weights = torch.tensor([[3.0], [-1.0], [2.0], [0.5]]).double()
    alone = [of(lambda x, w=w: w * x, x[None]) for x, w in zip(inputs, weights, strict=True)]
    assert torch.equal(of(lambda x, w: w * x, w=weights), torch.cat(alone))
    pair = of(identity, (inputs[:, :2], inputs[:, 2:]))
    assert pair.shape == (4,) and pair.isfinite().all()


@pytest.mark.parametrize("chunk", [1, 7, 100, 10_000])
def test_chunks_and_order_change_nothing(chunk):
    inputs, arguments = normal(5, 4), {"n_samples": 60, "seed": 2}
    whole = certified_precision_at_k(identity, inputs, 2, 0.2, 0.5, **arguments)
    assert len(whole.unique()) > 1
    arguments["max_examples_per_batch"] = chunk
    assert torch.equal(certified_precision_at_k(identity, inputs, 2, 0.2, 0.5, **arguments), whole)
    order = [3, 1, 4, 0, 2]
    shuffled = certified_precision_at_k(identity, inputs[order], 2, 0.2, 0.5, **arguments)
    assert torch.equal(shuffled, whole[order])


def test_seeds_repeat_and_leave_the_global_state():
    def of(seed):
        return certified_precision_at_k(
            identity, 0.3 * normal(50, 4), 2, 0.2, 0.5, n_samples=60, seed=seed
        )

    states = torch.get_rng_state(), random.getstate()
    assert torch.equal(of(1), of(1)) and not torch.equal(of(1), of(2))
    assert not torch.equal(of(None), of(None))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


@pytest.mark.parametrize("broken", [math.nan, math.inf, 0.0])
def test_maps_without_a_ranking_give_nan_and_only_they(broken):
    inputs = normal(3, 4)
    inputs[1, 3] = 100.0

    def explain(x, noisy):
        spoilt = (x[:, 3] > 50) & (~noisy | ~(x == inputs[1]).all(dim=1))
        return torch.where(spoilt[:, None], broken, x)

    for noisy in (torch.tensor(False), torch.tensor(True)):
        found = certified_precision_at_k(explain, inputs, 2, 0.1, 0.5, 50, noisy=noisy)
        assert found.isnan().tolist() == [False, True, False]


def test_narrow_inputs():
    for dtype in (torch.float32, torch.bfloat16):
        inputs = normal(3, 4).to(dtype).requires_grad_()
        found = certified_precision_at_k(nn.Identity(), inputs, 2, 0.1, 0.5, 50, seed=0)
        assert found.dtype == torch.float32 and not found.requires_grad


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"k": 4}, "k must be an int with 1 <= k < 4"),
        ({"radius": -0.1}, "radius must be finite and not negative, got -0.1"),
        ({"sigma": 0.0}, "sigma must be positive, got 0"),
        ({"sigma": -1.0}, "sigma must be finite and not negative, got -1"),
        ({"sigma": math.inf}, "sigma must be finite"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1, got 0"),
        ({"confidence": 1.0}, "confidence must lie between 0 and 1, got 1.0"),
        ({"confidence": 0.0}, "confidence must lie between 0 and 1, got 0.0"),
        ({"confidence": 95}, "confidence must lie between 0 and 1, got 95"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    usual = {"inputs": normal(2, 4), "k": 2, "radius": 0.1, "sigma": 0.5}
    with pytest.raises(ValueError, match=message):
        certified_precision_at_k(identity, **{**usual, **arguments})


def test_without_scipy_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ImportError, match=r"captum-robust\[benchmark\]"):
        certified_precision_at_k(identity, normal(2, 4), 2, 0.1, 0.5)
