"""An attack on binary graphs that adds and removes a few edges."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, TargetType, as_tuple
from captum_robust.robust._search.settings import Keep
from captum_robust.robust.objectives import Objective
from captum_robust.robust.substitution import SubstitutionAttack, SubstitutionInfo

__all__ = ["EdgeFlipAttack", "FlipInfo"]


class FlipInfo(SubstitutionInfo):
    """Results of an :class:`EdgeFlipAttack`; a substitution is a flip of an edge."""

    @property
    def n_flips(self) -> Tensor:
        """Number of edges that differ from those of the example; (N,) int64."""
        return self.n_substitutions


class EdgeFlipAttack(SubstitutionAttack):
    r"""Flip the edges of binary graphs that remove the most features from the top k.

    .. math:: \min_{x'} \; precision@k(x') \quad \text{s.t.} \quad x' \in \{0, 1\}^n,
        \; \|x' - x\|_0 \le budget

    while the prediction is kept. It is a :class:`~captum_robust.robust.SubstitutionAttack` whose
    positions are edges with the values 0 and 1. The flips with the smallest first-order change of
    the objective, :math:`(1 - 2 x_e) \, \partial_e`, are candidates; ``n_candidates`` of them are
    evaluated on the real model, and the best one becomes the next graph, even if it is worse than
    the previous one. No edge is flipped twice, and no flip may change the prediction. The result is
    the best graph of the search, so that a larger budget never gives a weaker attack.

    The precision at k that it finds is an upper bound of the smallest one within the budget. If all
    edges are candidates, its first flip is optimal.

    For edges as features, use a :class:`~captum_robust.graph.UndirectedModel`. Both graphs of a
    pair are attacked unless the mask excludes one. For weights that are not binary, use the attacks
    of :mod:`captum_robust.robust`, which change them continuously.

    Cost of a budget of b: b (n_candidates + 1) + 1 attributions and b gradients of them.

    Args:
        attribution (Attribution): any Captum attribution; the prediction is that of its model.
        k (int): size of the top set, 1 <= k < n.
        n_candidates (int, optional): number of flips that are evaluated per flip. Default: 16.
        objective (Callable, optional): function whose gradient proposes the flips, and which
            decides between graphs of equal precision, as in
            :class:`~captum_robust.robust.ExplanationAttack`. Default:
            :class:`~captum_robust.robust.swaps.SwapCountObjective` with temperature 0.3.
        keep (str, optional): ``"precision"``: precision at k decides first, and an example with a
            precision of 0 is finished. ``"objective"``: only the objective decides.
        **options: as in :class:`~captum_robust.robust.SubstitutionAttack`: ``beam_width``,
            ``gradient``, ``smooth_relu``, ``predictions``, ``preserve_prediction``, …

    Raises:
        ValueError: for arguments outside their ranges.

    Examples::

        >>> import torch
        >>> from captum.attr import InputXGradient
        >>> from captum_robust.graph import UndirectedModel
        >>> from captum_robust.models import DenseGCN
        >>> _ = torch.manual_seed(0)
        >>> model = UndirectedModel(DenseGCN(n_nodes=8, hidden=16, out=2), n_nodes=8)
        >>> edges = torch.randint(0, 2, (5, 28)).float()
        >>> attack = EdgeFlipAttack(InputXGradient(model), k=4, absolute=True)
        >>> flipped, info = attack.perturb(edges, budget=3, target=1, return_info=True)
        >>> bool(((flipped != edges).sum(dim=1) == info.n_flips).all()), int(info.n_flips.max())
        (True, 3)
        >>> bool((info.precision < 1).all()), bool(info.prediction_kept.all())
        (True, True)
    """

    reports = FlipInfo

    def __init__(
        self,
        attribution: Attribution,
        k: int,
        n_candidates: int = 16,
        objective: Objective | None = None,
        keep: Keep = "precision",
        **options: Any,
    ) -> None:
        super().__init__(
            attribution, k, torch.tensor([0.0, 1.0]), n_candidates=n_candidates,
            objective=objective, keep=keep, **options,
        )  # fmt: skip

    def perturb(  # type: ignore[override]  # as in the class above
        self,
        inputs: Inputs,
        budget: int | None = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        mask: Inputs | None = None,
        n_restarts: int = 1,
        seed: int | None = None,
        max_examples_per_batch: int | None = None,
        show_progress: bool = False,
        return_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        r"""Flip up to ``budget`` edges of every example.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point edges, 0 or 1, examples along
                dimension 0.
            budget (int, optional): largest number of edges to flip per example, over all of its
                tensors. Default: 1.
            target: the explained output, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where an edge must not change, 1
                elsewhere; broadcastable to the inputs.
            n_restarts (int, optional): number of searches; the first flip of all but the first
                search is drawn at random.
            seed (int, optional): seed of random flips, of the directions of ``gradient="spsa"`` and
                of the attribution's own randomness. None: fresh entropy.
            max_examples_per_batch (int, optional): examples attacked at once. Default: all.
            show_progress (bool, optional): show a progress bar over the flips. Default: False.
            return_info (bool, optional): also return a :class:`FlipInfo`. Default: False.
            **kwargs: passed to ``attribution.attribute``.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``, detached, 0 or 1.
            - **info** (*FlipInfo*): if ``return_info``.

        Raises:
            ValueError: for arguments outside their ranges, or inputs that are not 0 or 1.

        Warns:
            ZeroGradientWarning: if the gradient is exactly zero for every example at every step.
        """
        for edges in as_tuple(inputs):
            others = edges[(edges != 0) & (edges != 1) & edges.isfinite()]
            if len(others) > 0:
                raise ValueError(f"inputs must be edges, 0 or 1, got {float(others[0])}")
        given: dict[str, Any] = {
            "target": target, "additional_forward_args": additional_forward_args, "mask": mask,
            "n_restarts": n_restarts, "seed": seed, "show_progress": show_progress,
            "max_examples_per_batch": max_examples_per_batch, "return_info": return_info,
        }  # fmt: skip
        return super().perturb(inputs, budget, **given, **kwargs)
