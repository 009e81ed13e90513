"""The shortest convex combination of gradients, against two solvers and its own conditions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from captum_robust.robust._search.min_norm import min_norm_weights
from tests.robust.targets import normal

many = settings(max_examples=80, deadline=None, derandomize=True)


def weights_of(gradients):
    return min_norm_weights(gradients @ gradients.mT)


def combined(weights, gradients):
    return (weights[:, None] @ gradients)[:, 0]


def contributions(weights, gradients):
    """Length of the largest summand: what a sum is rounded to."""
    return (weights * gradients.norm(dim=2)).amax(dim=1)


def shortest_by_nnls(gradients):
    """The distance of the hull from zero: nonnegative least squares whose sum is pressed to one.

    Minimises ‖G'v‖² + (Σv − 1)²; its solution is a multiple of the weights.
    """
    gradients = gradients.numpy()
    system = np.vstack([gradients.T, np.ones((1, len(gradients)))])
    v, _ = nnls(system, np.eye(len(system))[-1])
    return np.linalg.norm((v / v.sum()) @ gradients)


def shortest_by_slsqp(gradients):
    gradients = gradients.numpy()
    gram, m = gradients @ gradients.T, len(gradients)
    found = minimize(
        lambda w: w @ gram @ w / 2,
        np.full(m, 1 / m),
        jac=lambda w: gram @ w,
        bounds=[(0, 1)] * m,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": lambda w: np.ones(m)},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return np.linalg.norm(found.x @ gradients)


# (m, n, an offset that makes a common descent likely)
SIZES = [(1, 4, 0), (2, 5, 0), (3, 5, 0), (5, 3, 1), (5, 3, 0), (8, 20, 0), (10, 4, 1), (12, 60, 0)]


@pytest.mark.parametrize("m, n, offset", SIZES)
def test_two_solvers_find_no_shorter_combination(m, n, offset):
    gradients = normal(12, m, n) + offset
    length = combined(weights_of(gradients), gradients).norm(dim=1)
    for row, found in zip(gradients, length.tolist(), strict=True):
        assert abs(found - shortest_by_nnls(row)) < 1e-9
        assert abs(found - shortest_by_slsqp(row)) < 1e-5  # as good as SLSQP gets


def gradients_of(m, n, seed, kind):
    """Four examples of m gradients: of any length, or short of dimensions, or without descent."""
    g = normal(4, m, n, seed=seed)
    lengths = 10 ** (20 * torch.tanh(normal(4, m, 1, seed=seed + 1)))  # 1e-20 … 1e20
    if kind == "scaled":
        return lengths * g
    if kind == "scaled, common descent":
        return lengths * (g + 4 * normal(4, 1, n, seed=seed + 2))
    if kind == "rank one":
        return normal(4, m, 1, seed=seed) * normal(4, 1, n, seed=seed + 1)
    if kind == "rank deficient":
        return normal(4, m, 2, seed=seed) @ normal(4, 2, n, seed=seed + 1) + 0.5
    if kind == "duplicates":
        return torch.cat([g, g], dim=1)
    if kind == "nearly duplicates":
        return torch.cat([g, g + 1e-9 * normal(4, m, n, seed=seed + 1)], dim=1)
    if kind == "stationary":
        return torch.cat([g, -g.mean(dim=1, keepdim=True)], dim=1)
    return g


KINDS = [
    "plain", "scaled", "scaled, common descent", "rank one", "rank deficient", "duplicates",
    "nearly duplicates", "stationary",
]  # fmt: skip
cases = st.tuples(
    st.integers(1, 7), st.integers(1, 12), st.integers(0, 999), st.sampled_from(KINDS)
)


@many
@given(cases)
def test_the_conditions_of_optimality(case):
    gradients = gradients_of(*case)
    weights = weights_of(gradients)
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(4).double(), rtol=0, atol=1e-12)
    d = combined(weights, gradients)
    # Every objective falls at least as fast as ‖d‖² along −d; those with a weight, exactly so.
    unit = gradients / gradients.norm(dim=2, keepdim=True)
    per_length = (d * d).sum(dim=1, keepdim=True) / gradients.norm(dim=2)
    slack = (unit @ d[:, :, None])[:, :, 0] - per_length
    rounding = 1e-10 * contributions(weights, gradients)[:, None]
    assert (slack >= -rounding).all()
    share = weights * gradients.norm(dim=2)
    share = share / share.amax(dim=1, keepdim=True)
    assert (share * slack <= rounding).all()


@many
@given(cases, st.floats(-18, 18))
def test_neither_order_nor_unit_of_the_gradients_matter(case, exponent):
    gradients = gradients_of(*case)
    order = torch.randperm(gradients.shape[1], generator=torch.Generator().manual_seed(case[2]))
    weights = weights_of(gradients)
    expected = combined(weights, gradients)
    rounding = 1e-7 * contributions(weights, gradients)[:, None]
    turned = gradients[:, order]
    assert ((combined(weights_of(turned), turned) - expected).abs() <= rounding).all()
    scaled = min_norm_weights(10.0**exponent * (gradients @ gradients.mT))
    assert ((combined(scaled, gradients) - expected).abs() <= rounding).all()


@pytest.mark.parametrize("m", [2, 4])
def test_orthogonal_gradients_are_weighted_by_their_inverse_squares(m):
    lengths = torch.tensor([[1e-20, 1.0, 1e20, 3.0], [2.0, 3.0, 4.0, 5.0]]).double()[:, :m]
    weights = weights_of(torch.diag_embed(lengths))
    expected = lengths**-2 / (lengths**-2).sum(dim=1, keepdim=True)
    assert torch.allclose(weights, expected, rtol=1e-12, atol=1e-15)
    if m == 2:  # the closed form is exact for the smallest weights as well
        assert torch.allclose(weights, expected, rtol=1e-12, atol=0)


def test_two_gradients_by_hand():
    gradients = torch.tensor(
        [
            [[1.0, 0.0], [0.0, 1.0]],  # halfway
            [[1.0, 0.0], [3.0, 5.0]],  # the shorter one is the nearest already
            [[3.0, 5.0], [1.0, 0.0]],
            [[2.0, 0.0], [-1.0, 0.0]],  # opposite
            [[1.0, 1.0], [1.0, 1.0]],  # the same
            [[0.0, 0.0], [1.0, 2.0]],  # one is zero
            [[0.0, 0.0], [0.0, 0.0]],
        ]
    ).double()
    third = 1 / 3
    expected = [[0.5, 0.5], [1, 0], [0, 1], [third, 2 * third], [0.5, 0.5], [1, 0], [0.5, 0.5]]
    assert torch.allclose(weights_of(gradients), torch.tensor(expected).double(), atol=1e-15)


def test_two_gradients_have_one_answer_by_either_way():
    gradients = normal(40, 2, 3)
    by_form = combined(weights_of(gradients), gradients)
    tripled = torch.cat([gradients, gradients[:, :1]], dim=1)  # three take the active set
    assert torch.allclose(combined(weights_of(tripled), tripled), by_form, atol=1e-11)


def test_gradients_of_no_length_are_the_answer():
    gradients = normal(3, 5, 4)
    gradients[0, 2] = 0
    gradients[1, [1, 3]] = 0
    gradients[2] = 0
    weights = weights_of(gradients)
    assert torch.equal(combined(weights, gradients), torch.zeros(3, 4).double())
    assert torch.allclose(weights.sum(dim=1), torch.ones(3).double())


@pytest.mark.parametrize("m", [2, 3])
def test_an_example_that_is_not_finite_harms_no_other(m):
    gradients = normal(4, m, 5)
    good = weights_of(gradients)
    gradients[1, 0, 0], gradients[2, 1, 1] = float("nan"), float("inf")
    weights = weights_of(gradients)
    assert weights.isnan().all(dim=1).tolist() == [False, True, True, False]
    assert torch.equal(weights[[0, 3]], good[[0, 3]])
    assert weights_of(gradients[:0]).shape == (0, m)


def test_examples_do_not_know_of_each_other():
    gradients = torch.cat(
        [gradients_of(5, 6, 0, kind) for kind in KINDS[:5] if kind != "duplicates"]
    )
    alone = torch.cat([weights_of(g[None]) for g in gradients])
    assert torch.allclose(weights_of(gradients), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", [4, 16, 40])
def test_the_active_set_is_found_in_about_as_many_exchanges_as_it_has_members(m, monkeypatch):
    solve, calls = torch.linalg.solve_ex, []

    def counted(*args):
        calls.append(args)
        return solve(*args)

    monkeypatch.setattr(torch.linalg, "solve_ex", counted)
    weights = weights_of(normal(30, m, 2 * m) + 0.1)
    assert 2 < len(calls) <= 2 * int((weights > 0).sum(dim=1).max()) + 4


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_single_precision_products(dtype, tolerance):
    gradients = normal(20, 6, 15)
    exact = combined(weights_of(gradients), gradients)
    weights = min_norm_weights((gradients @ gradients.mT).to(dtype))
    assert weights.dtype == dtype
    assert torch.allclose(combined(weights.double(), gradients), exact, rtol=0, atol=tolerance)
