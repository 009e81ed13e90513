"""The bare gradient: what no saliency can be cheaper than."""

import torch
from torch import Tensor, nn

__all__ = ["bare_saliency"]


def bare_saliency(model: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """Magnitude of the gradient of the target's logit."""
    score = model(inputs).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, inputs)[0].abs()
