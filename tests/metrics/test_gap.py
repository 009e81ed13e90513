"""The gap between the top-k features and the others, against all pairs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_robust.metrics import ranking_gap
from tests.metrics.definitions import gaps, many, mean, normal, stable_top_k

scores = st.integers(-4, 4).map(float)


@st.composite
def maps_and_k(draw):
    n_examples, n_features = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    rows = st.lists(scores, min_size=n_features, max_size=n_features)
    rows = rows.filter(lambda row: len(set(row)) > 1)
    maps = [draw(st.lists(rows, min_size=n_examples, max_size=n_examples)) for _ in range(2)]
    return *maps, draw(st.integers(1, n_features - 1))


@many
@given(maps_and_k())
def test_the_gap_is_that_of_all_pairs(case):
    maps, _, k = case
    for reduction, reduce in [("min", min), ("mean", mean)]:
        found = ranking_gap(torch.tensor(maps), k, reduction)
        expected = [reduce(gaps(row, stable_top_k(row, k))) for row in maps]
        torch.testing.assert_close(found, torch.tensor(expected))
        assert (found >= 0).all()


@many
@given(maps_and_k())
def test_another_map_may_define_the_top(case):
    maps, reference, k = case
    for reduction, reduce in [("min", min), ("mean", mean)]:
        found = ranking_gap(torch.tensor(maps), k, reduction, torch.tensor(reference))
        expected = [
            reduce(gaps(row, stable_top_k(other, k)))
            for row, other in zip(maps, reference, strict=True)
        ]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_the_gap_grows_with_the_map_and_ignores_an_offset():
    maps = normal(4, 9)
    for reduction in ("min", "mean"):
        gap = ranking_gap(maps, 3, reduction)
        torch.testing.assert_close(ranking_gap(2 * maps + 5, 3, reduction), 2 * gap)


def test_absolute_groups_and_tuples():
    maps = normal(3, 2, 4)
    mask = torch.tensor([[[0, 1, 1, 2]]])  # both channels of a position are one group
    size = maps.abs().sum(dim=1)
    grouped = torch.stack([size[:, 0], size[:, 1] + size[:, 2], size[:, 3]], dim=1)
    found = ranking_gap(maps, 1, absolute=True, feature_mask=mask)
    torch.testing.assert_close(found, ranking_gap(grouped, 1))
    halves = maps[:, 0], maps[:, 1]
    assert torch.equal(ranking_gap(halves, 2), ranking_gap(maps, 2))


def test_another_reduction_is_refused():
    with pytest.raises(ValueError, match=r"reduction must be one of \('min', 'mean'\), got 'max'"):
        ranking_gap(normal(2, 3), 1, "max")
