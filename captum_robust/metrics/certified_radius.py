"""Radius within which the top-k set of a gradient saliency provably stays."""

import math

import torch
from torch import Tensor, nn

from captum_robust._utils.captum import TargetType
from captum_robust._utils.checks import check_norm, one_number
from captum_robust._utils.movement import check_moved
from captum_robust._utils.rounding import rows_that_stay
from captum_robust.certify.affine import Affine
from captum_robust.certify.gradient import gradient_at, gradient_over_ball
from captum_robust.certify.network import Network, read_network
from captum_robust.metrics._scores import nan_where
from captum_robust.noise import Norm
from captum_robust.ranking import check_k, invalid_rows, top_k_mask

__all__ = ["certified_top_k_radius"]

_HALVINGS = 30
_BYTES_AT_ONCE = 30_000_000


def certified_top_k_radius(
    model: nn.Module,
    inputs: Tensor,
    k: int,
    target: TargetType = None,
    norm: Norm = "Linf",
    max_radius: float = 1.0,
    absolute: bool = True,
) -> Tensor:
    r"""Radius within which the top-k set of the saliency provably does not change.

    .. math::
        r(x) \le \sup \{\, r : top_k(|\nabla f(x + \delta)|) = top_k(|\nabla f(x)|)
        \;\; \forall\, \|\delta\| \le r \,\}

    The result is proven, not estimated: no attack within the radius, however strong, changes the
    set. Beyond the radius the set may or may not change. Higher is more stable; in units of the
    inputs.

    Affine forms enclose the gradient over the ball (DeepZ, Singh et al. 2018, carried through the
    chain rule), and the gap of every pair of a top feature i and another j is bounded jointly,

    .. math::
        \min_{\|\delta\| \le r} \; \mathrm{sign}(\partial_i f(x)) \, \partial_i f(x + \delta)
        - |\partial_j f(x + \delta)| > 0,

    which is lossless for one hidden layer up to the lines that enclose :math:`\sigma'`: the bound
    is exact to first order in r. The largest r that passes is found by bisection, down to
    :math:`2^{-30}` of ``max_radius``.

    The statement is about the saliency as float64 evaluates it, in any order of summation, at every
    float64 point of the ball: all rounding, of the network and of the proof, is accounted for
    (:mod:`captum_robust.certify.affine`). Models and inputs in float32, say, are widened first,
    exactly; the proof does not cover their saliency as float32 evaluates it, which differs by
    rounding. The ball is not cut to valid inputs, and the prediction may change in it.

    The logit is explained. A Sigmoid at the end of the network is left out: it multiplies the
    saliency by a positive factor, which changes no ranking unless the factor is rounded to zero, as
    for logits above 37. The saliency of a softmax over several logits is not covered.

    Args:
        model (nn.Module): ``nn.Sequential``, nested or not, or
            :class:`~captum_robust.models.TabularMLP`, made of Linear, Softplus, Sigmoid, Tanh,
            ReLU, LeakyReLU, Flatten, Identity and Dropout in evaluation mode; Linear first and
            last. For a ReLU whose sign may change in the ball, all slopes between its two are
            allowed for.
        inputs (Tensor): examples along dimension 0.
        k (int): size of the top set, 1 <= k < n.
        target (int, list of int, or Tensor, optional): output that is explained, one for all or one
            per example. None: the only output.
        norm (str, optional): of the ball, ``"Linf"`` or ``"L2"``. Default: ``"Linf"``.
        max_radius (float, optional): where the search ends, positive. Default: 1.0.
        absolute (bool, optional): rank :math:`|\partial_i f|`, as ``Saliency`` does by default, or
            :math:`\partial_i f`, as it does with ``abs=False``. Default: True.

    Returns:
        - **radius** (*Tensor*): in [0, max_radius], float64, shape (N,). max_radius: the set stays
          at least so far. 0: nothing is certified, as with a tie at the boundary of the top-k. NaN
          where the saliency at the input is not finite or all its entries are equal, and where
          max_radius is below the spacing of the numbers, so that the ball holds no other point.

    Raises:
        ValueError: for a network that cannot be bounded, for arguments outside their ranges, and
            where max_radius is below the spacing of the numbers for every example.

    Warns:
        UnmovedWarning: if it is for some of the examples.

    Examples::

        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(3, 6)
        >>> certified_top_k_radius(nn.Linear(6, 2), x, k=2, target=1)      # its map is constant
        tensor([1., 1., 1.], dtype=torch.float64)
        >>> mlp = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 1))
        >>> radius = certified_top_k_radius(mlp, x, k=2)
        >>> bool((radius > 0).all()), bool((radius < 1).any())
        (True, True)
    """
    check_norm(norm)
    max_radius = one_number("max_radius", max_radius)
    if not 0 < max_radius < float("inf"):
        raise ValueError(f"max_radius must be positive and finite, got {max_radius}")
    network = read_network(model)
    n_features, *_, n_outputs = network.widths
    check_k(k, n_features)
    rows = _rows(inputs, n_features)
    outputs = _outputs(target, len(rows), n_outputs).to(rows.device)
    size = _rows_at_once(network.widths)
    parts = zip(rows.split(size), outputs.split(size), strict=True)
    stays = rows_that_stay((rows,), torch.full_like(rows[:, 0], max_radius))
    check_moved(stays, "max_radius")
    radius = torch.cat(
        [_radius(network, x, k, output, norm, max_radius, absolute) for x, output in parts]
    )
    return nan_where(stays, radius)


