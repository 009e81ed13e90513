"""Sorted gaps count the features that are lost; the objectives on them, by definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_robust.robust.swaps import NextSwapObjective, SwapCountObjective, sorted_gaps
from tests.robust.targets import normal, ranked


def gaps_by_definition(scores, start, k):
    """One example: the smallest of the top against the largest of the rest, pair by pair."""
    top = ranked(start)[:k]
    below = sorted(float(scores[i]) for i in top)
    above = sorted((float(scores[j]) for j in range(len(scores)) if j not in top), reverse=True)
    unit = sum(float(start[i]) for i in top) / k - sum(
        float(start[j]) for j in range(len(start)) if j not in top
    ) / (len(start) - k)
    return [(a - b) / unit for a, b in zip(below, above, strict=False)]


def distinct_rows(n_features, n_rows):
    return st.lists(st.permutations(range(n_features)), min_size=n_rows, max_size=n_rows).map(
        lambda rows: torch.tensor(rows, dtype=torch.float64)
    )


@settings(deadline=None, max_examples=50)
@given(distinct_rows(7, 3), distinct_rows(7, 3), st.integers(1, 6))
def test_gaps_below_zero_count_the_features_lost(scores, reference, k):
    lost = [
        len(set(ranked(start)[:k]) - set(ranked(row)[:k]))
        for row, start in zip(scores, reference, strict=True)
    ]
    gaps = sorted_gaps(reference, k)(scores)
    assert gaps.shape == (3, min(k, 7 - k))
    assert (gaps < 0).sum(dim=1).tolist() == lost
    expected = [gaps_by_definition(s, r, k) for s, r in zip(scores, reference, strict=True)]
    assert torch.allclose(gaps, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("ahead", [1, 2, 9])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_next_swap_by_definition(k, ahead):
    scores, reference = normal(40, 6), normal(40, 6, seed=1)
    expected = []
    for row, start in zip(scores, reference, strict=True):
        gaps = gaps_by_definition(row, start, k)
        swapped = sum(g < 0 for g in gaps)
        held = [max(g, -0.05) for g in gaps[: swapped + ahead]]
        expected.append(-2 * swapped + sum(held) / ahead)
    found = NextSwapObjective(k, ahead)(scores, reference)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_the_next_swap_pushes_the_next_pair_alone():
    reference = torch.tensor([[5.0, 4.0, 1.0, 0.0]])
    scores = torch.tensor([[5.0, 0.5, 1.0, 0.0]], requires_grad=True)  # one pair is swapped
    NextSwapObjective(k=2)(scores, reference).sum().backward()
    unit = 4.5 - 0.5
    assert torch.allclose(scores.grad, torch.tensor([[1.0, 0.0, 0.0, -1.0]]) / unit)


@pytest.mark.parametrize("temperature", [0.03, 0.3])
def test_swap_count_by_definition(temperature):
    scores, reference = normal(30, 7), normal(30, 7, seed=1)
    expected = [
        sum(1 / (1 + math.exp(-g / temperature)) for g in gaps_by_definition(row, start, 3))
        for row, start in zip(scores, reference, strict=True)
    ]
    found = SwapCountObjective(3, temperature)(scores, reference)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_swap_count_tends_to_the_features_kept():
    scores, reference = normal(50, 8), normal(50, 8, seed=1)
    kept = [
        len(set(ranked(row)[:4]) & set(ranked(start)[:4]))
        for row, start in zip(scores, reference, strict=True)
    ]
    found = SwapCountObjective(4, temperature=1e-6)(scores, reference)
    assert torch.allclose(found, torch.tensor(kept, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("objective", [NextSwapObjective(3, 2), SwapCountObjective(3)])
def test_objectives_have_the_gradient_of_differences_and_no_unit(objective):
    scores, reference = normal(5, 8).requires_grad_(), normal(5, 8, seed=1)
    assert torch.autograd.gradcheck(lambda s: objective(s, reference), scores)
    larger = objective(1e3 * scores, 1e3 * reference)
    assert torch.allclose(objective(scores, reference), larger, atol=1e-9)


@pytest.mark.parametrize("objective", [NextSwapObjective(3), SwapCountObjective(3)])
def test_no_rows(objective):
    assert objective(normal(0, 8), normal(0, 8)).shape == (0,)


def test_k_beyond_the_features():
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 6"):
        NextSwapObjective(6)(normal(2, 6), normal(2, 6))
