"""Norms of the input Hessian beside exact Hessians, one example at a time."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_robust.curvature import (
    exact_norm,
    exact_spectral_norm,
    finite_difference_norm,
    hessian_vector_norm,
    joint_norm,
    sign_direction,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def smooth_model():
    model = nn.Sequential(
        nn.Linear(5, 7), nn.Softplus(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 1)
    )
    for seed, parameter in enumerate(model.double().parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    return model


MODEL = smooth_model()


def one_input(x):
    """(N, 5) -> scores (N,)."""
    return MODEL(x).flatten()


def two_inputs(a, b):
    """(N, 1, 3) and (N, 2) -> scores (N,)."""
    return MODEL(torch.cat([a.flatten(1), b], dim=1)).flatten() * b.sum(dim=1).cos()


CASES = {
    "a tensor": (one_input, (normal(6, 5),)),
    "a tuple": (two_inputs, (normal(6, 1, 3), normal(6, 2, seed=1))),
}


def leaves_of(inputs):
    return tuple(x.clone().requires_grad_() for x in inputs)


def gradient_at(score, inputs):
    leaves = tuple(x if x.requires_grad else x.detach().requires_grad_() for x in inputs)
    return torch.autograd.grad(score(*leaves).sum(), leaves, create_graph=True)


def hessians(score, inputs):
    """The joint Hessian of every example, (N, n, n), on its own and by torch."""
    shapes = [x.shape[1:] for x in inputs]
    sizes = [shape.numel() for shape in shapes]

    def flat_score(row):
        parts = row.split(sizes)
        return score(*(p.view(1, *s) for p, s in zip(parts, shapes, strict=True))).squeeze()

    rows = torch.cat([x.detach().flatten(1) for x in inputs], dim=1)
    return torch.stack([torch.autograd.functional.hessian(flat_score, row) for row in rows])


def joined_direction(score, inputs):
    """v of each example from its definition, (N, n)."""
    gradients = torch.cat([g.detach().flatten(1) for g in gradient_at(score, inputs)], dim=1)
    rows = [row.sign() / row.sign().norm() for row in gradients]
    return torch.stack(rows)


def vector_norms(score, inputs):
    """‖Hv‖ of each example."""
    return torch.einsum(
        "eij,ej->ei", hessians(score, inputs), joined_direction(score, inputs)
    ).norm(dim=1)


def estimate(score, inputs, kappa):
    leaves = leaves_of(inputs)
    return finite_difference_norm(
        partial(gradient_at, score), leaves, gradient_at(score, leaves), kappa
    )


# --- the direction -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_direction_is_the_normalised_sign_over_all_inputs(case):
    score, inputs = CASES[case]
    found = sign_direction(gradient_at(score, inputs))
    assert [v.shape for v in found] == [x.shape for x in inputs]
    flat = torch.cat([v.flatten(1) for v in found], dim=1)
    torch.testing.assert_close(flat, joined_direction(score, inputs), rtol=1e-14, atol=0)


def test_zeros_have_no_part_in_the_direction():
    first, second = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([-2.0, 0.0])
    found = sign_direction((first, second))
    half = 0.5**0.5
    torch.testing.assert_close(found[0], torch.tensor([[half, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(found[1], torch.tensor([-half, 0.0]))


def test_the_direction_carries_no_gradient():
    gradients = (normal(2, 3).requires_grad_(),)
    assert not sign_direction(gradients)[0].requires_grad


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_direction_has_length_one_and_the_type_of_the_gradients(dtype):
    gradients = (torch.ones(1, 70_000, dtype=dtype), torch.full((1, 5000), -1e-4, dtype=dtype))
    found = sign_direction(gradients)  # 75,000 is above the largest float16
    assert [v.dtype for v in found] == [dtype, dtype]
    for v, sign in zip(found, (1, -1), strict=True):
        expected = torch.full_like(v, sign * 75_000**-0.5)
        torch.testing.assert_close(v, expected, rtol=torch.finfo(dtype).eps, atol=1e-7)


# --- exact norms -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_exact_norm_is_the_frobenius_norm_of_each_hessian(case):
    score, inputs = CASES[case]
    leaves = leaves_of(inputs)
    found = exact_norm(leaves, gradient_at(score, leaves))
    expected = hessians(score, inputs).flatten(1).norm(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("split", [(400,), (150, 250)], ids=["a tensor", "a tuple"])
def test_exact_norms_of_more_features_than_one_backward_takes(split):
    matrix, scale = normal(400, 400), torch.tensor([0.5, 1.0, 2.0, -3.0]).double()
    matrix = matrix + matrix.T  # times the scale of each of 4 examples, its Hessian

    def score(*parts):
        x = torch.cat(parts, dim=1)
        return scale * torch.einsum("ni,ij,nj->n", x, matrix, x) / 2

    leaves = leaves_of(normal(4, 400).split(split, dim=1))
    found = exact_norm(leaves, gradient_at(score, leaves))
    torch.testing.assert_close(found, scale.abs() * matrix.norm(), rtol=1e-12, atol=0)
    found = exact_spectral_norm(leaves, gradient_at(score, leaves))
    largest = torch.linalg.eigvalsh(matrix).abs().max()
    torch.testing.assert_close(found, scale.abs() * largest, rtol=1e-12, atol=0)


class Halting(torch.autograd.Function):
    """x³, whose backward looks at its numbers, as no vectorised backward can."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient if bool(gradient.isfinite().all()) else gradient


