"""Targets of the generic tests: one line per target, and the objective of each written out.

A new attack is one more line in ``ATTACKS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from captum.attr import InputXGradient, Saliency
from torch import Tensor, nn
from torch.nn import functional as F

from captum_robust.robust import (
    CenterOfMassAttack,
    ERAttack,
    ExplanationAttack,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
    TargetMapAttack,
    TopKAttack,
)
from captum_robust.robust.objectives import RankingObjective

Inputs = Tensor | tuple[Tensor, ...]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def drawn(model: nn.Module, gain: float = 1.5) -> nn.Module:
    """The model in float64, with parameters drawn from a fixed seed."""
    for seed, parameter in enumerate(model.double().parameters()):
        scale = gain / max(1, parameter[0].numel()) ** 0.5
        parameter.data = scale * normal(*parameter.shape, seed=100 + seed)
    return model.eval()


def mlp() -> nn.Module:
    """(N, 6) -> (N, 3), smooth."""
    return drawn(
        nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    )


def relu_mlp() -> nn.Module:
    """(N, 6) -> (N, 3), with a second derivative of zero almost everywhere."""
    return drawn(
        nn.Sequential(
            nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.LeakyReLU(), nn.Linear(8, 3)
        )
    )


def convnet() -> nn.Module:
    """(N, 1, 4, 4) -> (N, 3), smooth."""
    return drawn(
        nn.Sequential(
            nn.Conv2d(1, 3, 2), nn.Softplus(), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(12, 3)
        )
    )


class TwoInputs(nn.Module):
    """(N, 3) and (N, 1, 2) -> (N, 3), smooth, times one number, for all examples or per example."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, 3)
        drawn(self)

    def forward(self, a: Tensor, b: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        hidden: Tensor = F.softplus(self.left(a)) * torch.tanh(self.right(b.flatten(1)))
        scale = scale[:, None] if isinstance(scale, Tensor) else scale
        return self.out(scale * hidden)  # type: ignore[no-any-return]


class Quadratic(nn.Module):
    """(N, n) -> (N,): x'Ax/2 + b'x, whose signed saliency is Ax + b."""

    def __init__(self, n: int, seed: int = 0) -> None:
        super().__init__()
        root = normal(n, n, seed=seed)
        self.register_buffer("A", root + root.T)
        self.register_buffer("b", normal(n, seed=seed + 1))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * ((x @ self.A) * x).sum(dim=1) + x @ self.b  # type: ignore[no-any-return]


# --- the objectives, from the definition ---------------------------------------------------------


def ranked(row: Tensor) -> list[int]:
    """Features by decreasing score; the lowest index first at ties."""
    return sorted(range(len(row)), key=lambda i: (-float(row[i]), i))


def pairs_of(row: Tensor, k: int, kind: str = "all") -> list[tuple[int, int]]:
    """The pairs (i, j) of a top feature and a lower one whose gap counts; k' = k."""
    order = ranked(row)
    top, rest = order[:k], order[k:]
    if kind == "all":
        return [(i, j) for i in top for j in rest]
    if kind == "mm":
        return list(zip(reversed(top), rest, strict=False))
    return [(i, top[-1]) for i in top[:-1]] + [(top[-1], j) for j in rest[:k]]


def gaps(scores: Tensor, reference: Tensor, k: int, kind: str = "all") -> list[Tensor]:
    """The gaps of every example, one row per example."""
    return [
        torch.stack([row[i] - row[j] for i, j in pairs_of(start, k, kind)])
        for row, start in zip(scores, reference, strict=True)
    ]


def linear(k: int, kind: str = "all") -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, r: torch.stack([row.sum() for row in gaps(s, r, k, kind)])


def exponential(k: int, kind: str = "all") -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, r: torch.stack([-(-row).exp().sum().log() for row in gaps(s, r, k, kind)])


def squares(scores: Tensor, reference: Tensor) -> Tensor:
    return -torch.stack(
        [
            sum(((a - b) ** 2 for a, b in zip(row, start, strict=True)), torch.zeros(()))
            / len(start)
            for row, start in zip(scores, reference, strict=True)
        ]
    )


def share(k: int) -> Callable[[Tensor, Tensor], Tensor]:
    def objective(scores: Tensor, reference: Tensor) -> Tensor:
        tops = [ranked(row)[:k] for row in reference]
        return torch.stack(
            [
                sum(row[i] for i in top) / row.abs().sum()
                for row, top in zip(scores, tops, strict=True)
            ]
        )

    return objective


def centre(row: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Centre of mass of a flattened map, as a mean of positions on its last two axes or its one."""
    weights, mean = row.abs() / row.abs().sum(), torch.zeros(min(len(shape), 2)).double()
    for number, weight in enumerate(weights):
        place = torch.unravel_index(torch.tensor(number), shape)
        mean += weight * torch.stack(place[-2:])
    return mean


def shift(*shapes: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    def objective(scores: Tensor, reference: Tensor) -> Tensor:
        sizes = [torch.Size(shape).numel() for shape in shapes]
        distances = []
        for pair in zip(scores, reference, strict=True):
            now, start = (
                torch.cat([centre(p, s) for p, s in zip(row.split(sizes), shapes, strict=True)])
                for row in pair
            )
            distances.append(-(now - start).norm())
        return torch.stack(distances)

    return objective


AIM = torch.tensor([[3.0, 0.0, 1.0, 2.0, 0.0, 5.0]]).double()


def towards(scores: Tensor, reference: Tensor) -> Tensor:
    """Squared distances of shares from those of ``AIM``, relative to those of the reference."""
    far, first = (
        (s / s.abs().sum(dim=1, keepdim=True) - AIM / AIM.sum()).square().sum(dim=1)
        for s in (scores, reference)
    )
    return far / first


def first_score(scores: Tensor, reference: Tensor) -> Tensor:
    return scores[:, 0] + 0 * reference[:, 0]


# --- targets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """A model with examples, their targets and a radius at which its ranking moves."""

    build: Callable[[], nn.Module]
    inputs: Inputs
    radius: float = 0.5

    @property
    def target(self) -> Tensor:
        return torch.arange(5) % 3


NETWORKS = {
    "mlp": Network(mlp, normal(5, 6)),
    "relu": Network(relu_mlp, normal(5, 6)),
    "conv": Network(convnet, normal(5, 1, 4, 4)),
    "two": Network(TwoInputs, (normal(5, 3), normal(5, 1, 2, seed=1))),
}


@dataclass(frozen=True)
class Target:
    """An attack on a network in a norm, with its objective written out."""

    name: str
    make: Callable[..., ExplanationAttack]
    objective: Callable[[Tensor, Tensor], Tensor]
    network: Network
    norm: str
    map_of: type
    path_points: int

    def attack(self, model: nn.Module, **options: Any) -> ExplanationAttack:
        return self.make(self.map_of(model), **options)

    def perturb(self, model: nn.Module | None = None, **arguments: Any) -> Any:
        """The attack on the network, by default with a few steps and a seed."""
        options = {n: arguments.pop(n) for n in list(arguments) if n in OPTIONS}
        given = {
            "inputs": self.network.inputs,
            "radius": self.network.radius,
            "step_size": 0.1,
            "step_num": 5,
            "target": self.network.target,
            "norm": self.norm,
            "seed": 0,
            **arguments,
        }
        return self.attack(model or self.network.build(), **options).perturb(**given)

    def value(self, moved: Inputs, model: nn.Module | None = None) -> Tensor:
        """The objective at ``moved``, by stock Captum and loops over pairs."""
        model = model or self.network.build()
        origin, ends = as_tuple(self.network.inputs), as_tuple(moved)
        reference = stock_scores(self.map_of(model), origin, self.network.target)
        total = torch.zeros(len(reference), dtype=reference.dtype)
        for m in range(1, self.path_points + 1):
            t = m / self.path_points
            points = tuple(o + t * (e - o) for o, e in zip(origin, ends, strict=True))
            scores = stock_scores(self.map_of(model), points, self.network.target)
            total += self.objective(scores, reference)
        return total / self.path_points

    def __str__(self) -> str:
        return self.name


OPTIONS = {"lower_bound", "upper_bound", "preserve_prediction"}


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    return (inputs,) if isinstance(inputs, Tensor) else inputs


def stock_scores(attribution: Any, points: Inputs, target: Any = None, **kwargs: Any) -> Tensor:
    """The maps of stock Captum, flattened and joined."""
    leaves = tuple(p.detach().clone().requires_grad_() for p in as_tuple(points))
    maps = as_tuple(attribution.attribute(leaves, target=target, **kwargs))
    return torch.cat([m.detach().flatten(1) for m in maps], dim=1)


@dataclass(frozen=True)
class Line:
    make: Callable[..., ExplanationAttack]
    objective: Callable[[Tensor, Tensor], Tensor]
    networks: tuple[str, ...]
    map_of: type = Saliency
    path_points: int = 1


def er(**fixed: Any) -> Callable[..., ExplanationAttack]:
    return lambda attribution, **options: ERAttack(attribution, k=2, **fixed, **options)


ATTACKS = {
    "er": Line(er(), linear(2), ("mlp", "conv", "two")),
    "er-input-x-gradient": Line(er(), linear(2), ("mlp",), InputXGradient),
    "er-exp": Line(er(gap="exp"), exponential(2), ("conv",)),
    "er-anchor": Line(er(pairs="anchor"), linear(2, "anchor"), ("mlp",)),
    "er-mm-exp": Line(er(pairs="mm", gap="exp"), exponential(2, "mm"), ("two",)),
    "er-path": Line(er(path_points=3), linear(2), ("mlp",), path_points=3),
    "er-smooth": Line(er(smooth_relu=5.0), linear(2), ("relu",)),
    "er-difference": Line(er(gradient="finite_difference"), linear(2), ("mlp", "two")),
    "er-spsa": Line(er(gradient="spsa", n_directions=2), linear(2), ("mlp", "two")),
    "mse": Line(MSEAttack, squares, ("mlp", "two")),
    "top-k": Line(partial(TopKAttack, k=2), share(2), ("mlp", "two")),
    "target-map": Line(
        partial(TargetMapAttack, target_map=AIM, prediction_weight=0.0), towards, ("mlp",)
    ),
    "random": Line(
        partial(RandomSearchAttack, k=2, objective=RankingObjective(2), keep="objective"),
        linear(2),
        ("mlp", "conv", "two"),
    ),
    "centre": Line(CenterOfMassAttack, shift((1, 4, 4)), ("conv",)),
    "centre-of-two": Line(CenterOfMassAttack, shift((3,), (1, 2)), ("two",)),
    "pareto": Line(partial(ParetoERAttack, k=2), linear(2, "mm"), ("mlp", "two")),
    "custom": Line(
        lambda a, **options: ExplanationAttack(a, first_score, **options), first_score, ("mlp",)
    ),
}

TARGETS = [
    Target(
        f"{name}-{network}-{norm}", line.make, line.objective, NETWORKS[network], norm,
        line.map_of, line.path_points,
    )
    for name, line in ATTACKS.items()
    for network, norm in product(line.networks, ("Linf", "L2"))
]  # fmt: skip
