"""R2ET in the style of the papers' code: every term takes its own passes, six forwards a step."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.benchmark.peers.ranking import anchor_pairs

__all__ = ["separate_passes"]


def separate_passes(
    model: nn.Module,
    inputs: Tensor,
    target: Tensor,
    k: int,
    lambda1: float,
    lambda2: float,
    kappa: float,
) -> Tensor:
    """Cross-entropy, minus the anchor gaps, plus the estimated Hessian norm."""
    order = _gradient(model, inputs, target).abs().flatten(1).argsort(dim=1, descending=True)
    base = F.cross_entropy(model(inputs), target)
    scores = _gradient(model, inputs, target, graph=True).abs().flatten(1)
    gaps = _anchor_gaps(scores, order, k).mean()
    curvature = _hessian_norm(model, inputs, target, kappa).mean()
    return base - lambda1 * gaps + lambda2 * curvature


def _gradient(model: nn.Module, inputs: Tensor, target: Tensor, graph: bool = False) -> Tensor:
    """Gradient of the probability of the target."""
    leaves = inputs.detach().requires_grad_()
    score = model(leaves).softmax(dim=1).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, leaves, create_graph=graph)[0]


def _anchor_gaps(scores: Tensor, order: Tensor, k: int) -> Tensor:
    """Sum of the gaps of the k-th feature with the others around it, pair by pair; (N,)."""
    rows = torch.arange(len(scores), device=scores.device)
    gaps = [scores[rows, order[:, i]] - scores[rows, order[:, j]] for i, j in anchor_pairs(k)]
    return torch.stack(gaps).sum(dim=0)


def _hessian_norm(model: nn.Module, inputs: Tensor, target: Tensor, kappa: float) -> Tensor:
    """Finite difference of two gradients along the sign of a third; (N,)."""
    signs = _gradient(model, inputs, target).sign().flatten(1)
    direction = (signs / signs.norm(dim=1, keepdim=True)).view_as(inputs)
    here = _gradient(model, inputs, target, graph=True)
    ahead = _gradient(model, inputs + kappa * direction, target, graph=True)
    norms: Tensor = (ahead - here).flatten(1).norm(dim=1)
    return norms / kappa
