"""Affine forms against exact fractions: enclosures hold to the last bit, and forget nothing."""

from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from captum_robust.certify.affine import Affine, Band, Symbols
from tests.metrics.definitions import many, normal

NORMS = ["Linf", "L2"]
# Of very different sizes, so that sums cancel and round.
numbers = st.one_of(
    st.floats(-1, 1), st.floats(-1e9, 1e9), st.sampled_from([0.1, -0.1, 1 / 3, 1e16, -1e16])
)


def vectors(n):
    return st.lists(numbers, min_size=n, max_size=n)


def matrices(n_rows, n_columns):
    return st.lists(vectors(n_columns), min_size=n_rows, max_size=n_rows)


def exact(tensor):
    values = tensor.tolist()
    return [Fraction(v) for v in values] if tensor.dim() == 1 else [exact(row) for row in tensor]


def times(matrix, vector):
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def form_of(weight, centre, radius, norm="Linf"):
    """The image of one ball under a linear map."""
    weight = tensor(weight)
    symbols = Symbols(weight.shape[1], norm)
    bias = weight.new_zeros(len(weight))
    return Affine.of_ball(weight, bias, tensor([centre]), tensor([radius]), symbols)


def misses(form, values):
    """Return whether exact values of one example leave the range of the form."""
    ranges = zip(exact(form.centre[0]), exact(form.radius[0]), values, strict=True)
    return any(abs(v - centre) > radius for centre, radius, v in ranges)


# --- rounding ------------------------------------------------------------------------------------


@many
@given(matrices(3, 4), vectors(4), matrices(2, 3), vectors(2), st.floats(0, 10), st.data())
def test_sums_and_products_hold_their_exact_values(first, centre, second, bias, radius, data):
    signs = data.draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=4, max_size=4))
    point = [Fraction(c) + s * Fraction(radius) for c, s in zip(centre, signs, strict=True)]
    form = form_of(first, centre, radius)
    z = times(exact(tensor(first)), point)
    assert not misses(form, z)
    image = form.linear(tensor(second), tensor(bias))
    y = [a + Fraction(b) for a, b in zip(times(exact(tensor(second)), z), bias, strict=True)]
    assert not misses(image, y)
    index = torch.tensor([[0, 1]])
    assert not misses(form.take(index) * image, [a * b for a, b in zip(z, y, strict=False)])
    assert not misses(form.take(index) - form.take(index.flip(1)), [z[0] - z[1], z[1] - z[0]])


@many
@given(matrices(3, 4), vectors(4))
@example([[1.0] * 4] * 3, [1e16, 1.0, -1e16, 0.1])
def test_the_sums_of_a_constant_hold_their_exact_values(weight, values):
    constant = Affine.constant(tensor([values]), Symbols(2, "Linf"))
    assert not misses(
        constant.linear(tensor(weight)), times(exact(tensor(weight)), exact(tensor(values)))
    )


@pytest.mark.parametrize("norm", NORMS)
def test_the_radius_is_not_rounded_down(norm):
    n = 1000
    generators = normal(20, n)[None] ** 3
    zero = torch.zeros(1, 20, dtype=torch.float64)
    for n_ball in (n, n // 2, 0):
        form = Affine(zero, generators, zero, Symbols(n_ball, norm))
        for row, radius in zip(exact(generators[0]), exact(form.radius[0]), strict=True):
            rest = sum(abs(g) for g in row[n_ball:])
            ball = row[:n_ball]
            if norm == "Linf":
                assert sum(abs(g) for g in ball) <= radius - rest
            else:
                assert sum(g**2 for g in ball) <= (radius - rest) ** 2


@many
@given(matrices(3, 4), vectors(4), matrices(2, 3))
def test_a_point_is_off_by_rounding_alone(first, centre, second):
    form = form_of(first, centre, 0.0).linear(tensor(second))
    size = tensor(second).abs() @ tensor(first).abs() @ tensor(centre).abs()
    assert (form.radius[0] <= 1e-13 * size + 1e-130).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [1e-140, 1e-165, 1e-200, 1e-310])
def test_what_underflows_in_a_norm_is_not_lost(norm, size):
    form = form_of([[size] * 4], [0.0] * 4, 1.0, norm)
    assert form.radius[0].item() >= 2 * size  # (1, 1, 1, 1) has the norms 4 and 2