@pytest.mark.parametrize("norm", [exact_norm, exact_spectral_norm])
def test_what_cannot_be_vectorised_is_done_row_by_row(norm):
    leaves = (normal(4, 3).requires_grad_(),)
    gradients = gradient_at(lambda x: Halting.apply(x).square().sum(dim=1), leaves)
    diagonal = 30 * leaves[0].detach() ** 4  # x⁶ has the second derivative 30 x⁴
    expected = diagonal.norm(dim=1) if norm is exact_norm else diagonal.amax(dim=1)
    torch.testing.assert_close(norm(leaves, gradients), expected)


@pytest.mark.parametrize("case", CASES)
def test_hessian_vector_norm_is_the_length_of_each_product(case):
    score, inputs = CASES[case]
    leaves = leaves_of(inputs)
    found = hessian_vector_norm(leaves, gradient_at(score, leaves))
    torch.testing.assert_close(found, vector_norms(score, inputs), rtol=1e-12, atol=0)


def test_it_is_never_above_the_exact_norm_and_equal_for_one_feature():
    leaves = leaves_of(CASES["a tensor"][1])
    gradients = gradient_at(one_input, leaves)
    assert (hessian_vector_norm(leaves, gradients) < exact_norm(leaves, gradients)).all()
    one = (normal(4, 1).requires_grad_(),)
    gradients = gradient_at(lambda x: x.exp().flatten(), one)
    expected = one[0].detach().exp().flatten()
    for norm in (hessian_vector_norm, exact_norm):
        torch.testing.assert_close(norm(one, gradients), expected)


def test_a_one_dimensional_tensor_in_a_tuple_is_one_feature():
    inputs = leaves_of((normal(4, 2), normal(4, seed=1)))

    def score(a, b):
        return a.prod(dim=1) * b.exp()

    (a0, a1), b = inputs[0].detach().T, inputs[1].detach()
    rows = [[0 * b, b.exp(), a1 * b.exp()], [b.exp(), 0 * b, a0 * b.exp()]]
    rows += [[a1 * b.exp(), a0 * b.exp(), a0 * a1 * b.exp()]]
    matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    signs = torch.stack([a1.sign(), a0.sign(), (a0 * a1).sign()], dim=1)
    along = torch.einsum("eij,ej->ei", matrices, signs / 3**0.5).norm(dim=1)
    gradients = gradient_at(score, inputs)
    torch.testing.assert_close(exact_norm(inputs, gradients), matrices.flatten(1).norm(dim=1))
    torch.testing.assert_close(hessian_vector_norm(inputs, gradients), along)
    torch.testing.assert_close(estimate(score, inputs, 1e-7), along, rtol=1e-5, atol=0)


def test_closed_form_on_a_quadratic():
    root = normal(5, 5)
    matrix = root + root.T
    leaves = (normal(3, 5, seed=1).requires_grad_(),)

    def quadratic(x):
        return ((x @ matrix) * x).sum(dim=1) / 2  # its gradient is A x, its Hessian A

    gradients = gradient_at(quadratic, leaves)
    along = leaves[0].detach() @ matrix
    direction = along.sign() / 5**0.5
    expected = (direction @ matrix).norm(dim=1)
    torch.testing.assert_close(exact_norm(leaves, gradients), matrix.norm().expand(3))
    torch.testing.assert_close(hessian_vector_norm(leaves, gradients), expected)
    for kappa in (1e-3, 1e-1, 10.0):  # the difference of a linear gradient is exact
        torch.testing.assert_close(estimate(quadratic, leaves, kappa), expected, rtol=1e-10, atol=0)


