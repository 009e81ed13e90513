"""Bounds of the ranking thickness from the gaps and the Hessian at the example."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.batch import feature_mask_of_examples
from captum_robust._utils.captum import Inputs, TargetType, as_tuple
from captum_robust._utils.random import example_generators, resolve_seed, seeded
from captum_robust._utils.state import left_as_found
from captum_robust.curvature import hessian_operator, joined, parted
from captum_robust.metrics._score_gradient import ScoreGradient
from captum_robust.metrics._scores import nan_where
from captum_robust.noise import UniformNoise, check_radius
from captum_robust.ranking import check_k, flatten_attributions, invalid_rows, top_k_mask

__all__ = ["pairwise_thickness_bounds", "thickness_bounds"]


def thickness_bounds(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    k: int,
    radius: float,
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

    What they are not: the lower bound is of the first order. It takes the Hessian and the signs of
    the derivatives at the example for those of the whole ball, and can fail where they change in
    it; it is no certificate. The upper bound holds with half of its :math:`\epsilon` term and is
    loose by that factor of 2; but :math:`L_i` is the largest slope at the example and n_samples
    points of the ball, a lower estimate of the maximum. Both collapse to the gap where the Hessian
    vanishes, as it does in networks of ReLUs almost everywhere, whose explanations change at kinks
    that no bound here can see: call the metric inside :class:`~captum_robust.attr.smooth_relu`.

    Source: arXiv 2212.14106, equations (4) and (20), divided by k(n−k). Cost: one gradient and n
    Hessian-vector products for each example and each of its n_samples points.

    Args:
        forward_func (Callable): the model, or any function of the inputs. The explained score is
            its output as it is.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0. The
            features of a tuple are ranked jointly and share one ball.
        k (int): size of the top set, 1 <= k < n, the number of features or groups.
        radius (float): radius :math:`\epsilon` of the Euclidean ball, in units of the inputs.
        target (int, tuple, Tensor or list, optional): the output that is explained, as in Captum.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        n_samples (int, optional): points of the ball at which :math:`L_i` is estimated. Default:
            10.
        absolute (bool, optional): rank the magnitude of the gradient, as
            :class:`captum.attr.Saliency` does. Default: True.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            scores are summed first, as in Captum; groups are ranked.
        max_examples_per_batch (int, optional): rows evaluated at once; never changes the result
            but by rounding. Default: about 30 MB of graphs or Hessians.
        seed (int, optional): seed of the points. None: fresh entropy. Those of an example depend
            on its own values and the seed only.

    Returns:
        - **lower**, **upper** (*Tensor*): shape (N,) each, in units of the gradient. NaN where the
          gradient at the example is not finite or has no ranking, and where a gradient or Hessian
          at a sampled point is not finite.

    Raises:
        ValueError: for arguments outside their ranges, for a target that does not select one output
            an example, and where an output depends on other examples, as behind batch normalisation
            in training mode.

    Examples::

        >>> def quadratic(x):                      # gradient (3, 0) + x, Hessian the identity
        ...     return 3 * x[:, 0] + x.square().sum(dim=1) / 2
        >>> x = torch.tensor([[1.0, 2.0]])         # h = 4 − 2; ‖(1, 0) − (0, 1)‖ = √2; L = 1
        >>> thickness_bounds(quadratic, x, k=1, radius=0.1)
        (tensor([1.9293]), tensor([2.2000]))
    """

    def bounds(near: _Neighbourhood) -> tuple[Tensor, Tensor]:
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
        return gap - radius / 2 * fall, gap + radius * rise

    return _over_chunks(
        bounds, forward_func, inputs, radius, target, additional_forward_args, n_samples, absolute,
        feature_mask, max_examples_per_batch, seed,
    )  # fmt: skip


