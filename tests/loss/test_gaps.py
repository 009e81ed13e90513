"""Weights of linear gaps beside the gaps of every pair, written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_robust.loss._gaps import gap_weights
from tests.loss.r2et_by_definition import normal, pairs_by_definition

PAIRS = ["all", "anchor", "mm"]


def weights_by_definition(reference, k, pairs, k_prime):
    weights = torch.zeros(len(reference), dtype=torch.float64)
    for above, below in pairs_by_definition(reference, k, pairs, k_prime):
        weights[above] += 1
        weights[below] -= 1
    return weights


@given(data=st.data(), n=st.integers(2, 9), pairs=st.sampled_from(PAIRS))
def test_every_pair_adds_one_above_and_takes_one_below(data, n, pairs):
    k = data.draw(st.integers(1, n - 1))
    k_prime = data.draw(st.integers(1, k))
    row = st.lists(st.integers(0, 4), min_size=n, max_size=n)  # ties are frequent
    reference = data.draw(st.lists(row, min_size=1, max_size=4))
    found = gap_weights(torch.tensor(reference, dtype=torch.float64), k, pairs, k_prime)
    expected = [weights_by_definition(scores, k, pairs, k_prime) for scores in reference]
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("n_rows", [3, 20])  # few numbers are sorted by torch, many by NumPy
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_of_wide_rows_in_every_precision(dtype, pairs, n_rows):
    reference = normal(n_rows, 300).to(dtype)
    found = gap_weights(reference, 20, pairs)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    expected = [weights_by_definition(row, 20, pairs, 20) for row in reference.tolist()]
    assert torch.equal(found.double(), torch.stack(expected))


@pytest.mark.parametrize("k_prime", [1, 2, 3])
@pytest.mark.parametrize("pairs", PAIRS)
def test_ties_in_many_rows(pairs, k_prime):
    reference = (3 * normal(600, 8)).round().clamp(-2, 2)
    found = gap_weights(reference, 3, pairs, k_prime)
    expected = [weights_by_definition(row, 3, pairs, k_prime) for row in reference.tolist()]
    assert torch.equal(found, torch.stack(expected))


def test_no_gradient_and_no_change_of_the_reference():
    reference = normal(3, 6).requires_grad_()
    before = reference.detach().clone()
    found = gap_weights(reference, 2)
    assert not found.requires_grad
    found.zero_()
    assert torch.equal(reference.detach(), before)
