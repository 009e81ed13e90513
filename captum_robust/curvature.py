"""The input Hessian of the explained score: norms of it, one value an example.

Every function works on tuples of inputs, whose features are joined, and takes the gradient of the
score with its graph.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "exact_norm",
    "finite_difference_norm",
    "hessian_vector_norm",
    "sign_direction",
]

Tensors = tuple[Tensor, ...]


def sign_direction(gradients: Tensors) -> Tensors:
    r"""The direction :math:`v = sign(\nabla f) / \|sign(\nabla f)\|_2` of each example, detached.

    Moosavi-Dezfooli et al. 2019 (arXiv 1811.09716): curvature is high along the gradient's signs.
    Zero where the gradient is zero.

        >>> sign_direction((torch.tensor([[3.0, -4.0, 0.0, 1.0, -1.0]]),))
        (tensor([[ 0.5000, -0.5000,  0.0000,  0.5000, -0.5000]]),)
    """
    signs = tuple(g.detach().sign() for g in gradients)
    length = joint_norm(signs).clamp_min(1)
    return tuple((s / length.view(-1, *(1,) * (s.dim() - 1))).to(s) for s in signs)


def joint_norm(tensors: Tensors) -> Tensor:
    """Euclidean norm of each example over all tensors; (N,), float32 for half precision."""
    flat = torch.cat([t.reshape(t.shape[0], math.prod(t.shape[1:])) for t in tensors], dim=1)
    # The squares of small gradients vanish in float16.
    squares = flat.to(torch.promote_types(flat.dtype, torch.float32)).square().sum(dim=1)
    # norm() of a zero row has no derivative; its subgradient 0 is what a penalty wants.
    positive = squares > 0
    return torch.where(positive, squares.where(positive, 1).sqrt(), 0)


def finite_difference_norm(
    gradient_at: Callable[[Tensors], Tensors], inputs: Tensors, gradients: Tensors, kappa: float
) -> Tensor:
    r"""Estimate :math:`\|\nabla f(x + \kappa v) - \nabla f(x)\|_2 / \kappa`; (N,).

    Along :func:`sign_direction`; one more forward and backward. Source: arXiv 2212.14106, section
    4. On a piecewise linear network it sees the kinks within :math:`\kappa`, where the Hessian
    itself is zero.

    Args:
        gradient_at: maps inputs to the gradient of the score, with its graph.
        inputs: x; a graph behind it is kept.
        gradients: the gradient at x, with its graph.
        kappa: length :math:`\kappa > 0` of the step, in units of the inputs.
    """
    moved = tuple(x + kappa * v for x, v in zip(inputs, sign_direction(gradients), strict=True))
    ahead = gradient_at(moved)
    change = joint_norm(tuple(a - g for a, g in zip(ahead, gradients, strict=True)))
    return change / kappa


def hessian_vector_norm(inputs: Tensors, gradients: Tensors) -> Tensor:
    r"""Exact :math:`\|H v\|_2` along :func:`sign_direction`; (N,). One more backward."""
    return joint_norm(_hessian_product(inputs, gradients, sign_direction(gradients)))


def exact_norm(inputs: Tensors, gradients: Tensors) -> Tensor:
    r"""Exact Frobenius norm :math:`\|H\|_F`; (N,). One backward for each of the n features."""
    sizes = [math.prod(g.shape[1:]) for g in gradients]
    rows: Tensors = ()
    for feature in torch.eye(sum(sizes), dtype=gradients[0].dtype, device=gradients[0].device):
        unit = tuple(
            part.to(g).view(1, *g.shape[1:]).expand_as(g)
            for part, g in zip(feature.split(sizes), gradients, strict=True)
        )
        rows += _hessian_product(inputs, gradients, unit)
    return joint_norm(rows)


def _hessian_product(inputs: Tensors, gradients: Tensors, vectors: Tensors) -> Tensors:
    attached = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    if not attached:
        return tuple(torch.zeros_like(x) for x in inputs)
    outputs, directions = zip(*attached, strict=True)
    rows = torch.autograd.grad(outputs, inputs, directions, create_graph=True, allow_unused=True)
    return tuple(torch.zeros_like(x) if r is None else r for x, r in zip(inputs, rows, strict=True))
