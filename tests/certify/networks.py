"""Small networks, points of balls, and saliency by autograd."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from tests.metrics.definitions import normal


def random_network(sizes: list[int], activation: nn.Module, seed: int, gain: float = 1.0):
    """Linear layers of the given sizes with the activation between them, in float64."""
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation]
    network = nn.Sequential(*layers[:-1]).double()
    for number, parameter in enumerate(network.parameters()):
        scale = gain / max(1, parameter[0].numel()) ** 0.5
        parameter.data = scale * normal(*parameter.shape, seed=100 * seed + number)
    return network


ACTIVATIONS = {
    "softplus": nn.Softplus(),
    "sharp softplus": nn.Softplus(beta=5),
    "low threshold": nn.Softplus(threshold=1.0),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "relu": nn.ReLU(),
    "leaky relu": nn.LeakyReLU(0.2),
}
HIDDEN = {"one layer": [8], "two layers": [6, 5], "three layers": [5, 5, 5], "linear": []}


def gradients(network: nn.Module, points: Tensor, target: int = 0) -> Tensor:
    """The gradient of an output at points (M, n), by autograd."""
    points = points.detach().clone().requires_grad_()
    return torch.autograd.grad(network(points)[:, target].sum(), points)[0]


def points_of_balls(
    centres: Tensor, radius: Tensor | float, norm: str, n_draws: int, seed: int = 0
) -> Tensor:
    """Points of each ball: half inside, half on the sphere (for Linf, in its corners)."""
    radius = torch.as_tensor(radius, dtype=torch.float64).expand(len(centres))
    drawn = normal(len(centres), n_draws, centres.shape[1], seed=seed)
    if norm == "L2":
        drawn = drawn / drawn.norm(dim=-1, keepdim=True)
    else:
        drawn[:, ::4] = drawn[:, ::4].sign()
        drawn[:, 1::2] = drawn[:, 1::2] / drawn[:, 1::2].abs().amax(dim=-1, keepdim=True)
        drawn[:, 2::4] = drawn[:, 2::4].sign()
    lengths = torch.ones(n_draws, dtype=torch.float64)
    lengths[1::2] = torch.linspace(0, 1, len(lengths[1::2]), dtype=torch.float64)
    return centres[:, None] + radius[:, None, None] * lengths[:, None] * drawn
