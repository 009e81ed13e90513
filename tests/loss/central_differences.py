"""Gradients of a loss beside central differences, entry by entry, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def gradient_error(
    loss: Callable[[], Tensor], parameters: Iterable[Tensor], step: float = 1e-5
) -> float:
    """Largest error of an entry of the gradient, relative to the largest entry of each tensor."""
    parameters = list(parameters)
    torch.manual_seed(0)
    gradients = torch.autograd.grad(loss(), parameters)
    worst = 0.0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        entries, expected = parameter.data.view(-1), []
        for i in range(len(entries)):
            middle = entries[i].item()
            ends = []
            for moved in (middle + step, middle - step):
                entries[i] = moved
                torch.manual_seed(0)
                ends.append(loss().item())
            entries[i] = middle
            expected.append((ends[0] - ends[1]) / (2 * step))
        differences = torch.tensor(expected, dtype=torch.float64)
        size = differences.abs().max()
        assert size > 1e-6, "the loss does not depend on a parameter: nothing was checked"
        worst = max(worst, ((gradient.flatten() - differences).abs().max() / size).item())
    return worst
