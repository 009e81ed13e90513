"""The margin between the top-k features and the rest."""

from typing import Literal

from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.checks import check_choice
from captum_robust.metrics._group_counts import for_each_count
from captum_robust.metrics._scores import nan_where, paired_scores
from captum_robust.ranking import check_k, gap_sum, min_gap, top_k_indices

__all__ = ["ranking_gap"]


@for_each_count
def ranking_gap(
    attributions: Inputs,
    k: int,
    reduction: Literal["min", "mean"] = "min",
    reference_attributions: Inputs | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r""":term:`Gap <gap>` :math:`I_i(x) - I_j(x)` between the :term:`top k` features and the rest.

    Higher is more stable; in units of the attribution. Source: arXiv 2212.14106, section 3.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions, examples along dimension 0; a
            tuple is ranked jointly.
        k (int): size of the top set, 1 <= k < n.
        reduction (str, optional): over the k(n−k) pairs: ``"min"``, the gap between the k-th and
            the next feature; ``"mean"``, the average gap. Default: ``"min"``.
        reference_attributions (Tensor or tuple[Tensor, ...], optional): attributions that define
            the top set. Default: ``attributions``; with another reference the gap can be negative.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum.

    Returns:
        - **gap** (*Tensor*): shape (N,). NaN where the attributions of an example are not finite or
          are all equal.

    Raises:
        ValueError: for k outside 1 … n − 1, attributions of different shapes, or another
            reduction.

    Examples::

        >>> import torch
        >>> ranking_gap(torch.tensor([[5., 3., 2., 1.]]), k=2)
        tensor([1.])
    """
    check_choice("reduction", reduction, ("min", "mean"))
    if reference_attributions is None:
        reference_attributions = attributions
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    n_features = scores.shape[1]
    check_k(k, n_features)
    if reduction == "min":
        gap = min_gap(scores, top_k_indices(reference, k))
    else:
        gap = gap_sum(scores, reference, k) / (k * (n_features - k))
    return nan_where(broken, gap)
