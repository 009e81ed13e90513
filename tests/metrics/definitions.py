"""The definitions of the metrics, written out over Python numbers; models and recorders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from hypothesis import settings
from torch import Tensor, nn

many = settings(max_examples=40, deadline=None, derandomize=True)
some = settings(max_examples=15, deadline=None, derandomize=True)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def softplus_net(n_features: int, n_outputs: int = 3, n_hidden: int = 16) -> nn.Module:
    """A network curved enough for its saliency to change order nearby."""
    net = nn.Sequential(
        nn.Linear(n_features, n_hidden),
        nn.Softplus(beta=5),
        nn.Linear(n_hidden, n_hidden),
        nn.Softplus(beta=5),
        nn.Linear(n_hidden, n_outputs),
    ).double()
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed) / parameter[0].numel() ** 0.5
    return net


def softplus_conv_net() -> nn.Module:
    """(N, 2, 4, 4) -> (N, 3)."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Softplus(beta=5), nn.Flatten(), nn.Linear(16, 3)
    ).double()
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    return net


def stable_top_k(row: list[float], k: int) -> set[int]:
    """Indices of the k largest, the lowest index first at ties."""
    return set(sorted(range(len(row)), key=lambda i: (-row[i], i))[:k])


def precision(row: list[float], reference: list[float], k: int) -> float:
    return len(stable_top_k(row, k) & stable_top_k(reference, k)) / k


def gaps(row: list[float], top: set[int]) -> list[float]:
    """The gaps of all pairs of a top and a lower feature."""
    rest = set(range(len(row))) - top
    return [row[i] - row[j] for i in top for j in rest]


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)


def thickness(
    attribute: Callable[[Tensor], Tensor],
    example: Tensor,
    neighbours: list[Tensor],
    k: int,
    n_steps: int,
    surrogate: str = "indicator",
    reduction: str = "mean",
) -> float:
    """Equation (3): loops over the neighbours, the steps and the pairs, one point at a time.

    ``attribute`` maps a point of shape (1, ...) to its map; the example and its neighbours have
    the shape (1, ...) too.
    """
    top = stable_top_k(attribute(example).flatten().tolist(), k)
    of_draws = []
    for neighbour in neighbours:
        of_steps = []
        for m in range(1, n_steps + 1):
            t = (m - 0.5) / n_steps
            row = attribute((1 - t) * example + t * neighbour).flatten().tolist()
            h = gaps(row, top)
            of_steps.append(mean(g >= 0 for g in h) if surrogate == "indicator" else mean(h))
        of_draws.append(mean(of_steps))
    return min(of_draws) if reduction == "min" else mean(of_draws)


class Recorder:
    """A perturb_func that draws within a radius and remembers what it returned."""

    def __init__(self, radius: float) -> None:
        self.radius = radius
        self.returned: list[Any] = []

    def __call__(self, inputs: Any) -> Any:
        tensors = (inputs,) if isinstance(inputs, Tensor) else inputs
        moved = tuple(t + self.radius * (2 * torch.rand_like(t) - 1) for t in tensors)
        self.returned.append(tuple(t.clone() for t in moved))
        return moved[0] if isinstance(inputs, Tensor) else moved

    def neighbours(self, example: int) -> list[Tensor]:
        """The neighbours of an example of a single input tensor, each of shape (1, ...)."""
        return [drawn[0][example : example + 1] for drawn in self.returned]


class Watch:
    """An explanation function that remembers the points it was given and the maps it returned."""

    def __init__(self, explanation_func: Callable[..., Tensor]) -> None:
        self.explanation_func = explanation_func
        self.points: list[Tensor] = []
        self.maps: list[Tensor] = []

    def __call__(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        self.points.append(inputs.detach().clone())
        maps = self.explanation_func(inputs, **kwargs)
        self.maps.append(maps.detach().clone())
        return maps

    @property
    def n_rows(self) -> int:
        return sum(len(p) for p in self.points)


class Quadratic(nn.Module):
    r"""f(x) = ½ xᵀAx + bᵀx, whose gradient Ax + b is linear along every segment."""

    def __init__(self, curvature: Tensor, slope: Tensor) -> None:
        super().__init__()
        self.curvature, self.slope = curvature, slope

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((x @ self.curvature) * x).sum(dim=1) + x @ self.slope


def fraction_above_zero(start: float, end: float) -> float:
    """Part of t in [0, 1] in which the line from start >= 0 to end is not negative."""
    return 1.0 if end >= 0 else start / (start - end)
