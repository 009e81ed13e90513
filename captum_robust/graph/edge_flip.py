"""An attack on binary graphs that adds and removes a few edges."""

from __future__ import annotations

from typing import Any

from captum.attr import Attribution

from captum_robust._utils.captum import Inputs, TargetType, as_tuple
from captum_robust._utils.checks import check_choice, check_count
from captum_robust.graph.flips import FlipInfo, FlipSearch
from captum_robust.robust._search.settings import Keep
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import Objective
from captum_robust.robust.swaps import SwapCountObjective

__all__ = ["EdgeFlipAttack"]


class EdgeFlipAttack(ExplanationAttack):
    r"""Flip the edges of binary graphs that remove the most features from the top k.

    .. math:: \min_{x'} \; precision@k(x') \quad \text{s.t.} \quad x' \in \{0, 1\}^n,
        \; \|x' - x\|_0 \le budget

    while the prediction is kept. The search is greedy and flips one edge at a time. The flips with
    the smallest first-order change of the objective, :math:`(1 - 2 x_e) \, \partial_e`, are
    candidates; ``n_candidates`` of them are evaluated on the real model, and the best one becomes
    the next graph, even if it is worse than the previous one. No edge is flipped twice, and no flip
    may change the prediction. The result is the best graph of the search, so that a larger budget
    never gives a weaker attack.

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
        **options: as in :class:`~captum_robust.robust.ExplanationAttack`, without bounds, step rule
            and soft constraints: ``gradient``, ``smooth_relu``, ``surrogate``, ``predictions``, …
            and ``preserve_prediction``, which is ``"reject"`` or ``"none"``.

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

    searcher = FlipSearch
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
        for name in ("lower_bound", "upper_bound", "step_rule"):
            if name in options:
                raise ValueError(f"{name} must not be given: edges are flipped between 0 and 1")
        super().__init__(
            attribution, objective or SwapCountObjective(k, 0.3), lower_bound=0.0, upper_bound=1.0,
            keep=keep, **options,
        )  # fmt: skip
        check_choice("preserve_prediction", self.preserve_prediction, ("reject", "none"))
        check_count("n_candidates", n_candidates, 1)
        self.n_candidates = n_candidates

    def _search_options(self) -> dict[str, Any]:
        return {"n_candidates": self.n_candidates}

    def perturb(  # type: ignore[override]  # a budget is no radius, and has no norm
        self,
        inputs: Inputs,
        budget: int,
        target: TargetType = None,
        additional_forward_args: Any = None,
        mask: Inputs | None = None,
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
            budget (int): largest number of edges to flip per example, over all of its tensors.
            target: the explained output, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where an edge must not change, 1
                elsewhere; broadcastable to the inputs.
            seed (int, optional): seed of the directions of ``gradient="spsa"`` and of the
                attribution's own randomness. None: fresh entropy.
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
        check_count("budget", budget, 0)
        for edges in as_tuple(inputs):
            others = edges[(edges != 0) & (edges != 1) & edges.isfinite()]
            if len(others) > 0:
                raise ValueError(f"inputs must be edges, 0 or 1, got {float(others[0])}")
        given: dict[str, Any] = {
            "target": target, "additional_forward_args": additional_forward_args, "mask": mask,
            "seed": seed, "max_examples_per_batch": max_examples_per_batch,
            "show_progress": show_progress, "return_info": return_info,
        }  # fmt: skip
        return super().perturb(inputs, 1.0, step_num=budget, **given, **kwargs)
