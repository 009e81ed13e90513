"""Every member of the ReLU family, in every form, against its softplus formula in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_robust.attr import smooth_relu
from tests.attr.oracles import normal

BETA = 3.0
SHAPE = (2, 3, 2, 2)
Number = float | Tensor


@dataclass
class Bent:
    """``const + slope · x + Σ change · softplus(x − bend)``, and its derivatives in closed form."""

    const: Number
    slope: Number
    bends: list[tuple[Number, Number]]  # (change of slope, where)

    def value(self, x: Tensor) -> Tensor:
        softplus = [c * torch.log1p(torch.exp(BETA * (x - b))) / BETA for c, b in self.bends]
        return self.const + self.slope * x + sum(softplus)

    def derivatives(self, x: Tensor) -> list[Tensor]:
        s = [torch.sigmoid(BETA * (x - b)) for _, b in self.bends]
        terms = [(c, p) for (c, _), p in zip(self.bends, s, strict=True)]
        first = self.slope + sum(c * p for c, p in terms)
        second = sum(c * BETA * p * (1 - p) for c, p in terms)
        third = sum(c * BETA**2 * p * (1 - p) * (1 - 2 * p) for c, p in terms)
        return [first + torch.zeros_like(x), second, third]


def leaky(slope: Number) -> Bent:
    return Bent(0.0, slope, [(1 - slope, 0.0)])


def between(low: Number, high: Number) -> Bent:
    return Bent(low, 0.0, [(1.0, low), (-1.0, high)])


def above(low: Number) -> Bent:
    return Bent(low, 0.0, [(1.0, low)])


def below(high: Number) -> Bent:
    return Bent(0.0, 1.0, [(-1.0, high)])


def prelu(weight: Tensor) -> nn.PReLU:
    module = nn.PReLU(len(weight), dtype=torch.float64)
    module.weight = nn.Parameter(weight.clone())
    return module


RELU, LEAKY, SIX = leaky(0.0), leaky(0.2), between(0.0, 6.0)
MEAN_SLOPE = leaky((0.1 + 0.4) / 2)
ONE = torch.tensor([0.3], dtype=torch.float64)
EACH = torch.tensor([0.3, -0.2, 1.5], dtype=torch.float64)
OF_CHANNELS = leaky(EACH.reshape(3, 1, 1))
LOW, HIGH = normal(*SHAPE[1:], seed=7), normal(*SHAPE[1:], seed=7) + 1.5

# Name: the call, and the formula that it stands for.
Form = tuple[Callable[[Tensor], Tensor], Bent]
OUT_OF_PLACE: dict[str, Form] = {
    "nn.ReLU": (nn.ReLU(), RELU),
    "F.relu": (F.relu, RELU),
    "torch.relu": (torch.relu, RELU),
    "Tensor.relu": (lambda x: x.relu(), RELU),
    "torch.relu(input=)": (lambda x: torch.relu(input=x), RELU),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2), LEAKY),
    "F.leaky_relu": (lambda x: F.leaky_relu(x, 0.2), LEAKY),
    "F.leaky_relu by default": (F.leaky_relu, leaky(0.01)),
    "nn.PReLU": (prelu(ONE), leaky(0.3)),
    "nn.PReLU by channel": (prelu(EACH), OF_CHANNELS),
    "F.prelu": (lambda x: F.prelu(x, EACH), OF_CHANNELS),
    "torch.prelu": (lambda x: torch.prelu(x, EACH), OF_CHANNELS),
    "Tensor.prelu": (lambda x: x.prelu(ONE), leaky(0.3)),
    "nn.RReLU": (nn.RReLU(0.1, 0.4).eval(), MEAN_SLOPE),
    "nn.RReLU in training": (nn.RReLU(0.1, 0.4).train(), MEAN_SLOPE),
    "F.rrelu": (lambda x: F.rrelu(x, 0.1, 0.4), MEAN_SLOPE),
    "F.rrelu by default": (F.rrelu, leaky((1 / 8 + 1 / 3) / 2)),
    "torch.rrelu": (lambda x: torch.rrelu(x, 0.1, 0.4), MEAN_SLOPE),
    "nn.ReLU6": (nn.ReLU6(), SIX),
    "F.relu6": (F.relu6, SIX),
    "nn.Hardtanh": (nn.Hardtanh(-0.5, 2.0), between(-0.5, 2.0)),
    "F.hardtanh": (lambda x: F.hardtanh(x, -0.5, 2.0), between(-0.5, 2.0)),
    "F.hardtanh by default": (F.hardtanh, between(-1.0, 1.0)),
    "torch.clamp": (lambda x: torch.clamp(x, -0.5, 2.0), between(-0.5, 2.0)),
    "torch.clamp(min=)": (lambda x: torch.clamp(x, min=-0.5), above(-0.5)),
    "torch.clamp(max=)": (lambda x: torch.clamp(x, max=0.5), below(0.5)),
    "torch.clip": (lambda x: torch.clip(x, max=2, min=0), between(0.0, 2.0)),
    "Tensor.clamp": (lambda x: x.clamp(-0.5, 2.0), between(-0.5, 2.0)),
    "Tensor.clamp(min)": (lambda x: x.clamp(-0.5), above(-0.5)),
    "Tensor.clip": (lambda x: x.clip(max=0.5), below(0.5)),
    "torch.clamp_min": (lambda x: torch.clamp_min(x, -0.5), above(-0.5)),
    "Tensor.clamp_min": (lambda x: x.clamp_min(-0.5), above(-0.5)),
    "torch.clamp_max": (lambda x: torch.clamp_max(x, max=0.5), below(0.5)),
    "Tensor.clamp_max": (lambda x: x.clamp_max(0.5), below(0.5)),
    "clamp to tensors": (lambda x: x.clamp(LOW, HIGH), between(LOW, HIGH)),
    "clamp_min to a tensor": (lambda x: torch.clamp_min(x, LOW), above(LOW)),
    "clamp(max=) to a tensor": (lambda x: torch.clamp(x, max=HIGH), below(HIGH)),
}
IN_PLACE: dict[str, Form] = {
    "nn.ReLU": (nn.ReLU(inplace=True), RELU),
    "F.relu": (lambda x: F.relu(x, inplace=True), RELU),
    "F.relu_": (F.relu_, RELU),
    "torch.relu_": (torch.relu_, RELU),
    "Tensor.relu_": (lambda x: x.relu_(), RELU),
    "nn.LeakyReLU": (nn.LeakyReLU(0.2, inplace=True), LEAKY),
    "F.leaky_relu": (lambda x: F.leaky_relu(x, 0.2, True), LEAKY),
    "F.leaky_relu_": (lambda x: F.leaky_relu_(x, 0.2), LEAKY),
    "nn.RReLU": (nn.RReLU(0.1, 0.4, inplace=True).eval(), MEAN_SLOPE),
    "F.rrelu": (lambda x: F.rrelu(x, 0.1, 0.4, False, True), MEAN_SLOPE),
    "F.rrelu_": (lambda x: F.rrelu_(x, 0.1, 0.4), MEAN_SLOPE),
    "torch.rrelu_": (lambda x: torch.rrelu_(x, 0.1, 0.4), MEAN_SLOPE),
    "nn.ReLU6": (nn.ReLU6(inplace=True), SIX),
    "F.relu6": (lambda x: F.relu6(x, inplace=True), SIX),
    "nn.Hardtanh": (nn.Hardtanh(-0.5, 2.0, inplace=True), between(-0.5, 2.0)),
    "F.hardtanh": (lambda x: F.hardtanh(x, -0.5, 2.0, True), between(-0.5, 2.0)),
    "F.hardtanh_": (lambda x: F.hardtanh_(x, -0.5, 2.0), between(-0.5, 2.0)),
    "torch.clamp_": (lambda x: torch.clamp_(x, -0.5, 2.0), between(-0.5, 2.0)),
    "torch.clip_": (lambda x: torch.clip_(x, min=-0.5), above(-0.5)),
    "Tensor.clamp_": (lambda x: x.clamp_(max=0.5), below(0.5)),
    "Tensor.clip_": (lambda x: x.clip_(-0.5, 2.0), between(-0.5, 2.0)),
    "torch.clamp_min_": (lambda x: torch.clamp_min_(x, -0.5), above(-0.5)),
    "Tensor.clamp_min_": (lambda x: x.clamp_min_(-0.5), above(-0.5)),
    "torch.clamp_max_": (lambda x: torch.clamp_max_(x, 0.5), below(0.5)),
    "Tensor.clamp_max_": (lambda x: x.clamp_max_(max=0.5), below(0.5)),
    "clamp_ to tensors": (lambda x: x.clamp_(LOW, HIGH), between(LOW, HIGH)),
}
FORWARDS = ["smooth", "exact"]


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def derivatives(y: Tensor, x: Tensor) -> list[Tensor]:
    """The first three derivatives of an elementwise function."""
    found = []
    for _ in range(3):
        (y,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        found.append(y)
    return found


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("name", OUT_OF_PLACE)
def test_value_and_derivatives(name: str, forward: Any) -> None:
    call, formula = OUT_OF_PLACE[name]
    x = (3 * normal(*SHAPE)).requires_grad_()
    with smooth_relu(BETA, forward):
        y = call(x)
    if forward == "smooth":
        same(y, formula.value(x))
        written_out = torch.autograd.grad(formula.value(x).sum(), x)[0]
        same(torch.autograd.grad(y.sum(), x, retain_graph=True)[0], written_out)
    elif "training" not in name:  # where the exact value is drawn
        assert torch.equal(y, call(x))
    for found, expected in zip(derivatives(y, x), formula.derivatives(x), strict=True):
        same(found, expected)
    assert torch.equal(x, 3 * normal(*SHAPE))


@pytest.mark.parametrize("forward", FORWARDS)
@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_forms_change_their_tensor(name: str, forward: Any) -> None:
    call, formula = IN_PLACE[name]
    x = (3 * normal(*SHAPE)).requires_grad_()
    hidden = x * 1
    with smooth_relu(BETA, forward):
        y = call(hidden)
    assert y is hidden
    if forward == "smooth":
        same(hidden, formula.value(x))
    else:
        assert torch.equal(hidden, call(x * 1))
    for found, expected in zip(derivatives(hidden, x), formula.derivatives(x), strict=True):
        same(found, expected)


def test_exact_values_and_smooth_derivatives_in_what_follows() -> None:
    """Of relu(x)³: the chain rule with the value of the ReLU and the slope of the softplus."""
    x = normal(20).requires_grad_()
    with smooth_relu(BETA, forward="exact"):
        cubes = torch.relu(x) ** 3
    y, s = torch.relu(x.detach()), torch.sigmoid(BETA * x)
    first, second, _ = derivatives(cubes, x)
    same(first, 3 * y**2 * s)
    same(second, 6 * y * s**2 + 3 * y**2 * BETA * s * (1 - s))


@pytest.mark.parametrize("forward", FORWARDS)
def test_in_place_on_a_leaf_is_refused_as_by_torch_and_leaves_it(forward: Any) -> None:
    x = normal(4).requires_grad_()
    with smooth_relu(BETA, forward), pytest.raises(RuntimeError, match="leaf"):
        x.relu_()
    assert torch.equal(x, normal(4))


@pytest.mark.parametrize("forward", FORWARDS)
def test_in_place_on_a_view_changes_the_whole(forward: Any) -> None:
    x = normal(4, 3).requires_grad_()
    hidden = x * 1
    with smooth_relu(BETA, forward):
        hidden[:2].relu_()
    (gradient,) = torch.autograd.grad(hidden.sum(), x)
    same(gradient[:2], torch.sigmoid(BETA * x[:2]))
    same(gradient[2:], torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), SHAPE])
@pytest.mark.parametrize("weight", [ONE, EACH], ids=["one slope", "one a channel"])
def test_prelu_for_every_shape(shape: tuple[int, ...], weight: Tensor) -> None:
    x, module = normal(2, *shape[1:]), prelu(weight if len(shape) > 1 else ONE)
    x.requires_grad_()
    with smooth_relu(BETA):
        y = module(x)
    slopes = module.weight.reshape(-1, *(1,) * max(0, len(shape) - 2))
    same(y, leaky(slopes).value(x))
    written_out = torch.autograd.grad(leaky(slopes).value(x).sum(), module.weight)[0]
    same(torch.autograd.grad(y.sum(), module.weight)[0], written_out)


def test_gradient_in_the_bounds_of_a_clamp() -> None:
    x, low, high = normal(2, 3), normal(3, seed=1) - 1, normal(3, seed=2) + 1
    low.requires_grad_()
    high.requires_grad_()
    with smooth_relu(BETA):
        y = x.clamp(low, high)
    at_low, at_high = torch.autograd.grad(y.sum(), (low, high))
    same(at_low, (1 - torch.sigmoid(BETA * (x - low))).sum(0))
    same(at_high, torch.sigmoid(BETA * (x - high)).sum(0))


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-2, 1e4),
    st.sampled_from([name for name in OUT_OF_PLACE if "training" not in name]),
)
def test_never_farther_than_log_2_over_beta(point: float, beta: float, name: str) -> None:
    call, formula = OUT_OF_PLACE[name]
    x = torch.full(SHAPE, point, dtype=torch.float64)
    with smooth_relu(beta):
        y = call(x)
    changes = [torch.as_tensor(c, dtype=torch.float64).abs().max() for c, _ in formula.bends]
    bound = float(max(changes)) * math.log(2) / beta
    rounding = 1e-14 * (1 + abs(point) + bound)
    assert ((y - call(x)).abs() <= bound + rounding).all()


def test_converges_to_the_exact_function() -> None:
    x = normal(50)
    gaps = []
    for beta in (1.0, 10.0, 100.0, 1000.0):
        with smooth_relu(beta):
            gaps.append(float((torch.relu(x) - (x + x.abs()) / 2).abs().max()))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-3 < 0.1 < gaps[0]


def test_softplus_has_no_step_where_torch_makes_it_linear() -> None:
    x = torch.tensor([19.9, 20.1, 25.0, 39.9, 40.1, 700.0], dtype=torch.float64) / BETA
    x.requires_grad_()
    with smooth_relu(BETA):
        y = torch.relu(x)
    assert ((y - x)[:3] > 0).all()
    second = derivatives(y, x)[1]
    expected = BETA * torch.sigmoid(BETA * x) * torch.sigmoid(-BETA * x)
    torch.testing.assert_close(second, expected, rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["nn.ReLU", "nn.LeakyReLU", "nn.ReLU6", "Tensor.clamp_min"])
def test_keeps_the_dtype(name: str, dtype: torch.dtype) -> None:
    call, formula = OUT_OF_PLACE[name]
    x = normal(20)
    with smooth_relu(BETA):
        y = call(x.to(dtype))
    assert y.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        y.double(), formula.value(x.to(dtype).double()), rtol=tolerance, atol=tolerance
    )


def test_wide_bounds_lose_no_digits() -> None:
    """Models clamp to the range of half precision, and masks hold infinities."""
    x = torch.tensor([-math.inf, -1e30, -1e5, -1.5, 1e-3, 0.7, 1e5, 1e30, math.inf])
    x.requires_grad_()
    with smooth_relu(10.0):
        wide, lowest, highest = x.clamp(-65504, 65504), x.clamp(min=-1e30), x.clamp(max=1e30)
        narrow = x.clamp(0, 1)
    assert torch.equal(wide, torch.clamp(x, -65504, 65504))
    torch.testing.assert_close(lowest, torch.clamp(x, min=-1e30), rtol=1e-6, atol=0)
    torch.testing.assert_close(highest, torch.clamp(x, max=1e30), rtol=1e-6, atol=0)
    assert torch.equal(narrow[[0, 1, 2, 6, 7, 8]], torch.tensor([0.0, 0, 0, 1, 1, 1]))
    (gradient,) = torch.autograd.grad(wide.sum() + narrow.sum(), x, create_graph=True)
    assert gradient.isfinite().all()
    assert torch.autograd.grad(gradient.sum(), x)[0].isfinite().all()


def test_bounds_that_cross_give_the_upper_one() -> None:
    x = normal(20).requires_grad_()
    low, high = torch.full_like(x, 1.0), torch.full_like(x, -1.0)
    with smooth_relu(BETA):
        numbers, tensors = x.clamp(1.0, -1.0), x.clamp(low, high)
    same(numbers, high)
    same(tensors, high)
    same(torch.autograd.grad(numbers.sum(), x)[0], torch.zeros_like(x))


def test_integers_and_out_are_left_exact() -> None:
    with smooth_relu(1.0):
        assert torch.equal(torch.tensor([-3, 2, 9]).clamp(0, 5), torch.tensor([0, 2, 5]))
        assert torch.equal(torch.relu(torch.tensor([-1, 1])), torch.tensor([0, 1]))
        out = torch.empty(2)
        returned = torch.clamp(torch.tensor([-1.0, 1.0]), min=0.0, out=out)
    assert returned is out
    assert torch.equal(out, torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan, math.inf])
def test_beta_must_be_positive_and_finite(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be positive"):
        smooth_relu(beta)


def test_forward_must_be_known() -> None:
    with pytest.raises(ValueError, match="forward must be 'smooth' or 'exact', got 'rough'"):
        smooth_relu(1.0, forward="rough")
