r"""Affine forms: enclosures that keep track of what they depend on.

A form encloses every component of a vector as

.. math:: q \in c + G s \pm e,

where the first symbols :math:`s` are a point of the unit ball of a norm (the scaled perturbation)
and each of the others lies in [−1, 1]. Common terms of two quantities cancel in their difference,
unlike with intervals. Source: Stolfi and de Figueiredo 1997, "Self-validated numerical methods and
applications"; for networks, Singh et al. 2018 (DeepZ).

Rounding. A form encloses the quantity as float64 evaluates it, in any order of summation. A sum of
m products is off by at most :math:`\gamma_m = m u / (1 - m u)` times the sum of their magnitudes
(Higham 2002, section 3.1), once in the network and once in the form itself; twice the sum of both
is added to :math:`e`. This needs conventional matrix products, no fast ones such as Strassen's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from captum_robust.noise import Norm

__all__ = ["Affine", "Band", "Symbols", "rounding"]

_UNIT = torch.finfo(torch.float64).eps / 2
_TINY = 1e-150  # more than all that underflows, be it in the squares of a Euclidean norm
_HUGE = 1e150  # what is larger is not enclosed: PyTorch's softplus multiplies it by exp(threshold)


def rounding(n_terms: int, size: Tensor) -> Tensor:
    """Twice what summing ``n_terms`` products of the total magnitude ``size`` loses, twice over.

    Infinite where the magnitude is out of bounds, so that nothing is claimed there.
    """
    lost = 4 * (n_terms + 4) * _UNIT * size + _TINY
    return lost.masked_fill(size > _HUGE, math.inf)


class Symbols:
    """Symbols of all forms: the perturbation, then as many in [−1, 1] as were drawn."""

    def __init__(self, n_features: int, norm: Norm) -> None:
        self.n_features = n_features
        self.norm = norm
        self.count = n_features

    def draw(self, n: int) -> int:
        """Place of the first of ``n`` new symbols."""
        first, self.count = self.count, self.count + n
        return first

    def reach(self, generators: Tensor) -> Tensor:
        """Largest value of ``generators`` times the symbols: a dual norm plus absolute values."""
        ball, others = generators[..., : self.n_features], generators[..., self.n_features :]
        order = 1 if self.norm == "Linf" else 2
        dual: Tensor = torch.linalg.vector_norm(ball, order, dim=-1)
        return dual + others.abs().sum(dim=-1)


@dataclass(frozen=True)
class Band:
    r"""Two parallel lines that enclose a function on an interval: slope · t + offset ± error."""

    slope: Tensor
    offset: Tensor
    error: Tensor


@dataclass(frozen=True)
class Affine:
    """A form of vectors (N, d): centre (N, d), generators (N, d, symbols), error (N, d)."""

    centre: Tensor
    generators: Tensor
    error: Tensor
    symbols: Symbols

    @classmethod
    def constant(cls, values: Tensor, symbols: Symbols) -> Affine:
        """Values (N, d) that depend on nothing."""
        return cls(values, values.new_zeros(*values.shape, 0), torch.zeros_like(values), symbols)

    @classmethod
    def of_ball(
        cls, weight: Tensor, bias: Tensor, centre: Tensor, radius: Tensor, symbols: Symbols
    ) -> Affine:
        """``weight @ x + bias`` for the x of the balls around ``centre`` (N, n)."""
        size = (centre.abs() + radius[:, None]) @ weight.abs().T + bias.abs()
        return cls(
            centre @ weight.T + bias,
            radius[:, None, None] * weight,
            rounding(weight.shape[1], size),
            symbols,
        )

    @property
    def radius(self) -> Tensor:
        """Largest distance from the centre, rounded up; (N, d)."""
        reach = self.symbols.reach(self.generators) + self.error
        return reach + rounding(self.generators.shape[-1], self.centre.abs() + reach)

    @property
    def size(self) -> Tensor:
        """Largest magnitude; (N, d)."""
        return self.centre.abs() + self.radius

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Affine:
        """``weight @ q + bias``, for a weight (out, d)."""
        size, error = self.size @ weight.abs().T, self.error @ weight.abs().T
        centre = self.centre @ weight.T
        if bias is not None:
            size, centre = size + bias.abs(), centre + bias
        error = error + rounding(weight.shape[1], size)
        return Affine(centre, weight @ self.generators, error, self.symbols)

    def within(self, band: Band) -> Affine:
        """A function of every component, which ``band`` encloses on its range."""
        centre = band.slope * self.centre + band.offset
        size = band.slope.abs() * self.size + band.offset.abs() + band.error
        error = band.slope.abs() * self.error + rounding(2, size)
        generators = band.slope[..., None] * self.generators
        return Affine(centre, generators, error, self.symbols)._with_symbols(band.error)

    def __mul__(self, other: Affine) -> Affine:
        """The product, component by component."""
        centre = self.centre * other.centre
        error = self.centre.abs() * other.error + other.centre.abs() * self.error
        error = error + rounding(3, self.size * other.size)
        narrow, width = sorted((self.generators.shape[-1], other.generators.shape[-1]))
        left = other.centre[..., None] * self._wide(width)
        generators = left + self.centre[..., None] * other._wide(width)
        both = self.radius * other.radius
        if narrow == 0:  # one of the two is constant, and ``both`` nothing but rounding
            return Affine(centre, generators, error + both, self.symbols)
        return Affine(centre, generators, error, self.symbols)._with_symbols(both)

    def __sub__(self, other: Affine) -> Affine:
        """The difference of components of one form; dimensions broadcast."""
        error = self.error + other.error + rounding(2, self.size + other.size)
        generators = self.generators - other.generators
        return Affine(self.centre - other.centre, generators, error, self.symbols)

    def negated_where(self, chosen: Tensor) -> Affine:
        """With the components ``chosen`` (N, d) negated, which rounds nothing."""
        centre = torch.where(chosen, -self.centre, self.centre)
        generators = torch.where(chosen[..., None], -self.generators, self.generators)
        return replace(self, centre=centre, generators=generators)

    def with_negatives(self) -> Affine:
        """The components and, behind them, their negatives."""
        centre, generators = (torch.cat([p, -p], dim=1) for p in (self.centre, self.generators))
        return Affine(centre, generators, self.error.repeat(1, 2), self.symbols)

    def take(self, index: Tensor) -> Affine:
        """The components ``index`` (N, m) of each example."""
        rows = torch.arange(len(index), device=index.device)[:, None]
        centre, error = self.centre[rows, index], self.error[rows, index]
        return Affine(centre, self.generators[rows, index], error, self.symbols)

    def _wide(self, width: int) -> Tensor:
        return pad(self.generators, (0, width - self.generators.shape[-1]))

    def _with_symbols(self, sizes: Tensor) -> Affine:
        """One new symbol for every component, of the given size."""
        known = self._wide(self.symbols.draw(sizes.shape[1]))
        return replace(self, generators=torch.cat([known, sizes.diag_embed()], dim=-1))
