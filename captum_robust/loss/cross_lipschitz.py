"""The cross-Lipschitz ratio: gaps divided by the norm of their gradients."""

from collections.abc import Callable

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust.attr.check import require_differentiable
from captum_robust.curvature import flatten, joint_norm
from captum_robust.loss._checks import check_choices, check_ranking, check_weights
from captum_robust.loss._fused import FusedForward
from captum_robust.loss._regularised import Reduction, RegularisedLoss, Terms
from captum_robust.loss._score import Explain, gradient_of_scores
from captum_robust.ranking import Pairs, check_k, ranking

__all__ = ["CrossLipschitzLoss"]


class CrossLipschitzLoss(RegularisedLoss):
    r"""Classification loss with wide gaps relative to their gradients (CL).

    .. math::
        L = L_{cls} - \lambda \sum_{(i, j)}
            \frac{I_i(x) - I_j(x)}{\|\nabla_x I_i(x) - \nabla_x I_j(x)\|_2}

    with :math:`I(x) = |\nabla_x f_y(x)|` and pairs (i, j) of a top-k and a lower feature. To first
    order, the smallest ratio is the distance to the nearest input with a different top-k set.
    Source: arXiv 2212.14106, section 3, after Hein and Andriushchenko 2017 (arXiv 1705.08475). The
    authors of R2ET reject it because the denominator makes training unstable.

    On networks of the ReLU family the gradient of a logit's saliency is zero. A pair with a zero
    gradient has no ratio and adds nothing. Use smooth activations. The remarks of
    :class:`R2ETLoss` on training mode, batch normalisation, dropout and distributed training apply
    here as well.

    Cost: one backward pass per ranked feature that is in a pair.

    Args:
        forward_func (Callable): the model; returns logits (N, C), or (N,) or (N, 1) if it is
            binary.
        k (int): size of the top set, 1 <= k < n features or groups.
        base_loss (Callable, optional): ``base_loss(outputs, target)``, one value per example or a
            reduced scalar. Default: cross-entropy, or binary cross-entropy with logits for a
            single logit.
        weight (float, optional): :math:`\lambda`, not negative. Default: 0.1.
        pairs (str, optional): ``"mm"``, ``"anchor"`` or ``"all"``
            (:func:`captum_robust.ranking.gap_sum`). Default: ``"mm"``.
        k_prime (int, optional): number of pairs of ``"mm"`` and ``"anchor"``. Default: k.
        attribution (Attribution, optional): Captum attribution of the same model whose maps are
            ranked instead of :math:`|\nabla_x f_y|`.
        explain (str, optional): ``"probability"``: softmax or sigmoid of the labelled class;
            ``"logit"``. Default: ``"probability"``.
        normalize (bool, optional): divide each map by the sum of its magnitudes. Default: False.
        adaptive (bool, optional): scale the term to :math:`\lambda (L_{cls} + 1)` at every step, as
            the authors of R2ET do. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose saliencies
            are summed, as in Captum.
        reduction (str, optional): ``"mean"``, ``"sum"`` or ``"none"`` over the examples.
        absolute (bool, optional): rank the magnitudes of the maps of ``attribution``, as attacks
            and metrics do with ``absolute=True``. Gradients are ranked by magnitude in any case.
            Default: False.

    Attributes:
        last_terms (dict[str, Tensor]): detached batch means of the last call: ``"base"`` and, with
            a positive weight, ``"ratio"``, the sum over the pairs in units of the inputs.

    Raises:
        ValueError: for arguments outside their ranges.
        NotDifferentiableError: for an ``attribution`` without a gradient.

    Examples::

        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> criterion = CrossLipschitzLoss(model, k=2)
        >>> criterion(torch.randn(8, 6), torch.randint(2, (8,))).backward()
        >>> sorted(criterion.last_terms)
        ['base', 'ratio']
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        k: int,
        base_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight: float = 0.1,
        pairs: Pairs = "mm",
        k_prime: int | None = None,
        attribution: Attribution | None = None,
        explain: Explain = "probability",
        normalize: bool = False,
        adaptive: bool = False,
        feature_mask: Inputs | None = None,
        reduction: Reduction = "mean",
        absolute: bool = False,
    ) -> None:
        super().__init__(forward_func, base_loss, explain, adaptive, reduction)
        check_choices(Pairs, pairs=pairs)
        check_ranking(k, k_prime)
        check_weights(weight=weight)
        if attribution is not None:
            require_differentiable(attribution)
        self.k = k
        self.weight = weight
        self.pairs = pairs
        self.k_prime = k_prime
        self.attribution = attribution
        self.normalize = normalize
        self.feature_mask = feature_mask
        self.absolute = absolute

    def _is_plain(self) -> bool:
        return self.weight == 0

    def _order(self) -> int:
        return 3

    def _terms(self, batch: FusedForward) -> Terms:
        scores = batch.scores(self.attribution, self.feature_mask, self.normalize, self.absolute)
        check_k(self.k, scores.shape[1])
        k_prime = self.k if self.k_prime is None else self.k_prime
        above, below = _ranks(self.pairs, self.k, k_prime, scores.shape[1])
        first, last = min(above), max(below)
        places = ranking(scores.detach(), last + 1)[:, first:]
        ranked = scores.gather(1, places)
        # The gradients of one feature per example are those of the sum over the batch.
        rows = [flatten(gradient_of_scores(score, batch.leaves)) for score in ranked.unbind(dim=1)]
        slopes = torch.stack(rows, dim=1)
        i, j = ([rank - first for rank in ranks] for ranks in (above, below))
        change = slopes[:, i] - slopes[:, j]
        steepness = joint_norm((change.flatten(0, 1),)).view(change.shape[:2])
        gaps = ranked[:, i] - ranked[:, j]
        flat = steepness == 0
        ratios = (gaps / steepness.masked_fill(flat, 1)).masked_fill(flat, 0)
        return {"ratio": (-self.weight, ratios.sum(dim=1))}


def _ranks(pairs: Pairs, k: int, k_prime: int, n_features: int) -> tuple[list[int], list[int]]:
    """Return the ranks, from 0, of the upper and of the lower feature of every pair."""
    below = range(k, min(k + k_prime, n_features))
    if pairs == "all":
        chosen = [(i, j) for i in range(k) for j in range(k, n_features)]
    elif pairs == "mm":
        chosen = [(2 * k - 1 - j, j) for j in below]
    else:
        chosen = [(i, k - 1) for i in range(k - k_prime, k - 1)] + [(k - 1, j) for j in below]
    upper, lower = zip(*chosen, strict=True)
    return list(upper), list(lower)
