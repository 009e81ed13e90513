"""The top-k attack of Ghorbani, Abid and Zou."""

from typing import Any

from captum.attr import Attribution

from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import TopKObjective

__all__ = ["TopKAttack"]


class TopKAttack(ExplanationAttack):
    r"""Reduce the fraction of the attribution that belongs to the top-k features.

    .. math::
        \min_\delta \sum_{i \in top_k(x)} \bar I_i(x + \delta), \qquad
        \bar I = I / \sum_j |I_j|

    The top-k features are those of the unperturbed input. The attribution may move to features of
    low rank, so that the ranking does not change; :class:`ERAttack` closes the gaps between
    features instead. Source: Ghorbani, Abid, Zou 2019, "Interpretation of neural networks is
    fragile" (arXiv 1710.10547), Algorithm 1; the maps of the paper are magnitudes
    (``absolute=True`` for attributions with a sign) that sum to one.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int): size of the top set, 1 <= k < n.
        **options: as in :class:`ExplanationAttack`.

    Examples::

        >>> import torch
        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(9, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> x, attack = torch.randn(4, 9), TopKAttack(Saliency(model), k=3)
        >>> _, info = attack.perturb(x, radius=0.5, target=1, return_info=True)
        >>> bool((info.objective < info.trace[0, 0]).all())    # a fraction in [0, 1]
        True
    """

    def __init__(self, attribution: Attribution, k: int, **options: Any) -> None:
        super().__init__(attribution, TopKObjective(k), **options)
