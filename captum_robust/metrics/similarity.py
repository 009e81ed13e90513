"""Distances and correlations between two maps of the same example."""

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust.metrics._scores import nan_where, paired_scores

__all__ = ["attribution_mse", "pearson_correlation", "spearman_correlation"]


def attribution_mse(
    attributions: Inputs,
    reference_attributions: Inputs,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Mean squared difference of two maps, :math:`\frac{1}{n}\sum_i (I_i - I'_i)^2`.

    Lower is more stable; in squared units of the attribution. Source: arXiv 2212.14106, C.2.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): maps with examples along dimension 0; a tuple
            is compared jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): maps of the same shape.
        absolute (bool, optional): compare :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **mse** (*Tensor*): shape (N,). NaN where a map is not finite or constant.

    Raises:
        ValueError: for maps of different shapes.

    Examples::

        >>> attribution_mse(torch.tensor([[1., 2.]]), torch.tensor([[1., 4.]]))
        tensor([2.])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    return nan_where(broken, (scores - reference).square().mean(dim=1))


def pearson_correlation(
    attributions: Inputs,
    reference_attributions: Inputs,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Pearson correlation of two maps over their features; in [−1, 1], higher is more stable.

    Source: arXiv 2212.14106, C.2 (PCC).

    Args:
        attributions (Tensor or tuple[Tensor, ...]): maps with examples along dimension 0; a tuple
            is compared jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): maps of the same shape.
        absolute (bool, optional): compare :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **correlation** (*Tensor*): shape (N,). NaN where a map is not finite or constant.

    Raises:
        ValueError: for maps of different shapes.

    Examples::

        >>> pearson_correlation(torch.tensor([[0., 1., 2.]]), torch.tensor([[4., 2., 0.]])).round()
        tensor([-1.])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    return nan_where(broken, _correlation(scores, reference).to(scores.dtype))


def spearman_correlation(
    attributions: Inputs,
    reference_attributions: Inputs,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Spearman rank correlation of two maps; in [−1, 1], higher is more stable.

    The Pearson correlation of the ranks, tied features sharing their average rank. It weighs all
    features alike, where :func:`precision_at_k` looks at the top only.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): maps with examples along dimension 0; a tuple
            is ranked jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): maps of the same shape.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **correlation** (*Tensor*): shape (N,). NaN where a map is not finite or constant.

    Raises:
        ValueError: for maps of different shapes.

    Examples::

        >>> spearman_correlation(torch.tensor([[1., 2., 30.]]), torch.tensor([[4., 5., 6.]]))
        tensor([1.])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    correlation = _correlation(_average_ranks(scores), _average_ranks(reference))
    return nan_where(broken, correlation.to(scores.dtype))


def _correlation(left: Tensor, right: Tensor) -> Tensor:
    left, right = _centred(left), _centred(right)
    lengths: Tensor = left.norm(dim=1) * right.norm(dim=1)
    return ((left * right).sum(dim=1) / lengths).clamp(-1, 1)


def _centred(scores: Tensor) -> Tensor:
    # Scaled, lest squares of tiny gradients underflow; in double, lest a large mean hide the rest.
    scaled = scores.double() / scores.abs().amax(dim=1, keepdim=True)
    return scaled - scaled.mean(dim=1, keepdim=True)


def _average_ranks(scores: Tensor) -> Tensor:
    """Ranks from 1, ties sharing the mean of the ranks that they span."""
    ordered = scores.sort(dim=1).values
    below = torch.searchsorted(ordered, scores, right=False)
    up_to = torch.searchsorted(ordered, scores, right=True)
    ranks: Tensor = (below + up_to + 1).to(torch.float64) / 2
    return ranks
