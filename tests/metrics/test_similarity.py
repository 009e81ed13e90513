"""MSE, Pearson and Spearman against NumPy and SciPy, and what they must not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from captum_robust.metrics import attribution_mse, pearson_correlation, spearman_correlation
from tests.metrics.definitions import many, normal

METRICS = [attribution_mse, pearson_correlation, spearman_correlation]

# Small integers: ties, zeros and signs in almost every row.
scores = st.integers(-4, 4).map(float)


@st.composite
def pairs_of_maps(draw):
    n_examples, n_features = draw(st.integers(1, 4)), draw(st.integers(2, 9))
    rows = st.lists(scores, min_size=n_features, max_size=n_features)
    rows = rows.filter(lambda row: len(set(row)) > 1)
    maps = [draw(st.lists(rows, min_size=n_examples, max_size=n_examples)) for _ in range(2)]
    return tuple(torch.tensor(m, dtype=torch.float64) for m in maps)


@many
@given(pairs_of_maps())
def test_mse_is_that_of_numpy(maps):
    left, right = maps
    expected = np.mean((left.numpy() - right.numpy()) ** 2, axis=1)
    np.testing.assert_allclose(attribution_mse(left, right).numpy(), expected, rtol=1e-12)


@many
@given(pairs_of_maps())
def test_correlations_are_those_of_scipy(maps):
    left, right = maps
    for ours, theirs in [
        (pearson_correlation, stats.pearsonr),
        (spearman_correlation, stats.spearmanr),
    ]:
        rows = zip(left.numpy(), right.numpy(), strict=True)
        expected = [theirs(a, b).statistic for a, b in rows]
        np.testing.assert_allclose(ours(left, right).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_correlations_of_wide_float32_maps(scale, offset):
    left, right = normal(3, 500), normal(3, 500, seed=1)
    right = right + 0.5 * left
    left, right = ((m * 0.01 + offset).float() * scale for m in (left, right))
    for ours, theirs in [
        (pearson_correlation, stats.pearsonr),
        (spearman_correlation, stats.spearmanr),
    ]:
        found = ours(left, right)
        assert found.dtype == torch.float32
        wide = zip(left.double().numpy() / scale, right.double().numpy() / scale, strict=True)
        expected = [theirs(a, b).statistic for a, b in wide]
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-250, 1e250])
def test_correlations_of_maps_whose_squares_leave_the_range(scale):
    left, right = normal(3, 50), normal(3, 50, seed=1)
    for metric in (pearson_correlation, spearman_correlation):
        torch.testing.assert_close(metric(left * scale, right * scale), metric(left, right))


@many
@given(pairs_of_maps(), st.sampled_from([0.25, 3.0, 1024.0]), st.randoms())
def test_correlations_forget_scale_offset_and_the_order_of_the_features(maps, scale, random):
    left, right = maps
    order = list(range(left.shape[1]))
    random.shuffle(order)
    for metric in (pearson_correlation, spearman_correlation):
        found = metric(left, right)
        torch.testing.assert_close(metric(left * scale + 1, right), found)
        torch.testing.assert_close(metric(-left, right), -found)
        torch.testing.assert_close(metric(left[:, order], right[:, order]), found)
    torch.testing.assert_close(
        attribution_mse(left[:, order] * scale, right[:, order] * scale),
        attribution_mse(left, right) * scale**2,
    )


@many
@given(pairs_of_maps())
def test_spearman_sees_the_order_only(maps):
    left, right = maps
    torch.testing.assert_close(
        spearman_correlation(left.exp(), right**3), spearman_correlation(left, right)
    )


@many
@given(pairs_of_maps())
def test_the_two_maps_may_change_places(maps):
    left, right = maps
    for metric in METRICS:
        torch.testing.assert_close(metric(left, right), metric(right, left))
        best = 0.0 if metric is attribution_mse else 1.0
        torch.testing.assert_close(metric(left, left), torch.full((len(left),), best).double())


@pytest.mark.parametrize("metric", METRICS)
def test_absolute_values_are_compared_on_request(metric):
    left, right = normal(3, 8), normal(3, 8, seed=1)
    assert torch.equal(metric(left, right, absolute=True), metric(left.abs(), right.abs()))
    assert not torch.equal(metric(left, right, absolute=True), metric(left, right))


@many
@given(pairs_of_maps(), st.data())
def test_groups_of_features_are_summed_first(maps, data):
    left, right = maps
    n_features = left.shape[1]
    mask = data.draw(st.lists(st.integers(0, 2), min_size=n_features, max_size=n_features))
    groups = sorted(set(mask))
    summed = [
        torch.stack([m[:, [g == i for i in mask]].sum(dim=1) for g in groups], dim=1) for m in maps
    ]
    assume(all(len(set(row)) > 1 for m in summed for row in m.tolist()))
    for metric in METRICS:
        found = metric(left, right, feature_mask=torch.tensor([mask]))
        torch.testing.assert_close(found, metric(*summed))
