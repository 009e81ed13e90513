"""Precision at k: the fraction of the top-k features that two attributions share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust.metrics._explainer import Explainer
from captum_robust.metrics._group_counts import for_each_count
from captum_robust.metrics._neighbours import neighbour_scores
from captum_robust.metrics._scores import nan_where, paired_scores
from captum_robust.metrics._top_sets import common_top_k, in_top_k, top_k_of
from captum_robust.metrics.thickness import default_perturb_func
from captum_robust.ranking import check_k, fraction

__all__ = ["precision_at_k", "precision_at_k_min"]


@for_each_count
def precision_at_k(
    attributions: Inputs,
    reference_attributions: Inputs,
    k: int,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
) -> Tensor:
    r"""Fraction of the top-k features that two :term:`attribution maps <map>` share (P@k).

    .. math:: P@k = |\,top_k(I) \cap top_k(I')\,| \,/\, k

    In [0, 1], higher is more stable; symmetric. Ties go to the lowest index. Also known as top-k
    intersection. Source: arXiv 2212.14106, C.2.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions, examples along dimension 0; a
            tuple is ranked jointly.
        reference_attributions (Tensor or tuple[Tensor, ...]): attributions of the same shape.
        k (int): size of the top sets, 1 <= k < n.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum; groups are ranked.

    Returns:
        - **precision** (*Tensor*): shape (N,). NaN where the attributions of an example are not
          finite or are all equal.

    Raises:
        ValueError: for k outside 1 … n − 1, or attributions of different shapes.

    Examples::

        >>> reference = torch.tensor([[1.2, .8, .7, .4, .1, .2]])
        >>> precision_at_k(torch.tensor([[2.5, 1.2, 1.0, .6, .2, .4]]), reference, k=3)
        tensor([1.])
        >>> precision_at_k(torch.tensor([[1.2, .1, .7, 1.2, .1, .2]]), reference, k=3)
        tensor([0.6667])
    """
    scores, reference, broken = paired_scores(
        attributions, reference_attributions, feature_mask, absolute
    )
    check_k(k, scores.shape[1])
    common = common_top_k(scores, reference, k)
    return nan_where(broken, fraction(common, k).to(scores.dtype))


def precision_at_k_min(
    explanation_func: Callable[..., Inputs],
    inputs: Inputs,
    k: int,
    perturb_func: Callable[..., Any] = default_perturb_func,
    perturb_radius: float | Tensor = 0.02,
    n_perturb_samples: int = 10,
    reference_attributions: Inputs | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    show_progress: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""Smallest :func:`precision_at_k` over n perturbations of each example.

    Random perturbations rarely find the worst one, so that the result is optimistic; pass an attack
    as ``perturb_func`` for a smaller value.

    Args:
        explanation_func (Callable): returns attributions of inputs, as in
            :func:`ranking_thickness`.
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
        k (int): size of the top sets, 1 <= k < n.
        perturb_func (Callable or Perturbation, optional): as in :func:`ranking_thickness`.
        perturb_radius (float or Tensor, optional): radius given to it, in units of the inputs; one
            for all examples or one per example, shape (N,).
        n_perturb_samples (int, optional): number of perturbations of each example. Default: 10.
        reference_attributions (Tensor or tuple[Tensor, ...], optional): attributions of the
            unperturbed inputs, where they are known already.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): number of points explained at once; never changes
            the result.
        show_progress (bool, optional): show a progress bar over the rows. Default: False.
        seed (int, optional): seed of the perturbations. None: fresh entropy.
        **kwargs: passed to ``explanation_func``; per-example arguments are expanded.

    Returns:
        - **precision** (*Tensor*): minimum over the perturbations, in [0, 1], shape (N,). NaN where
          any of the attributions is not finite, or all are equal, and where no perturbation moves
          the example at a radius above 0.

    Raises:
        ValueError: for arguments outside their ranges, and if no example can move.

    Warns:
        UnmovedWarning: if some of the examples cannot move.

    Examples::

        >>> from captum.attr import Saliency
        >>> model = torch.nn.Linear(5, 2)                       # its saliency is constant in x
        >>> precision_at_k_min(Saliency(model).attribute, torch.ones(2, 5), k=2, target=0)
        tensor([1., 1.])
    """
    with Explainer(
        explanation_func, inputs, kwargs, absolute, feature_mask, max_examples_per_batch, seed
    ) as explainer:
        reference, broken = explainer.reference(reference_attributions)
        every = torch.arange(len(reference), device=reference.device)
        top = explainer.each_count(lambda part, _: top_k_of(part, k), reference, every)
        worst = torch.ones(len(reference), dtype=reference.dtype, device=reference.device)
        times = torch.ones(1)
        for rows, _, scores, invalid in neighbour_scores(
            explainer, perturb_func, perturb_radius, n_perturb_samples, times, show_progress
        ):
            common = explainer.each_count(
                lambda part, own: in_top_k(part, k).gather(1, top[own]).sum(dim=1), scores, rows
            )
            precision = fraction(common, k).to(worst)
            worst.scatter_reduce_(0, rows, precision, "amin")
            broken[rows[invalid]] = True
    return nan_where(broken, worst)
