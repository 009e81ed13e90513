"""Bounds of the ranking thickness from the gaps and the Hessian at the example."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.batch import feature_mask_of_examples
from captum_robust._utils.captum import Inputs, TargetType, as_tuple
from captum_robust._utils.checks import check_count, one_each
from captum_robust._utils.random import resolve_seed
from captum_robust.metrics._pairs import check_pair_range, expanded_pairs
from captum_robust.metrics._score_gradient import ScoreGradient
from captum_robust.metrics._scores import nan_where
from captum_robust.metrics._slopes import ScoreSlopes, slopes_around
from captum_robust.ranking import check_k, top_k_mask

__all__ = ["pairwise_thickness_bounds", "thickness_bounds"]


def thickness_bounds(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    k: int,
    radius: float | Tensor,
    target: TargetType = None,
    additional_forward_args: Any = None,
    n_samples: int = 10,
    absolute: bool = True,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Lower and upper bound of the :term:`relaxed thickness` of a gradient explanation.

    .. math::
        h - \frac{\epsilon}{2} \| \nabla I_i - \nabla I_j \|_2 \;\le\;
        E_{x'} \int_0^1 h(x(t), i, j)\, dt \;\le\; h + \epsilon\, (L_i + L_j), \qquad
        L_i = \max_{\|x' - x\|_2 \le \epsilon} \| \nabla I_i(x') \|_2

    averaged over the k(n−k) pairs of a top feature i and a lower feature j, with the gap
    :math:`h = I_i(x) - I_j(x)`: the normalisation of :func:`ranking_thickness` with
    ``surrogate="margin"``, for any neighbours x' in the Euclidean ball. (The :math:`L_\infty` ball
    of radius r lies in that of radius :math:`r \sqrt{n}`.) The scores are the gradient of the
    explained output, or its magnitude; their slopes :math:`\nabla I_i` are the rows of the Hessian,
    with the sign of the i-th derivative for the magnitude.

    Limits. The lower bound is of the first order: it uses the Hessian and the signs of the
    derivatives at the example for the whole ball, and can fail where they change within the ball,
    so that it is no certificate. The upper bound is valid even with half of its :math:`\epsilon`
    term, but :math:`L_i` is the largest slope at the example and at n_samples points of the ball,
    and the maximum over the ball may be larger. Both bounds equal the gap where the Hessian is
    zero. In networks of ReLUs it is zero almost everywhere, and their explanations change at kinks
    that the bounds do not see: call the metric inside :class:`~captum_robust.attr.smooth_relu`.

    Source: arXiv 2212.14106, equations (4) and (20), divided by k(n−k). Cost: one gradient and n
    Hessian-vector products for each example and each of its n_samples points.

    Args:
        forward_func (Callable): the model, or any function of the inputs. The explained score is
            its output as it is.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0. The
            features of a tuple are ranked jointly, in one ball over all tensors.
        k (int): size of the top set, 1 <= k < n, the number of features or groups.
        radius (float or Tensor): radius :math:`\epsilon` of the Euclidean ball, in units of the
            inputs; one for all examples or one per example, shape (N,).
        target (int, tuple, Tensor or list, optional): the output that is explained, as in Captum.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        n_samples (int, optional): points of the ball at which :math:`L_i` is estimated. Default:
            10.
        absolute (bool, optional): rank the magnitude of the gradient, as
            :class:`captum.attr.Saliency` does. Default: True.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            scores are summed first, as in Captum; groups are ranked.
        max_examples_per_batch (int, optional): number of examples evaluated at once; changes the
            result by rounding at most. Default: about 30 MB of graphs or Hessians.
        seed (int, optional): seed of the points. None: fresh entropy. Those of an example depend
            on its own values and the seed only.

    Returns:
        - **lower**, **upper** (*Tensor*): shape (N,) each, in units of the gradient. NaN where the
          gradient at the example is not finite or all its entries are equal, and where a gradient
          or Hessian at a sampled point is not finite.

    Raises:
        ValueError: for arguments outside their ranges, for a target that does not select one output
            per example, and where an output depends on other examples, as with batch normalisation
            in training mode; and for an input tensor that the model does not use.
        NotDifferentiableError: if the output has no gradient by the inputs, as in a part under
            ``torch.no_grad()``, or the gradient no derivative of its own.

    Examples::

        >>> def quadratic(x):                      # gradient (3, 0) + x, Hessian the identity
        ...     return 3 * x[:, 0] + x.square().sum(dim=1) / 2
        >>> x = torch.tensor([[1.0, 2.0]])         # h = 4 − 2; ‖(1, 0) − (0, 1)‖ = √2; L = 1
        >>> thickness_bounds(quadratic, x, k=1, radius=0.1)
        (tensor([1.9293]), tensor([2.2000]))
    """

    def bounds(near: ScoreSlopes) -> tuple[Tensor, Tensor]:
        check_k(k, near.scores.shape[1])
        top = top_k_mask(near.scores.where(~near.broken[:, None], 0), k)
        score_i, score_j = _split(near.scores.double(), top)
        slope_i, slope_j = _split(near.slopes, top)
        _, kink_j = _split(near.kinks, top)
        lipschitz_i, lipschitz_j = _split(near.lipschitz, top)
        gap = score_i.mean(dim=1) - score_j.mean(dim=1)
        # The default mode would subtract squares, and lose the differences of similar slopes.
        slope = torch.cdist(slope_i, slope_j, compute_mode="donot_use_mm_for_euclid_dist")
        fall = slope.mean(dim=(1, 2)) + kink_j.mean(dim=1)
        rise = lipschitz_i.mean(dim=1) + lipschitz_j.mean(dim=1)
        return gap - near.radius / 2 * fall, gap + near.radius * rise

    return _over_chunks(
        bounds, forward_func, inputs, radius, target, additional_forward_args, n_samples, absolute,
        feature_mask, max_examples_per_batch, seed,
    )  # fmt: skip


