"""Thickness at given points (B, S, T, …): in batches over S and T, and in five nested loops."""

from collections.abc import Callable

import torch
from torch import Tensor

from tests.benchmark.peers.ranking import pair_wins

__all__ = ["thickness_by_batches", "thickness_by_loops"]

Attribute = Callable[..., Tensor]


def thickness_by_batches(
    attribute: Attribute, inputs: Tensor, points: Tensor, target: Tensor, k: int
) -> Tensor:
    """One call of the attribution for each draw and time, and the matrix of pairs."""
    n_draws, n_times = points.shape[1:3]
    reference = attribute(inputs, target=target).flatten(1)
    top = reference.topk(k, dim=1).indices
    held = torch.zeros(len(inputs), device=inputs.device)
    for draw in range(n_draws):
        for time in range(n_times):
            here = points[:, draw, time].requires_grad_()
            held += pair_wins(attribute(here, target=target).flatten(1), top)
    return held / (n_draws * n_times * k * (reference.shape[1] - k))


def thickness_by_loops(
    attribute: Attribute, inputs: Tensor, points: Tensor, target: Tensor, k: int
) -> Tensor:
    """The definition, letter by letter: example, draw, time, top feature, other feature."""
    result = []
    for example, its_points, its_target in zip(inputs, points, target, strict=True):
        reference = _map(attribute, example, its_target)
        ranked = sorted(range(len(reference)), key=lambda i: -reference[i])
        held = total = 0
        for segment in its_points:
            for point in segment:
                scores = _map(attribute, point, its_target)
                for i in ranked[:k]:
                    for j in ranked[k:]:
                        held += scores[i] >= scores[j]
                        total += 1
        result.append(held / total)
    return torch.tensor(result)


def _map(attribute: Attribute, example: Tensor, target: Tensor) -> list[float]:
    alone = example.detach()[None].requires_grad_()
    scores: list[float] = attribute(alone, target=target).flatten().tolist()
    return scores