# --- the finite difference ---------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_finite_difference_converges_at_the_first_order(case):
    score, inputs = CASES[case]
    expected = vector_norms(score, inputs)
    errors = [(estimate(score, inputs, kappa) - expected).abs() for kappa in (1e-3, 5e-4, 2.5e-4)]
    assert ((errors[0] / expected) < 1e-2).all()
    for coarse, fine in pairwise(errors):
        assert (coarse / fine - 2).abs().max() < 0.1
    extrapolated = 2 * estimate(score, inputs, 2.5e-4) - estimate(score, inputs, 5e-4)
    torch.testing.assert_close(extrapolated, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(estimate(score, inputs, 1e-7), expected, rtol=1e-5, atol=0)


def test_examples_step_along_their_own_direction_with_one_call():
    calls = []

    def recorded(moved):
        calls.append(moved)
        return gradient_at(one_input, moved)

    (x,) = CASES["a tensor"][1]
    leaves = (x.clone().requires_grad_(),)
    finite_difference_norm(recorded, leaves, gradient_at(one_input, leaves), 0.3)
    assert len(calls) == 1
    step = calls[0][0].detach() - x
    torch.testing.assert_close(step, 0.3 * joined_direction(one_input, (x,)))


def test_a_relu_network_is_flat_to_exact_norms_and_bent_to_finite_differences():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)

    def logit(x):
        return model(x).flatten()

    leaves = (normal(6, 5).requires_grad_(),)
    gradients = gradient_at(logit, leaves)
    assert exact_norm(leaves, gradients).tolist() == [0.0] * 6
    assert hessian_vector_norm(leaves, gradients).tolist() == [0.0] * 6
    assert (estimate(logit, leaves, 1.0) > 0.1).any()  # kinks lie within 1
    assert (estimate(logit, leaves, 1e-9) == 0).all()  # and none within 1e-9


# --- gradients ---------------------------------------------------------------------------------


def norms_of(score, leaves):
    gradients = gradient_at(score, leaves)
    return {
        "finite difference": finite_difference_norm(
            partial(gradient_at, score), leaves, gradients, 1e-2
        ),
        "product": hessian_vector_norm(leaves, gradients),
        "exact": exact_norm(leaves, gradients),
    }


@pytest.mark.parametrize("norm", ["finite difference", "product", "exact"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_by_the_inputs_pass_gradcheck(case, norm):
    score, inputs = CASES[case]
    leaves = leaves_of(x[:2] for x in inputs)
    assert torch.autograd.gradcheck(lambda *x: norms_of(score, x)[norm], leaves)


def linear(x):
    return F.linear(x, WEIGHT).flatten()


WEIGHT = torch.tensor([[0.5, -0.25, 0.75, 0.0, 1.0]], dtype=torch.float64)


def flat_at_the_origin(x):
    """Its gradient, and with it the direction, is zero at x = 0."""
    return x.pow(4).sum(dim=1)


@pytest.mark.parametrize("norm", ["finite difference", "product", "exact"])
@pytest.mark.parametrize(
    ("score", "point"),
    [(linear, normal(3, 5)), (flat_at_the_origin, torch.zeros(3, 5, dtype=torch.float64))],
)
def test_without_curvature_value_and_gradient_are_zero_and_not_nan(score, point, norm):
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    leaves = (point.clone().requires_grad_(),)
    value = norms_of(lambda x: scale * score(x), leaves)[norm]
    assert value.tolist() == [0.0, 0.0, 0.0]
    for gradient in torch.autograd.grad(
        value.sum() + 0 * (scale + leaves[0].sum()), (scale, *leaves)
    ):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_curved_examples_beside_flat_ones_keep_their_gradient():
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    gradients = gradient_at(flat_at_the_origin, (x,))
    value = exact_norm((x,), gradients)
    expected = 12 * torch.tensor([0.0, 17.0], dtype=torch.float64).sqrt()  # 12 x² on the diagonal
    torch.testing.assert_close(value, expected)
    (found,) = torch.autograd.grad(value.sum(), x)
    by_hand = 12 * torch.tensor([[0.0, 0.0], [2.0, 16.0]], dtype=torch.float64) / 17**0.5
    torch.testing.assert_close(found, by_hand)


def test_inputs_that_are_not_used_have_no_curvature():
    used, unused = normal(3, 2).requires_grad_(), normal(3, 4, seed=1).requires_grad_()

    def score(a):
        return a.square().sum(dim=1) / 2

    gradients = (gradient_at(score, (used,))[0], torch.zeros_like(unused))
    expected = torch.full((3,), 2**0.5, dtype=torch.float64)
    torch.testing.assert_close(exact_norm((used, unused), gradients), expected)
    torch.testing.assert_close(
        hessian_vector_norm((used, unused), gradients), torch.ones(3, dtype=torch.float64)
    )


# --- the norm ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_joint_norm_of_small_and_large_entries(dtype):
    tensors = torch.full((2, 3), 3e-4, dtype=dtype), torch.full((2, 1, 1), 4e-4, dtype=dtype)
    for scale in (1, 1_000_000 if dtype != torch.float16 else 1000):
        scaled = tuple((scale * t.double()).to(dtype) for t in tensors)
        expected = torch.cat([t.double().flatten(1) for t in scaled], dim=1).norm(dim=1)
        found = joint_norm(scaled)
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)


def test_no_examples():
    leaves = (torch.zeros(0, 5, dtype=torch.float64, requires_grad=True),)
    for value in norms_of(one_input, leaves).values():
        assert value.shape == (0,)
