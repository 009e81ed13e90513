"""The shortest convex combination of a few gradients, for a batch of examples at once."""

import torch
from torch import Tensor, nn

__all__ = ["min_norm_weights"]


def min_norm_weights(gram: Tensor, left_out: Tensor | None = None) -> Tensor:
    r"""Weights of the shortest vector in the convex hull of m gradients.

    .. math::
        \min_\lambda \tfrac12 \Big\| \sum_q \lambda_q g_q \Big\|^2
        \quad \text{s.t.} \quad \lambda \ge 0, \; \sum_q \lambda_q = 1

    :math:`d = -\sum_q \lambda_q g_q` is the steepest common descent of the m objectives: along it
    each falls by at least :math:`\|d\|^2`, and it is zero where none can fall without another
    rising. Exact: in closed form for m = 2, else by an active set of at most m gradients, found in
    about as many exchanges; all examples exchange at once. Gradients are compared at unit length,
    so their lengths may differ by any factor within the range of ``gram``. A combination of zero
    length is found up to rounding. Where several weights give the same combination (with equal or
    linearly dependent gradients), any of them is returned.

    Source: Fliege and Svaiter 2000, "Steepest descent methods for multicriteria optimization"; the
    dual of arXiv 2212.14106, equation (7). Active set: Lawson and Hanson 1974, "Solving least
    squares problems", chapter 23.

    Args:
        gram (Tensor): inner products :math:`g_q^\top g_r`, shape (N, m, m), preferably in double
            precision; the result is as precise as the products.
        left_out (Tensor, optional): gradients with weight 0; (N, m) bool, not all of a row.

    Returns:
        - **weights** (*Tensor*): shape (N, m), NaN for examples whose products are not finite.

    Examples::

        >>> g = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
        >>> weights = min_norm_weights(g @ g.mT)
        >>> weights, weights @ g
        (tensor([[0.6400, 0.3600]]), tensor([[[1.9200, 1.4400]]]))
    """
    n_gradients = gram.shape[1]
    finite = torch.isfinite(gram).flatten(1).all(dim=1)
    eye = torch.eye(n_gradients).to(gram)
    gram = torch.where(finite[:, None, None], gram, eye)
    if left_out is not None:  # a gradient orthogonal to all others does not change their ratios
        alone = left_out[:, :, None] | left_out[:, None, :]
        longest = gram.diagonal(dim1=1, dim2=2).amax(dim=1)[:, None, None]
        gram = torch.where(alone, longest * eye, gram)
    weights = _of_two(gram) if n_gradients == 2 else _of_many(gram)
    if left_out is not None:
        weights = weights.masked_fill(left_out, 0)
        weights = weights / weights.sum(dim=1, keepdim=True)
    return weights.masked_fill(~finite[:, None], float("nan"))


def _of_two(gram: Tensor) -> Tensor:
    r"""Point of a segment nearest to zero: :math:`\lambda_1 \propto (g_2 - g_1)^\top g_2`."""
    across = (gram[:, 0, 1] + gram[:, 1, 0]) / 2
    shares = torch.stack([gram[:, 1, 1] - across, gram[:, 0, 0] - across], dim=1).clamp_min(0)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shares / total, 0.5)


def _of_many(gram: Tensor) -> Tensor:
    r"""Active-set solution of :math:`\min_{z \ge 0} \tfrac12 z^\top C z - a^\top z`.

    C holds the cosines and a the inverse lengths; :math:`\lambda \propto a z`. A shift by the
    rounding of C makes the problem strictly convex, and bounded where the shortest combination is
    zero.
    """
    m = gram.shape[1]
    eye = torch.eye(m).to(gram)
    lengths = gram.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
    standing = lengths == 0
    lengths = lengths.masked_fill(standing, float("inf"))
    shift = 64 * m * torch.finfo(gram.dtype).eps
    cosines = gram / lengths[:, :, None] / lengths[:, None, :]
    matrix = cosines * (1 - eye) + (1 + shift) * eye
    inverse = lengths.amin(dim=1, keepdim=True) / lengths

    z, chosen = torch.zeros_like(inverse), torch.zeros_like(standing)
    searching = ~standing.any(dim=1)
    for _ in range(10 * m):
        target = _solved(matrix, inverse, chosen)
        blocked = chosen & (target <= 0)
        # Move towards the solution until a weight is zero, and remove its gradient.
        reach = torch.where(z > 0, z / (z - target), 0).masked_fill(~blocked, 1)
        way = reach.amin(dim=1, keepdim=True)
        moved = torch.lerp(z, target, way)
        leaves = blocked & (reach == way)
        # At the solution, add the gradient that would still shorten the sum most.
        slack = inverse - (matrix @ target[:, :, None])[:, :, 0]
        slack = slack.masked_fill(chosen, float("-inf"))
        gain, entering = slack.max(dim=1)
        solved = ~blocked.any(dim=1)
        enters = solved & (gain > 2 * shift * target.amax(dim=1))
        z = torch.where(searching[:, None], moved.masked_fill(leaves, 0).clamp_min(0), z)
        searching = searching & ~(solved & ~enters)
        if not bool(searching.any()):
            break
        chosen = chosen & ~leaves
        chosen |= nn.functional.one_hot(entering, m).bool() & (enters & searching)[:, None]
    shares = torch.where(standing.any(dim=1, keepdim=True), standing.to(z), inverse * z)
    return shares / shares.sum(dim=1, keepdim=True)


def _solved(matrix: Tensor, values: Tensor, chosen: Tensor) -> Tensor:
    """Return the solution of the equations of the chosen unknowns; zero for all others."""
    both = chosen[:, :, None] & chosen[:, None, :]
    part = torch.where(both, matrix, torch.eye(matrix.shape[1]).to(matrix))
    solution: Tensor = torch.linalg.solve_ex(part, (values * chosen)[:, :, None])[0]
    return solution[:, :, 0]
