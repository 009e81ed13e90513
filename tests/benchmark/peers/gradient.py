"""The bare gradient and the bare step: what no saliency and no attack can be cheaper than."""

import torch
from torch import Tensor, nn

__all__ = ["bare_saliency", "bare_steps"]


def bare_saliency(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """Magnitude of the gradient of the target's logit."""
    score = model(inputs).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, inputs)[0].abs()


def bare_steps(
    model: nn.Module, inputs: Tensor, target: Tensor, top: Tensor, n_steps: int
) -> Tensor:
    """Forward pass, saliency and the gradient of its gaps, as often as an attack has steps.

    Nothing moves, nothing is projected, compared or kept.
    """
    k, gradient = top.shape[1], inputs
    for _ in range(n_steps):
        point = inputs.detach().requires_grad_()
        score = model(point).gather(1, target[:, None]).sum()
        scores = torch.autograd.grad(score, point, create_graph=True)[0].abs().flatten(1)
        gaps = scores.shape[1] * scores.gather(1, top).sum(dim=1) - k * scores.sum(dim=1)
        gradient = torch.autograd.grad(gaps.sum(), point)[0]
    return gradient
