"""Distances and correlations between two attributions of the same example."""

import numpy as np
import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust.metrics._group_counts import for_each_count
from captum_robust.metrics._scores import nan_where, paired_scores

__all__ = ["attribution_mse", "pearson_correlation", "spearman_correlation"]


@for_each_count
def attribution_mse(
    attributions: Inputs,
    reference_attributions: Inputs,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Mean squared difference of two attributions, :math:`\frac{1}{n}\sum_i (I_i - I'_i)^2`.

    Lower is more stable; in squared units of the attribution. Source: arXiv 2212.14106, C.2.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions, examples along dimension 0; a
            tuple is compared jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): attributions of the same shape.
        absolute (bool, optional): compare :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **mse** (*Tensor*): shape (N,). NaN where the attributions of an example are not finite or
          are all equal.

    Raises:
        ValueError: for attributions of different shapes.

    Examples::

        >>> attribution_mse(torch.tensor([[1., 2.]]), torch.tensor([[1., 4.]]))
        tensor([2.])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    return nan_where(broken, (scores - reference).square().mean(dim=1))


@for_each_count
def pearson_correlation(
    attributions: Inputs,
    reference_attributions: Inputs,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Pearson correlation of two attributions; in [−1, 1], higher is more stable.

    Source: arXiv 2212.14106, C.2 (PCC).

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions, examples along dimension 0; a
            tuple is compared jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): attributions of the same shape.
        absolute (bool, optional): compare :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **correlation** (*Tensor*): shape (N,). NaN where the attributions of an example are not
          finite or are all equal.

    Raises:
        ValueError: for attributions of different shapes.

    Examples::

        >>> pearson_correlation(torch.tensor([[0., 1., 2.]]), torch.tensor([[4., 2., 0.]])).round()
        tensor([-1.])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    correlation = _cosine(_centred(scores), _centred(reference))
    return nan_where(broken, correlation.to(scores.dtype))


@for_each_count
def spearman_correlation(
    attributions: Inputs,
    reference_attributions: Inputs,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Spearman rank correlation of two attributions; in [−1, 1], higher is more stable.

    The Pearson correlation of the ranks of the features, where tied features get their average
    rank. All features count alike, while :func:`precision_at_k` compares the top ones only.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions, examples along dimension 0; a
            tuple is ranked jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): attributions of the same shape.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **correlation** (*Tensor*): shape (N,). NaN where the attributions of an example are not
          finite or are all equal.

    Raises:
        ValueError: for attributions of different shapes.

    Examples::

        >>> spearman_correlation(torch.tensor([[1., 2., 30.]]), torch.tensor([[4., 5., 6.]]))
        tensor([1.])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    correlation = _cosine(_centred_ranks(scores), _centred_ranks(reference))
    return nan_where(broken, correlation.to(scores.dtype))


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of the angle between two rows; (N,)."""
    lengths: Tensor = left.norm(dim=1) * right.norm(dim=1)
    return ((left * right).sum(dim=1) / lengths).clamp(-1, 1)


def _centred(scores: Tensor) -> Tensor:
    # Scaled, lest squares of tiny gradients underflow; in double, lest a large mean hide the rest.
    scaled = scores.double() / scores.abs().amax(dim=1, keepdim=True)
    return scaled - scaled.mean(dim=1, keepdim=True)


def _centred_ranks(scores: Tensor) -> Tensor:
    """Ranks minus their mean, ties sharing the mean of the ranks that they span; (N, n) float64."""
    n_features = scores.shape[1]
    order = _ascending(scores)
    ordered = scores.gather(1, order)
    first = torch.ones_like(ordered, dtype=torch.bool)  # of a run of equal scores
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = first.flatten().nonzero().squeeze(1)
    lengths = starts.diff(append=starts.new_tensor([ordered.numel()]))
    ranks = (starts % n_features).double() + (lengths - n_features) / 2
    spread = ranks.repeat_interleave(lengths).view_as(ordered)
    return torch.zeros_like(spread).scatter_(1, order, spread)


def _ascending(scores: Tensor) -> Tensor:
    """Indices that sort each row; NumPy finds them with SIMD, several times faster than torch."""
    if scores.device.type != "cpu":
        return scores.argsort(dim=1)
    return torch.from_numpy(np.argsort(scores.detach().numpy(), axis=1))