def _radius(
    network: Network,
    inputs: Tensor,
    k: int,
    output: Tensor,
    norm: Norm,
    max_radius: float,
    absolute: bool,
) -> Tensor:
    """Return the radius of a few examples; NaN where there is no ranking."""
    certified = inputs.new_zeros(len(inputs))
    refused = torch.full_like(certified, max_radius)
    saliency = gradient_at(network, inputs, output)
    scores = saliency.abs() if absolute else saliency
    broken = invalid_rows(scores) | ~inputs.isfinite().all(dim=1)
    top = top_k_mask(scores.masked_fill(broken[:, None], 0), k)
    radius = refused
    for _ in range(_HALVINGS + 1):
        proven = _keeps(gradient_over_ball(network, inputs, output, radius, norm), top, k, absolute)
        certified = torch.where(proven, radius, certified)
        refused = torch.where(proven, refused, radius)
        radius = (certified + refused) / 2
    return nan_where(broken, certified)


def _keeps(gradient: Affine, top: Tensor, k: int, absolute: bool) -> Tensor:
    """Return where all k features of ``top`` (N, n) exceed the others for all symbols; (N,)."""
    if absolute:  # |I_i| > |I_j| everywhere if and only if I_i, of its sign here, exceeds ±I_j
        gradient = gradient.negated_where(gradient.centre < 0)
    below = gradient.take(_places(~top, top.shape[1] - k))
    if absolute:
        below = below.with_negatives()
    kept = torch.ones_like(top[:, 0])
    for i in _places(top, k).T:
        gap = gradient.take(i[:, None]) - below
        kept &= (gap.centre > gap.radius).all(dim=1)
    return kept


def _places(mask: Tensor, count: int) -> Tensor:
    """Return the indices of the features of a mask with ``count`` of them per row; (N, count)."""
    return mask.nonzero()[:, 1].view(-1, count)


def _rows(inputs: Tensor, n_features: int) -> Tensor:
    """Return the inputs, one row per example, in float64."""
    accepted = f"inputs must be a floating point Tensor of examples with {n_features} features"
    if not isinstance(inputs, Tensor):
        raise ValueError(f"{accepted}, got {type(inputs).__name__}")
    if (
        not inputs.is_floating_point()
        or inputs.dim() < 2
        or math.prod(inputs.shape[1:]) != n_features
    ):
        raise ValueError(f"{accepted}, got {inputs.dtype} of shape {tuple(inputs.shape)}")
    return inputs.detach().double().flatten(1)


def _outputs(target: TargetType, n_examples: int, n_outputs: int) -> Tensor:
    """Return the index of the explained output of every example."""
    if target is None and n_outputs == 1:
        target = 0
    try:
        outputs = torch.as_tensor(target).flatten()
        outputs = outputs.expand(n_examples) if len(outputs) == 1 else outputs
        fits = len(outputs) == n_examples and not outputs.is_floating_point()
    except (RuntimeError, TypeError, ValueError):
        fits = False
    if not fits or not bool(((outputs >= 0) & (outputs < n_outputs)).all()):
        raise ValueError(
            f"target must be an int in 0 … {n_outputs - 1}, the outputs of model, or one for each "
            f"of {n_examples} examples; got {target}"
        )
    return outputs.long()


def _rows_at_once(widths: list[int]) -> int:
    """Return how many examples have forms and gaps of about 30 MB together."""
    n_symbols = widths[0] + 3 * sum(widths[1:])
    return max(1, _BYTES_AT_ONCE // (8 * 8 * n_symbols * max(widths)))