def test_what_might_overflow_is_not_enclosed():
    form = form_of([[1e149], [1e151]], [1.0], 0.5)
    assert form.radius[0].isfinite().tolist() == [True, False]


# --- shared symbols ------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_the_range_of_a_linear_map_is_the_dual_norm(norm):
    weight = normal(5, 7)
    form = form_of(weight.tolist(), normal(7, seed=1).tolist(), 0.3, norm)
    dual = weight.abs().sum(dim=1) if norm == "Linf" else weight.norm(dim=1)
    torch.testing.assert_close(form.radius[0], 0.3 * dual)


@pytest.mark.parametrize("norm", NORMS)
def test_what_two_forms_share_cancels(norm):
    weight = normal(5, 7)
    form = form_of(weight.tolist(), normal(7, seed=1).tolist(), 0.3, norm)
    swap = torch.tensor([[1, 0, 2, 3, 4]])
    gaps = form - form.take(swap)
    difference = weight - weight[swap[0]]
    dual = difference.abs().sum(dim=1) if norm == "Linf" else difference.norm(dim=1)
    torch.testing.assert_close(gaps.radius[0], 0.3 * dual, atol=1e-12, rtol=1e-7)


def test_new_symbols_cancel_with_themselves_only():
    form = form_of([[1.0, 0.0], [0.0, 1.0]], [2.0, 2.0], 0.5)
    product = form * form  # centre 4, slope 2, and a quarter of a symbol that is its own
    assert product.centre.tolist() == [[4, 4]]
    assert product.radius[0].tolist() == pytest.approx([2.25, 2.25])
    itself = product - product
    other = product - product.take(torch.tensor([[1, 0]]))
    assert itself.radius[0].tolist() == pytest.approx([0, 0], abs=1e-12)
    assert other.radius[0].tolist() == pytest.approx([4.5, 4.5])


def test_a_constant_factor_needs_no_symbol():
    form = form_of([[1.0, 0.0], [0.0, 1.0]], [2.0, 2.0], 0.5)
    constant = Affine.constant(tensor([[3.0, -1.0]]), form.symbols)
    for product in (form * constant, constant * form):
        assert product.generators.shape == (1, 2, 2)
        assert product.centre.tolist() == [[6, -2]]
        assert product.radius[0].tolist() == pytest.approx([1.5, 0.5])


def test_errors_add_up():
    def form():
        error = tensor([[0.5, 0.25]])
        return Affine(
            tensor([[2.0, -3.0]]), torch.zeros(1, 2, 1).double(), error, Symbols(1, "Linf")
        )

    def radii(of):
        return of.radius[0].tolist()

    swap = torch.tensor([[1, 0]])
    assert radii(form()) == pytest.approx([0.5, 0.25])
    assert radii(form().linear(tensor([[2.0, -4.0]]))) == pytest.approx([2])
    zero = torch.zeros(1, 2, dtype=torch.float64)
    band = Band(tensor([[-2.0, 4.0]]), zero, zero)
    assert radii(form().within(band)) == pytest.approx([1, 1])
    # 2 · 0.25 + 3 · 0.5, and a symbol for 0.5 · 0.25
    assert radii(form() * form().take(swap)) == pytest.approx([2.125, 2.125])
    assert radii(form() - form()) == pytest.approx([1, 0.5])
    assert radii(form() - form().take(swap)) == pytest.approx([0.75, 0.75])
    assert radii(form().with_negatives()) == pytest.approx([0.5, 0.25, 0.5, 0.25])


def test_signs():
    form = form_of([[1.0, -2.0], [0.0, 1.0]], [2.0, 0.5], 0.5)
    negated = form.negated_where(torch.tensor([[True, False]]))
    assert negated.centre.tolist() == [[-1, 0.5]]
    assert (form - negated).radius[0].tolist() == pytest.approx([3, 0], abs=1e-12)
    both = form.with_negatives()
    assert both.centre.tolist() == [[1, 0.5, -1, -0.5]]
    assert both.radius[0].tolist() == pytest.approx([1.5, 0.5, 1.5, 0.5])
    assert (both - both.take(torch.tensor([[2, 3, 0, 1]]))).radius[0, 0] == pytest.approx(3)
