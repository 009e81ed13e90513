"""The input Hessian of the explained score: norms of it, one value an example.

Every function takes ``gradient_at``, which maps inputs to the gradient of the score with its graph,
and works on tuples of inputs, whose features are joined.
"""

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
    return tuple(s / length.view(-1, *(1,) * (s.dim() - 1)) for s in signs)


def joint_norm(tensors: Tensors) -> Tensor:
    """Euclidean norm of each example over all tensors; (N,)."""
    flat = torch.cat([t.reshape(len(t), -1) for t in tensors], dim=1)
    # norm() of a zero row has no derivative; its subgradient 0 is what a penalty wants.
    squares = flat.square().sum(dim=1)
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
        gradient_at: the gradient of the score, with its graph.
        inputs: x.
        gradients: the gradient at x, with its graph.
        kappa: length :math:`\kappa > 0` of the step, in units of the inputs.
    """
    moved = tuple(
        x.detach() + kappa * v for x, v in zip(inputs, sign_direction(gradients), strict=True)
    )
    ahead = gradient_at(moved)
    change = joint_norm(tuple(a - g for a, g in zip(ahead, gradients, strict=True)))
    return change / kappa


def hessian_vector_norm(inputs: Tensors, gradients: Tensors) -> Tensor:
    r"""Exact :math:`\|H v\|_2` along :func:`sign_direction`; (N,). One more backward."""
    return joint_norm(_hessian_product(inputs, gradients, sign_direction(gradients)))


def exact_norm(inputs: Tensors, gradients: Tensors) -> Tensor:
    r"""Exact Frobenius norm :math:`\|H\|_F`; (N,). One backward for each of the n features."""
    squares = torch.zeros(len(inputs[0]), dtype=gradients[0].dtype, device=gradients[0].device)
    for number, gradient in enumerate(gradients):
        for feature in range(gradient[0].numel()):
            vectors = [torch.zeros_like(g) for g in gradients]
            vectors[number].view(len(gradient), -1)[:, feature] = 1
            row = _hessian_product(inputs, gradients, tuple(vectors))
            squares = squares + sum(r.square().flatten(1).sum(dim=1) for r in row)
    positive = squares > 0
    return torch.where(positive, squares.where(positive, 1).sqrt(), 0)


def _hessian_product(inputs: Tensors, gradients: Tensors, vectors: Tensors) -> Tensors:
    attached = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    if not attached:
        return tuple(torch.zeros_like(x) for x in inputs)
    outputs, directions = zip(*attached, strict=True)
    rows = torch.autograd.grad(outputs, inputs, directions, create_graph=True, allow_unused=True)
    return tuple(torch.zeros_like(x) if r is None else r for x, r in zip(inputs, rows, strict=True))
