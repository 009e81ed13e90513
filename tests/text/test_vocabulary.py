"""The nearest rows of the embedding table, against all distances."""

from __future__ import annotations

import pytest
import torch

from captum_robust.text import nearest_tokens, neighbour_embeddings

WEIGHT = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
POINTS = torch.randn(3, 40, 6, generator=torch.Generator().manual_seed(1))


def distances(points, weight=WEIGHT):
    return (points[..., None, :].double() - weight.double()).norm(dim=-1)


def test_the_nearest_tokens_are_those_of_all_distances():
    assert torch.equal(nearest_tokens(POINTS, WEIGHT), distances(POINTS).argmin(dim=-1))


def test_embeddings_of_tokens_are_mapped_back():
    ids = torch.randint(200, (3, 40), generator=torch.Generator().manual_seed(2))
    assert torch.equal(nearest_tokens(WEIGHT[ids], WEIGHT), ids)
    # Far from the origin, differences of squares lose their digits.
    assert torch.equal(nearest_tokens(WEIGHT[ids] + 100, WEIGHT + 100), ids)


def test_excluded_tokens_are_not_found():
    closed = range(0, 200, 2)
    found = nearest_tokens(POINTS, WEIGHT, closed)
    expected = 1 + 2 * distances(POINTS)[..., 1::2].argmin(dim=-1)
    assert torch.equal(found, expected)


def test_neighbours_are_the_nearest_others():
    ids = torch.arange(12).view(2, 6)
    found = neighbour_embeddings(WEIGHT[ids], WEIGHT, 5, excluded=[0, 3])
    assert found.shape == (2, 6, 5, 6)
    all_distances = distances(WEIGHT[ids])
    all_distances[..., [0, 3]] = torch.inf
    all_distances.scatter_(-1, ids[..., None], torch.inf)
    expected = all_distances.argsort(dim=-1)[..., :5]
    assert torch.equal(found, WEIGHT[expected])


def test_neighbours_that_do_not_exist_are_nan():
    found = neighbour_embeddings(WEIGHT[:2], WEIGHT[:4], 3, excluded=[3])
    assert found[:, :2].isfinite().all() and found[:, 2].isnan().all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nearest_tokens(POINTS, WEIGHT[:, :5]), r"weight must have shape \(V, 6\)"),
        (lambda: nearest_tokens(POINTS, WEIGHT, range(200)), "excluded must leave a token"),
        (lambda: neighbour_embeddings(POINTS, WEIGHT, 0), "n must be an integer of at least 1"),
        (lambda: neighbour_embeddings(POINTS, WEIGHT, 201), "n must be at most"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
