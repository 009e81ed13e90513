"""Smooth curves between two parallel lines.

A curve is convex or concave between its inflections. There, a chord bounds it on one side and any
tangent on the other. The search for the best tangent may be rough, because every tangent gives a
valid bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_robust.certify.affine import Band, rounding

__all__ = ["BELL", "SIGMOID", "SOFTPLUS", "Curve", "kinked"]

_HALVINGS = 12  # leaves a band less than two parts in a thousand wider than necessary


@dataclass(frozen=True)
class Curve:
    """A function with ``|slope| <= 1`` and ``|value| <= 1 + |t|``, convex and concave by turns.

    Attributes:
        value: the function.
        slope: its derivative, monotone between two inflections.
        inflections: where it turns, in ascending order.
        convex_first: whether it is convex left of the first inflection.
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    inflections: tuple[float, ...]
    convex_first: bool = True

    def band(self, low: Tensor, high: Tensor) -> Band:
        """Lines around the curve on [low, high], along the chord."""
        width = high - low
        chord = (self.value(high) - self.value(low)) / width
        slope = torch.where(width > 0, chord.clamp(-1, 1), self.slope(low))
        inner = [torch.full_like(low, t).clamp(low, high) for t in self.inflections]
        knots = torch.stack([low, *inner, high])
        ends = torch.stack([knots[:-1], knots[1:]])  # of the convex and the concave pieces
        pieces = torch.arange(len(knots) - 1, device=low.device).view(-1, *(1,) * low.dim())
        convex = (pieces % 2 == 0) == self.convex_first
        chords, tangents = self.value(ends) - slope * ends, self._above_line(ends, slope, convex)
        lowest = torch.where(convex, tangents, chords).amin(dim=(0, 1))
        highest = torch.where(convex, chords, tangents).amax(dim=(0, 1))
        # The numbers above are off by less than 32 units in the last place of 1 + |t|, and what the
        # network evaluates by less than as many again.
        error = (highest - lowest) / 2 + rounding(12, 1 + torch.maximum(low.abs(), high.abs()))
        return Band(slope, (lowest + highest) / 2, error)

    def _above_line(self, ends: Tensor, slope: Tensor, convex: Tensor) -> Tensor:
        """At both ends: a tangent, nearly parallel to the line slope · t, minus that line."""
        left, right = ends
        for _ in range(_HALVINGS):
            middle = (left + right) / 2
            before = (self.slope(middle) < slope) == convex  # the slope grows where it is convex
            left, right = torch.where(before, middle, left), torch.where(before, right, middle)
        at = (left + right) / 2
        above: Tensor = self.value(at) + self.slope(at) * (ends - at) - slope * ends
        return above


def _softplus(t: Tensor) -> Tensor:
    return torch.logaddexp(t, torch.zeros_like(t))  # torch's own is the identity from 20 on


def _bell(t: Tensor) -> Tensor:
    return torch.sigmoid(t) * torch.sigmoid(-t)


def _slope_of_bell(t: Tensor) -> Tensor:
    return -_bell(t) * torch.tanh(t / 2)


# Each is the derivative of the one before; the bell turns where σ(t) = 1/2 ± 1/√12.
SOFTPLUS = Curve(_softplus, torch.sigmoid, ())
SIGMOID = Curve(torch.sigmoid, _bell, (0.0,))
BELL = Curve(_bell, _slope_of_bell, (-1.3169578969248166, 1.3169578969248166))


def kinked(negative_slope: float) -> Curve:
    """The leaky ReLU with a slope in [0, 1] left of zero: two straight pieces."""
    return Curve(
        lambda t: torch.where(t > 0, t, negative_slope * t),
        lambda t: torch.where(t > 0, torch.ones_like(t), negative_slope),
        (0.0,),
    )
