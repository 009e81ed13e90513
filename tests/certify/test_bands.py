"""Bands around activations and their derivatives, against 40 digits and against the best line."""

import math

import mpmath  # torch depends on it
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.certify.activations import ACTIVATIONS
from captum_robust.certify.curves import BELL, SIGMOID, SOFTPLUS
from tests.metrics.definitions import many

mpmath.mp.dps = 40


def sigma(t):
    return 1 / (1 + mpmath.exp(-t))


def softplus(beta, threshold):
    def value(t):
        return t if beta * t > threshold else mpmath.log1p(mpmath.exp(beta * t)) / beta

    return value, lambda t: mpmath.mpf(1) if beta * t > threshold else sigma(beta * t)


def leaky(slope):
    return (lambda t: max(t, slope * t)), (lambda t: mpmath.mpf(1 if t > 0 else slope))


# PyTorch's definitions, each with its derivative.
EXACT = {
    nn.Softplus(): softplus(1, 20),
    nn.Softplus(beta=5): softplus(5, 20),
    nn.Softplus(beta=0.5, threshold=2): softplus(mpmath.mpf("0.5"), 2),
    nn.Softplus(threshold=0): softplus(1, 0),
    nn.Sigmoid(): (sigma, lambda t: sigma(t) * sigma(-t)),
    nn.Tanh(): (mpmath.tanh, lambda t: mpmath.sech(t) ** 2),
    nn.ReLU(): leaky(mpmath.mpf(0)),
    nn.LeakyReLU(0.2): leaky(mpmath.mpf(0.2)),
}
every_activation = pytest.mark.parametrize("module", EXACT, ids=str)
ends = st.one_of(
    st.floats(-40, 40), st.floats(-1e-3, 1e-3), st.sampled_from([0.0, 1.3169578969248166, 2000.0])
)
widths = st.one_of(st.floats(0, 60), st.floats(0, 1e-12), st.sampled_from([0.0, 1e-3, 1.0, 4000.0]))


def bands(module, low, high):
    activation = ACTIVATIONS[type(module)](module)
    low, high = (torch.tensor([t], dtype=torch.float64) for t in (low, high))
    return activation.value(low, high), activation.derivative(low, high)


def exceeds(band, function, t):
    """By how much the function leaves the band at t."""
    slope, offset, error = (mpmath.mpf(float(x)) for x in (band.slope, band.offset, band.error))
    return abs(function(t) - slope * t - offset) - error


@every_activation
@many
@given(ends, widths, st.floats(0, 1))
def test_a_band_holds_the_function_exactly(module, low, width, share):
    high = low + width
    points = [low, high, low + share * width, *(low + i / 16 * width for i in range(17))]
    turns = [t for t in (0.0, 1.3169578969248166, -0.6584789484624083) if low <= t <= high]
    for band, function in zip(bands(module, low, high), EXACT[module], strict=True):
        for t in [mpmath.mpf(min(max(p, low), high)) for p in points + turns]:
            assert exceeds(band, function, t) <= 0


@every_activation
@many
@given(ends, widths, st.floats(0, 1))
def test_a_band_holds_what_torch_evaluates(module, low, width, share):
    # Nine of them: some are evaluated by vector instructions and some are not.
    t = torch.full((9,), min(low + share * width, low + width), dtype=torch.float64)
    value = module(t.requires_grad_())
    (slope,) = torch.autograd.grad(value.sum(), t)
    for band, found in zip(bands(module, low, low + width), (value, slope), strict=True):
        for at in set(found.tolist()):
            assert exceeds(band, lambda _, at=at: mpmath.mpf(at), t[0].item()) <= 0