def pairwise_thickness_bounds(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    pairs: Tensor,
    radius: float,
    target: TargetType = None,
    additional_forward_args: Any = None,
    n_samples: int = 10,
    absolute: bool = True,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Lower and upper bound of the relaxed thickness of given pairs of features.

    Those of :func:`thickness_bounds`, which says what they are worth, before the average over the
    pairs; for :func:`pairwise_ranking_thickness` with ``surrogate="margin"``. Source: arXiv
    2212.14106, equation (4). Arguments as in :func:`thickness_bounds`, but:

    Args:
        forward_func (Callable): the model, or any function of the inputs.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
        pairs (Tensor): indices (i, j) of flattened features or groups; shape (P, 2) for all
            examples or (N, P, 2).
        radius (float): radius of the Euclidean ball, in units of the inputs.
        target (int, tuple, Tensor or list, optional): the output that is explained, as in Captum.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        n_samples (int, optional): points of the ball at which the slopes are compared. Default: 10.
        absolute (bool, optional): rank the magnitude of the gradient. Default: True.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): rows evaluated at once.
        seed (int, optional): seed of the points. None: fresh entropy.

    Returns:
        - **lower**, **upper** (*Tensor*): shape (N, P) each, NaN for the examples that have no
          ranking.

    Raises:
        ValueError: for arguments outside their ranges, for a target that does not select one output
            an example, and where an output depends on other examples, as behind batch normalisation
            in training mode.

    Examples::

        >>> def quadratic(x):                      # gradient (3, 0) + x, Hessian the identity
        ...     return 3 * x[:, 0] + x.square().sum(dim=1) / 2
        >>> x, pairs = torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 1], [1, 0]])
        >>> lower, upper = pairwise_thickness_bounds(quadratic, x, pairs, radius=0.1)
        >>> lower, upper
        (tensor([[ 1.9293, -2.0707]]), tensor([[ 2.2000, -1.8000]]))
    """
    n_examples = len(as_tuple(inputs)[0])
    pairs = torch.as_tensor(pairs)
    if pairs.is_floating_point():
        raise ValueError(f"pairs must hold integers, got {pairs.dtype}")
    fits = pairs.dim() in (2, 3) and pairs.shape[-1] == 2
    if not fits or (pairs.dim() == 3 and len(pairs) != n_examples):
        raise ValueError(
            f"pairs must have shape (P, 2) or ({n_examples}, P, 2), got {tuple(pairs.shape)}"
        )
    pairs = pairs.expand(n_examples, *pairs.shape[-2:])

    def bounds(near: _Neighbourhood) -> tuple[Tensor, Tensor]:
        own = pairs[near.rows].to(near.scores.device)
        n_features = near.scores.shape[1]
        if own.numel() and not 0 <= int(own.min()) <= int(own.max()) < n_features:
            raise ValueError(
                f"pairs must hold indices in 0 … {n_features - 1}, got "
                f"{int(own.min())} … {int(own.max())}"
            )
        at = torch.arange(len(own), device=own.device)[:, None]
        i, j = own.unbind(dim=2)
        gap = near.scores[at, i].double() - near.scores[at, j].double()
        slope = (near.slopes[at, i] - near.slopes[at, j]).norm(dim=2)
        fall = slope + near.kinks[at, j]
        rise = near.lipschitz[at, i] + near.lipschitz[at, j]
        return gap - radius / 2 * fall, gap + radius * rise

    return _over_chunks(
        bounds, forward_func, inputs, radius, target, additional_forward_args, n_samples, absolute,
        feature_mask, max_examples_per_batch, seed,
    )  # fmt: skip


class _Neighbourhood(NamedTuple):
    """The scores of some examples and how they change around them."""

    rows: Tensor  # the examples in the batch, (E,)
    scores: Tensor  # (E, n)
    slopes: Tensor  # gradient of each score by the m joined inputs, (E, n, m)
    kinks: Tensor  # how fast each score can rise besides, see _kinks; (E, n)
    lipschitz: Tensor  # largest slope of each score in the ball, (E, n)
    broken: Tensor  # which examples have no ranking, (E,)


def _split(values: Tensor, top: Tensor) -> tuple[Tensor, Tensor]:
    """Values (E, n, ...) of the k top features and of the others: (E, k, ...), (E, n − k, ...)."""
    n_examples, _, *shape = values.shape
    inside, outside = values[top], values[~top]
    return inside.view(n_examples, -1, *shape), outside.view(n_examples, -1, *shape)


def _over_chunks(
    bounds: Callable[[_Neighbourhood], tuple[Tensor, Tensor]],
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    radius: float,
    target: TargetType,
    additional_forward_args: Any,
    n_samples: int,
    absolute: bool,
    feature_mask: Inputs | None,
    max_examples_per_batch: int | None,
    seed: int | None,
) -> tuple[Tensor, Tensor]:
    """The bounds of all examples, NaN for those that have no ranking."""
    check_radius(radius)
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    seed = resolve_seed(seed)
    gradient = ScoreGradient(
        forward_func, inputs, target, additional_forward_args, max_examples_per_batch, seed
    )
    lower: list[Tensor] = []
    upper: list[Tensor] = []
    with left_as_found(forward_func), seeded(seed), torch.no_grad():
        for rows, centre in gradient.chunks():
            n_dims = [x.dim() for x in gradient.inputs]
            mask = feature_mask_of_examples(feature_mask, rows, gradient.n_examples, n_dims)
            near = _explore(gradient, centre, rows, radius, n_samples, absolute, mask)
            for bound, found in zip((lower, upper), bounds(near), strict=True):
                bound.append(nan_where(near.broken, found).to(near.scores.dtype))
    return torch.cat(lower), torch.cat(upper)


def _explore(
    gradient: ScoreGradient,
    centre: tuple[Tensor, ...],
    rows: Tensor,
    radius: float,
    n_samples: int,
    absolute: bool,
    feature_mask: Inputs | None,
) -> _Neighbourhood:
    """Look at the examples ``rows`` and at points drawn uniformly from the balls around them."""
    scores, slopes, kinks = _scores_at(gradient, centre, rows, absolute, feature_mask)
    lipschitz = slopes.norm(dim=2) + kinks
    flat = joined(centre)
    broken = invalid_rows(scores) | ~flat.isfinite().all(dim=1)
    generators = example_generators(centre, gradient.seed)
    directions = torch.stack(
        [
            UniformNoise("L2").directions(n_samples, row, generator)
            for row, generator in zip(flat, generators, strict=True)
        ]
    )
    for direction in directions.to(flat).unbind(dim=1):
        points = parted(flat + radius * direction, centre)
        there, slope, kink = _scores_at(gradient, points, rows, absolute, feature_mask)
        lipschitz = torch.maximum(lipschitz, slope.norm(dim=2) + kink)
        broken = broken | ~there.isfinite().all(dim=1)
    broken = broken | ~lipschitz.isfinite().all(dim=1)
    return _Neighbourhood(rows, scores, slopes, kinks, lipschitz, broken)


def _scores_at(
    gradient: ScoreGradient,
    points: tuple[Tensor, ...],
    rows: Tensor,
    absolute: bool,
    feature_mask: Inputs | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, slopes and kinks at some points."""
    leaves, gradients = gradient.at(points, rows)
    with torch.enable_grad():
        scores = flatten_attributions(gradients, feature_mask, absolute)
        totals = scores.sum(dim=0).unbind()
    slopes = torch.stack([_slope(total, leaves) for total in totals], dim=1)
    wide = scores.detach().to(slopes)
    kinks = _kinks(leaves, gradients, feature_mask) if absolute else torch.zeros_like(wide)
    return wide, slopes, kinks.to(wide)


def _slope(total: Tensor, leaves: tuple[Tensor, ...]) -> Tensor:
    """Gradient (E, m) of a score of each example, given their sum."""
    if not total.requires_grad:
        return torch.zeros_like(joined(leaves))
    found = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
    parts = zip(leaves, found, strict=True)
    return joined(tuple(torch.zeros_like(x) if g is None else g for x, g in parts))


def _kinks(
    leaves: tuple[Tensor, ...], gradients: tuple[Tensor, ...], feature_mask: Inputs | None
) -> Tensor:
    """How fast the magnitudes of derivatives that are zero can rise, whichever way x moves; (E, n).

    Their slope as autograd sees it is zero.
    """
    flat = joined(gradients)
    zero = flat == 0
    rates = torch.zeros_like(flat)
    product = hessian_operator(leaves, gradients)
    for feature in zero.any(dim=0).nonzero().flatten().tolist():
        unit = torch.zeros_like(flat)
        unit[:, feature] = 1
        rates[:, feature] = product(unit).norm(dim=1)
    return flatten_attributions(parted(rates.where(zero, 0), gradients), feature_mask)
