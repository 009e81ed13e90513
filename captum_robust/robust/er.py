"""The explanation-ranking attack of the R2ET papers."""

from typing import Any

from captum.attr import Attribution

from captum_robust.ranking import Gap, Pairs
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import RankingObjective

__all__ = ["ERAttack"]


class ERAttack(ExplanationAttack):
    r"""Close the gaps between the top-k features and the others (ERAttack).

    .. math::
        \min_{\|\delta\| \le \epsilon} \int_0^1 \sum_{i \in top_k(x)} \sum_{j \notin top_k(x)}
        I_i(x + t\delta) - I_j(x + t\delta) \, dt

    The top-k features are those of the unperturbed input. Source: arXiv 2212.14106, equation (22).
    By default, as in the implementation of the paper, the gaps at the end point (t = 1) are
    minimised; ``path_points=T`` minimises the integral, as the mean over t = 1/T, 2/T, …, 1, at T
    times the cost.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int): size of the top set, 1 <= k < n.
        pairs (str, optional): ``"all"``: all k(n−k) pairs. ``"anchor"``: pairs of the k-th
            feature. ``"mm"``: the k' pairs with the smallest gaps
            (:func:`captum_robust.ranking.gap_sum`).
        gap (str, optional): ``"linear"``: the gaps as above. ``"exp"``: :math:`-\log \sum
            e^{-(I_i - I_j)}`, in which the smallest gaps have the largest weight.
        k_prime (int, optional): number of pairs of ``"anchor"`` and ``"mm"``. Default: k.
        **options: as in :class:`ExplanationAttack`: bounds, ``gradient``, ``smooth_relu``,
            ``surrogate``, ``preserve_prediction``, ``absolute``, ``feature_mask``,
            ``path_points``, …

    Examples::

        >>> import torch
        >>> from captum.attr import Saliency
        >>> from captum_robust.metrics import precision_at_k
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, saliency = torch.randn(20, 9, requires_grad=True), Saliency(model)
        >>> attack = ERAttack(saliency, k=3, smooth_relu=10.0)   # without: zero gradient
        >>> moved = attack.perturb(x, radius=0.5, target=1).requires_grad_()
        >>> maps, changed = saliency.attribute(x, target=1), saliency.attribute(moved, target=1)
        >>> bool(precision_at_k(changed, maps, k=3).mean() < 0.8)
        True
    """

    def __init__(
        self,
        attribution: Attribution,
        k: int,
        pairs: Pairs = "all",
        gap: Gap = "linear",
        k_prime: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(attribution, RankingObjective(k, pairs, gap, k_prime), **options)