@pytest.mark.parametrize("curve", [SOFTPLUS, SIGMOID, BELL])
@pytest.mark.parametrize("low, high", [(-1, 1), (-3, 2), (0.5, 4), (-6, -1), (1.2, 1.4), (-9, 9)])
def test_a_band_is_the_narrowest_along_its_chord(curve, low, high):
    low, high = (torch.tensor([t], dtype=torch.float64) for t in (low, high))
    band = curve.band(low, high)
    t = torch.linspace(float(low), float(high), 100_001, dtype=torch.float64)
    residue = curve.value(t) - band.slope * t
    torch.testing.assert_close(band.slope, (curve.value(high) - curve.value(low)) / (high - low))
    needed = (residue.amax() - residue.amin()) / 2
    assert needed <= float(band.error) <= needed * 1.002


@pytest.mark.parametrize("curve", [SOFTPLUS, SIGMOID, BELL])
def test_a_band_narrows_with_the_square_of_its_width(curve):
    t, widths = torch.full((4,), 0.7, dtype=torch.float64), 10.0 ** -torch.arange(1, 5)
    errors = curve.band(t - widths, t + widths).error
    ratios = errors[:-1] / errors[1:]
    assert ((ratios > 80) & (ratios < 125)).all()


@pytest.mark.parametrize("curve", [SOFTPLUS, SIGMOID, BELL])
def test_the_slope_of_next_to_nothing_is_no_chord_of_rounding(curve):
    low = torch.linspace(0.01, 3, 5000, dtype=torch.float64)
    band = curve.band(low, low.nextafter(torch.full_like(low, 9.0)))
    assert (band.slope.abs() <= 1).all() and (band.error < 1e-13).all()


@pytest.mark.parametrize("curve", [SOFTPLUS, SIGMOID, BELL])
def test_curves_are_the_derivatives_they_say(curve):
    t = torch.linspace(-6, 6, 400, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(curve.value(t).sum(), t, create_graph=True)
    torch.testing.assert_close(slope, curve.slope(t))
    (bend,) = torch.autograd.grad(slope.sum(), t)
    pieces = torch.bucketize(t.detach(), torch.tensor(curve.inflections, dtype=torch.float64))
    convex = (pieces % 2 == 0) == curve.convex_first
    assert ((bend >= 0) == convex).all()


@pytest.mark.parametrize("left", [0.0, 0.2])
def test_a_relu_that_keeps_its_sign_has_one_slope(left):
    activation = ACTIVATIONS[nn.LeakyReLU](nn.LeakyReLU(left))
    low = torch.tensor([-2.0, -2.0, 0.0, 1e-300, -1.0, math.nan], dtype=torch.float64)
    high = torch.tensor([-1.0, 0.0, 1.0, 1.0, 1.0, math.nan], dtype=torch.float64)
    band = activation.derivative(low, high)
    assert band.slope.tolist() == [0] * 6
    half = (1 - left) / 2
    assert band.error.tolist() == pytest.approx([0, 0, half, 0, half, half], abs=1e-12)
    assert band.offset.tolist() == pytest.approx([left, left, 1 - half, 1, 1 - half, 1 - half])


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_a_softplus_is_not_enclosed_where_its_exponential_may_overflow(beta):
    # From 710 on PyTorch's own is infinite and its slope NaN.
    high = torch.tensor([299.0, 301.0, 800.0]).double() / beta
    for threshold, finite in ((20, [True] * 3), (1e9, [True, False, False])):
        activation = ACTIVATIONS[nn.Softplus](nn.Softplus(beta, threshold))
        for enclosure in (activation.value, activation.derivative):
            assert enclosure(high - 1, high).error.isfinite().tolist() == finite


@pytest.mark.parametrize(
    "module",
    [
        nn.Softplus(beta=-1),
        nn.Softplus(beta=math.nan),
        nn.Softplus(threshold=-1),
        nn.LeakyReLU(1.5),
        nn.LeakyReLU(-0.1),
    ],
    ids=str,
)
def test_what_cannot_be_enclosed_is_refused(module):
    with pytest.raises(ValueError, match=r"model must hold .* got"):
        ACTIVATIONS[type(module)](module)
