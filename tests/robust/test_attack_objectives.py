"""Objectives of attacks: pairs, gaps, paths, squares, groups, functions of the caller."""

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_robust.robust import ERAttack, ExplanationAttack, MSEAttack
from captum_robust.robust.objectives import MSEObjective, RankingObjective
from tests.robust.targets import (
    TwoInputs,
    exponential,
    linear,
    mlp,
    normal,
    pairs_of,
    ranked,
    squares,
    stock_scores,
)

PAIRS = ["all", "anchor", "mm"]
GAPS = {"linear": linear, "exp": exponential}


@st.composite
def two_maps(draw):
    """Scores and reference scores (2, n) with ties, and a k below n."""
    n = draw(st.integers(2, 7))
    values = st.integers(-3, 3).map(float)
    rows = st.lists(st.lists(values, min_size=n, max_size=n), min_size=2, max_size=2)
    return (
        torch.tensor(draw(rows)).double(),
        torch.tensor(draw(rows)).double(),
        draw(st.integers(1, n - 1)),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(two_maps(), st.sampled_from(PAIRS), st.sampled_from(["linear", "exp"]))
def test_ranking_objective_against_loops_over_pairs(maps, pairs, gap):
    scores, reference, k = maps
    found = RankingObjective(k, pairs, gap)(scores, reference)
    assert torch.allclose(found, GAPS[gap](k, pairs)(scores, reference), rtol=1e-9, atol=1e-9)


def test_the_exponential_gap_is_minus_the_logarithm_of_a_sum_and_cannot_overflow():
    scores = torch.tensor([[2.0, 1.0, 0.0]]).double()
    expected = -torch.tensor([-1.0, -2.0]).exp().sum().log()
    found = RankingObjective(1, gap="exp")(scores, scores)
    assert torch.allclose(found, expected.double(), rtol=1e-6)
    assert torch.isfinite(RankingObjective(1, gap="exp")(1e4 * scores, -1e4 * scores)).all()


def test_squared_change_against_loops():
    scores, reference = normal(4, 5), normal(4, 5, seed=1)
    assert torch.allclose(MSEObjective()(scores, reference), squares(scores, reference))


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_the_attack_minimises_what_its_arguments_say(pairs, gap):
    model, x = mlp(), normal(5, 6)
    objective = GAPS[gap](3, pairs)
    reference = stock_scores(Saliency(model), x, 1)
    moved, info = ERAttack(Saliency(model), k=3, pairs=pairs, gap=gap).perturb(
        x, 0.4, target=1, return_info=True
    )
    value = objective(stock_scores(Saliency(model), moved, 1), reference)
    assert torch.allclose(info.objective, value, atol=1e-12)
    assert (value < objective(reference, reference) - 1e-3).all()


def test_fewer_pairs_with_k_prime():
    model, x = mlp(), normal(5, 6)
    reference = stock_scores(Saliency(model), x, 1)
    moved, info = ERAttack(Saliency(model), k=3, pairs="mm", k_prime=1).perturb(
        x, 0.4, target=1, return_info=True
    )
    scores = stock_scores(Saliency(model), moved, 1)
    order = [ranked(row) for row in reference]
    boundary = torch.stack([row[o[2]] - row[o[3]] for row, o in zip(scores, order, strict=True)])
    assert torch.allclose(info.objective, boundary, atol=1e-12)


@pytest.mark.parametrize("gradient", ["autograd", "spsa"])
def test_path_points_average_the_segment_from_the_example_to_the_end(gradient):
    model, x = mlp(), normal(5, 6)
    reference = stock_scores(Saliency(model), x, 1)
    moved, info = ERAttack(Saliency(model), k=2, path_points=4, gradient=gradient).perturb(
        x, 0.5, step_num=6, target=1, seed=0, return_info=True
    )
    points = [x + t * (moved - x) for t in (0.25, 0.5, 0.75, 1.0)]
    values = [linear(2)(stock_scores(Saliency(model), p, 1), reference) for p in points]
    mean = sum(values) / 4
    assert torch.allclose(info.objective, mean, atol=1e-12)
    assert (mean < linear(2)(reference, reference)).all()
    assert (mean - values[-1]).abs().max() > 1e-2, "the end point alone would do"


def test_the_squared_change_is_what_the_mse_attack_enlarges():
    model, x = mlp(), normal(5, 6)
    reference = stock_scores(Saliency(model), x, 1)
    # The change grows in two opposite directions: one start may climb the lower hill.
    moved, info = MSEAttack(Saliency(model), preserve_prediction="none").perturb(
        x, 0.4, target=1, seed=0, n_restarts=5, return_info=True
    )
    value = squares(stock_scores(Saliency(model), moved, 1), reference)
    assert torch.allclose(info.objective, value, atol=1e-12)
    noise = x + 0.4 * (2 * torch.rand(50, 5, 6, generator=torch.Generator().manual_seed(0)) - 1)
    drawn = [squares(stock_scores(Saliency(model), n, 1), reference) for n in noise]
    assert (value < torch.stack(drawn).amin(dim=0)).all()


def test_any_function_of_the_scores_can_be_minimised():
    model, x = mlp(), normal(5, 6)
    seen = []

    def third_feature(scores, reference):
        seen.append((tuple(scores.shape), reference.detach().clone()))
        return scores[:, 2] / reference[:, 2]

    attack = ExplanationAttack(Saliency(model), third_feature)
    moved, info = attack.perturb(x, 0.4, target=1, return_info=True)
    reference = stock_scores(Saliency(model), x, 1)
    assert all(shape == (5, 6) and torch.equal(r, reference) for shape, r in seen)
    scores = stock_scores(Saliency(model), moved, 1)
    assert torch.allclose(info.objective, scores[:, 2] / reference[:, 2], atol=1e-12)
    assert (info.objective < 0.9).all() and info.first_change_step is None
    largest = ExplanationAttack(Saliency(model), lambda s, r: -s[:, 2]).perturb(x, 0.4, target=1)
    assert (stock_scores(Saliency(model), largest, 1)[:, 2] > reference[:, 2]).all()


def test_an_objective_must_return_a_number_an_example():
    attack = ExplanationAttack(Saliency(mlp()), lambda s, r: s.sum())
    with pytest.raises(ValueError, match=r"objective must return .* shape \(5,\), got \(\)"):
        attack.perturb(normal(5, 6), 0.4, target=1)


# --- groups and magnitudes -----------------------------------------------------------------------


def grouped(maps, groups):
    return torch.stack([maps[:, groups == g].sum(dim=1) for g in groups.unique()], dim=1)


@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("absolute", [False, True])
def test_groups_are_summed_and_magnitudes_taken_before(absolute, chunk):
    model, x = mlp(), normal(5, 6)
    groups = torch.tensor([3, 0, 3, 1, 0, 5])
    attack = ERAttack(InputXGradient(model), k=2, feature_mask=groups[None], absolute=absolute)
    moved, info = attack.perturb(x, 0.4, target=1, return_info=True, max_examples_per_batch=chunk)
    maps = [stock_scores(InputXGradient(model), p, 1) for p in (moved, x)]
    maps = [m.abs() if absolute else m for m in maps]
    value, start = (linear(2)(grouped(m, groups), grouped(maps[1], groups)) for m in maps)
    assert torch.allclose(info.objective, value, atol=1e-12)
    assert (value < start - 1e-2).all()


@pytest.mark.parametrize("chunk", [None, 4, 1])
def test_groups_of_each_example_follow_the_examples(chunk):
    model, x = mlp(), normal(6, 6)
    groups = torch.stack([torch.tensor([0, 0, 1, 1, 2, 2]).roll(i) for i in range(6)])
    attack = ERAttack(Saliency(model), k=1, feature_mask=groups)
    _, info = attack.perturb(x, 0.4, target=1, return_info=True, max_examples_per_batch=chunk)
    for i in range(6):
        alone = ERAttack(Saliency(model), k=1, feature_mask=groups[i])
        _, own = alone.perturb(x[i : i + 1], 0.4, target=1, return_info=True)
        assert torch.allclose(info.objective[i : i + 1], own.objective, atol=1e-9)


def test_as_many_examples_as_features_do_not_turn_the_groups_around():
    model, x, groups = mlp(), normal(6, 6), torch.tensor([0, 0, 1, 1, 2, 2])
    attack = ERAttack(Saliency(model), k=1, feature_mask=groups)
    whole, parts = (attack.perturb(x, 0.4, target=1, max_examples_per_batch=n) for n in (None, 2))
    assert torch.allclose(whole, parts, rtol=0, atol=1e-9)


@pytest.mark.parametrize("chunk", [None, 2])
def test_groups_across_a_tuple(chunk):
    model, pair = TwoInputs(), (normal(5, 3), normal(5, 1, 2, seed=1))
    groups = (torch.tensor([[0, 1, 2]]), torch.tensor([[[1, 2]]]))
    moved, info = ERAttack(Saliency(model), k=1, feature_mask=groups).perturb(
        pair, 0.4, target=1, return_info=True, max_examples_per_batch=chunk
    )
    joined = torch.tensor([0, 1, 2, 1, 2])
    end, start = (grouped(stock_scores(Saliency(model), p, 1), joined) for p in (moved, pair))
    assert torch.allclose(info.objective, linear(1)(end, start), atol=1e-12)


def test_pairs_of_the_oracle():
    row = torch.tensor([5.0, 1.0, 3.0, 4.0, 0.0])
    assert pairs_of(row, 2) == [(0, 2), (0, 1), (0, 4), (3, 2), (3, 1), (3, 4)]
    assert pairs_of(row, 2, "mm") == [(3, 2), (0, 1)]
    assert pairs_of(row, 2, "anchor") == [(0, 3), (3, 2), (3, 1)]