def pairwise_thickness_bounds(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    pairs: Tensor,
    radius: float | Tensor,
    target: TargetType = None,
    additional_forward_args: Any = None,
    n_samples: int = 10,
    absolute: bool = True,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Lower and upper bound of the relaxed thickness of given pairs of features.

    They bound :func:`pairwise_ranking_thickness` with ``surrogate="margin"``, as
    :func:`thickness_bounds` does for the average over the pairs, with the limits named there.
    Source: arXiv 2212.14106, equation (4). Arguments as in :func:`thickness_bounds`, but:

    Args:
        forward_func (Callable): the model, or any function of the inputs.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
        pairs (Tensor): indices (i, j) of flattened features or groups; shape (P, 2) for all
            examples or (N, P, 2).
        radius (float or Tensor): radius of the Euclidean ball, in units of the inputs; one or one
            per example, (N,).
        target (int, tuple, Tensor or list, optional): the output that is explained, as in Captum.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        n_samples (int, optional): points of the ball at which the slopes are compared. Default: 10.
        absolute (bool, optional): rank the magnitude of the gradient. Default: True.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): number of examples evaluated at once.
        seed (int, optional): seed of the points. None: fresh entropy.

    Returns:
        - **lower**, **upper** (*Tensor*): shape (N, P) each. NaN as in :func:`thickness_bounds`.

    Raises:
        ValueError: for arguments outside their ranges, for a target that does not select one output
            per example, and where an output depends on other examples, as with batch normalisation
            in training mode; and for an input tensor that the model does not use.
        NotDifferentiableError: if the output has no gradient by the inputs, as in a part under
            ``torch.no_grad()``, or the gradient no derivative of its own.

    Examples::

        >>> def quadratic(x):                      # gradient (3, 0) + x, Hessian the identity
        ...     return 3 * x[:, 0] + x.square().sum(dim=1) / 2
        >>> x, pairs = torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 1], [1, 0]])
        >>> lower, upper = pairwise_thickness_bounds(quadratic, x, pairs, radius=0.1)
        >>> lower, upper
        (tensor([[ 1.9293, -2.0707]]), tensor([[ 2.2000, -1.8000]]))
    """
    pairs = expanded_pairs(pairs, len(as_tuple(inputs)[0]))

    def bounds(near: ScoreSlopes) -> tuple[Tensor, Tensor]:
        own = pairs[near.rows].to(near.scores.device)
        check_pair_range(own, near.scores.shape[1])
        at = torch.arange(len(own), device=own.device)[:, None]
        i, j = own.unbind(dim=2)
        gap = near.scores[at, i].double() - near.scores[at, j].double()
        slope = (near.slopes[at, i] - near.slopes[at, j]).norm(dim=2)
        fall = slope + near.kinks[at, j]
        rise = near.lipschitz[at, i] + near.lipschitz[at, j]
        radii = near.radius[:, None]
        return gap - radii / 2 * fall, gap + radii * rise

    return _over_chunks(
        bounds, forward_func, inputs, radius, target, additional_forward_args, n_samples, absolute,
        feature_mask, max_examples_per_batch, seed,
    )  # fmt: skip


def _split(values: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Values (E, n, ...) of the k top features and of the others: (E, k, ...), (E, n − k, ...)."""
    n_examples, _, *shape = values.shape
    inside, outside = values[top], values[~top]
    return inside.view(n_examples, -1, *shape), outside.view(n_examples, -1, *shape)


def _over_chunks(
    bounds: Callable[[ScoreSlopes], tuple[Tensor, Tensor]],
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    radius: float | Tensor,
    target: TargetType,
    additional_forward_args: Any,
    n_samples: int,
    absolute: bool,
    feature_mask: Inputs | None,
    max_examples_per_batch: int | None,
    seed: int | None,
) -> tuple[Tensor, Tensor]:
    """Return the bounds of all examples, chunk by chunk; NaN for broken ones."""
    check_count("n_samples", n_samples, 1)
    seed = resolve_seed(seed)
    gradient = ScoreGradient(
        forward_func, inputs, target, additional_forward_args, max_examples_per_batch, seed
    )
    wide = torch.empty(0, dtype=torch.float64, device=gradient.inputs[0].device)
    radii = one_each("radius", radius, gradient.n_examples, wide)
    lower: list[Tensor] = []
    upper: list[Tensor] = []
    with gradient.evaluation():
        for rows, centre in gradient.chunks():
            n_dims = [x.dim() for x in gradient.inputs]
            mask = feature_mask_of_examples(feature_mask, rows, gradient.n_examples, n_dims)
            near = slopes_around(gradient, centre, rows, radii[rows], n_samples, absolute, mask)
            for bound, found in zip((lower, upper), bounds(near), strict=True):
                bound.append(nan_where(near.broken, found).to(near.scores.dtype))
    return torch.cat(lower), torch.cat(upper)
