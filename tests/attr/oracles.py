"""Small smooth networks, and the gradient of a map by central differences, written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_robust.attr import differentiable_attribution

Model = TypeVar("Model", bound=nn.Module)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def drawn(model: Model) -> Model:
    """The model in float64, its parameters drawn so that activations are of order one."""
    for seed, parameter in enumerate(model.double().parameters()):
        parameter.data = normal(*parameter.shape, seed=seed) / max(1, parameter[0].numel()) ** 0.5
    return model


def smooth_mlp() -> nn.Sequential:
    """(N, 4) -> (N, 3)."""
    return drawn(
        nn.Sequential(nn.Linear(4, 5), nn.Softplus(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    )


def smooth_convnet() -> nn.Sequential:
    """(N, 1, 4, 4) -> (N, 3)."""
    convolutions = nn.Conv2d(1, 3, 2), nn.Softplus(), nn.Conv2d(3, 2, 2), nn.SiLU()
    return drawn(nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8, 3)))


class TwoInputs(nn.Module):
    """(N, 3) and (N, 1, 2) -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 2)
        drawn(self)

    def forward(self, a: Tensor, b: Tensor, scale: float = 1.0) -> Tensor:
        hidden: Tensor = F.softplus(self.left(a)) * torch.tanh(self.right(b.flatten(1)))
        return self.out(scale * hidden)


def as_tuple(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def fix_noise() -> None:
    """Captum draws from torch's global generator, and in GradientShap from NumPy's."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002


def unit_vectors(variables: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Every entry of every variable as a direction of its own."""
    for which, variable in enumerate(variables):
        for entry in range(variable.numel()):
            direction = tuple(torch.zeros_like(v) for v in variables)
            direction[which].view(-1)[entry] = 1
            yield direction


def random_vectors(variables: tuple[Tensor, ...], n: int) -> Iterator[tuple[Tensor, ...]]:
    for k in range(n):
        yield tuple(normal(*v.shape, seed=10 * k + i) for i, v in enumerate(variables))


@dataclass
class Comparison:
    """Largest difference of two derivatives over all directions, and the largest of them."""

    difference: float
    size: float

    @property
    def error(self) -> float:
        assert self.size > 1e-3, "the map does not depend on the variables: nothing was checked"
        return self.difference / self.size


def compare_gradients(
    attribute: Callable[[], Any],
    variables: tuple[Tensor, ...],
    *,
    directions: Iterable[tuple[Tensor, ...]] | None = None,
    differences_in_mode: bool = False,
    step: float = 1e-5,
) -> Comparison:
    """Autograd in the mode against central differences, of a randomly weighted map.

    ``attribute`` computes the map from ``variables``, leaves that are moved in place, by default
    entry by entry. The differences are taken of stock Captum's map, or of the mode's where
    Captum's own accumulators are float32.
    """
    fix_noise()
    with differentiable_attribution():
        maps = as_tuple(attribute())
    weights = [normal(*m.shape, seed=1) for m in maps]
    weighted = sum(((w * m).sum() for w, m in zip(weights, maps, strict=True)), torch.tensor(0.0))
    gradients = torch.autograd.grad(weighted, variables, allow_unused=True)
    middle = [v.detach().clone() for v in variables]

    def value_at(offset: float, direction: tuple[Tensor, ...]) -> float:
        for variable, centre, d in zip(variables, middle, direction, strict=True):
            variable.data = centre + offset * d
        fix_noise()
        with differentiable_attribution() if differences_in_mode else nullcontext():
            moved = as_tuple(attribute())
        return sum(float((w * m.detach()).sum()) for w, m in zip(weights, moved, strict=True))

    analytic, numeric = [], []
    for direction in unit_vectors(variables) if directions is None else directions:
        parts = zip(gradients, direction, strict=True)
        analytic.append(sum(float((g * d).sum()) for g, d in parts if g is not None))
        rise = value_at(step, direction) - value_at(-step, direction)
        numeric.append(rise / (2 * step))
    difference = max(abs(a - n) for a, n in zip(analytic, numeric, strict=True))
    return Comparison(difference, size=max(map(abs, numeric)))
