"""Activations between two parallel lines: their values and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_robust.certify.affine import Band
from captum_robust.certify.curves import BELL, SIGMOID, SOFTPLUS, Curve, kinked

__all__ = ["ACTIVATIONS", "Activation"]

_EXPONENT = 300.0  # exp(300) times a gradient, which PyTorch computes, does not overflow

Enclosure = Callable[[Tensor, Tensor], Band]


class Activation(NamedTuple):
    """An activation, with bands around it and around its derivative on intervals [low, high]."""

    module: nn.Module
    value: Enclosure
    derivative: Enclosure


def _scaled(curve: Curve, inner: float = 1.0, outer: float = 1.0, shift: float = 0.0) -> Enclosure:
    """Bands around outer · curve(inner · t) + shift, for inner and outer > 0."""

    def band(low: Tensor, high: Tensor) -> Band:
        unit = curve.band(inner * low, inner * high)
        return Band(outer * inner * unit.slope, outer * unit.offset + shift, outer * unit.error)

    return band


def _sigmoid(module: nn.Module) -> Activation:
    return Activation(module, _scaled(SIGMOID), _scaled(BELL))


def _tanh(module: nn.Module) -> Activation:
    """By tanh t = 2 σ(2t) − 1."""
    return Activation(module, _scaled(SIGMOID, 2.0, 2.0, -1.0), _scaled(BELL, 2.0, 4.0))


def _softplus(module: nn.Module) -> Activation:
    """PyTorch's is the identity from beta · t = threshold on: a jump of at most exp(−threshold).

    It takes the exponential of all that is smaller, which overflows if the threshold is high.
    """
    assert isinstance(module, nn.Softplus)
    beta, threshold = module.beta, module.threshold
    if not (beta > 0 and threshold >= 0):
        raise ValueError(f"model must hold Softplus with beta > 0 and threshold >= 0, got {module}")

    def jumping(enclosure: Enclosure, scale: float) -> Enclosure:
        def band(low: Tensor, high: Tensor) -> Band:
            smooth = enclosure(low, high)
            jump = scale * math.exp(-threshold) if threshold < _EXPONENT else math.inf
            jumps = beta * high >= min(threshold, _EXPONENT)
            error = torch.where(jumps, smooth.error + jump, smooth.error)
            return Band(smooth.slope, smooth.offset, error)

        return band

    return Activation(
        module,
        jumping(_scaled(SOFTPLUS, beta, 1 / beta), 1 / beta),
        jumping(_scaled(SIGMOID, beta), 1.0),
    )


def _relu(module: nn.Module) -> Activation:
    """The derivative at zero is that of the left side, as in PyTorch."""
    left = module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
    if not 0 <= left <= 1:
        raise ValueError(f"model must hold LeakyReLU with a slope in [0, 1], got {module}")

    def derivative(low: Tensor, high: Tensor) -> Band:
        one = torch.ones_like(low)
        # Written so that NaN, the result of an overflow, allows for any sign.
        smallest, largest = torch.where(low > 0, one, left), torch.where(high <= 0, left, one)
        middle, half = (smallest + largest) / 2, (largest - smallest) / 2
        return Band(torch.zeros_like(low), middle, half)

    return Activation(module, kinked(left).band, derivative)


ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], Activation]] = {
    nn.LeakyReLU: _relu,
    nn.ReLU: _relu,
    nn.Sigmoid: _sigmoid,
    nn.Softplus: _softplus,
    nn.Tanh: _tanh,
}
