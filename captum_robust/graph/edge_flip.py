"""The attack on binary graphs: a few edges appear or vanish."""

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
    r"""Flip the edges of binary graphs that cost the explanation the most of its top k.

    .. math:: \min_{x'} \; precision@k(x') \quad \text{s.t.} \quad x' \in \{0, 1\}^n,
        \; \|x' - x\|_0 \le budget

    and the prediction kept. One edge at a time: the gradient of the objective says which flips
    promise most, :math:`(1 - 2 x_e) \, \partial_e` the lowest; ``n_candidates`` of them are
    evaluated on the real model, and the best becomes the next graph, whether it is better than the
    one before or not. No edge is flipped twice, and a flip that changes the prediction is never
    made. The best graph on the way is returned, so that a larger budget never finds less.

    A greedy search: the result is an upper bound of what so many flips can do. With all edges as
    candidates its first flip is the best there is.

    For edges as features, give a :class:`~captum_robust.graph.UndirectedModel`; of a pair of
    graphs, both are attacked unless the mask says otherwise. Where weights are not binary, the
    attacks of :mod:`captum_robust.robust` move them continuously.

    Cost of a budget of b: b (n_candidates + 1) + 1 attributions and b gradients of them.

    Args:
        attribution (Attribution): any Captum attribution; its model makes the prediction.
        k (int): size of the top set, 1 <= k < n.
        n_candidates (int, optional): flips that are evaluated for each one that is made.
            Default: 16.
        objective (Callable, optional): what the gradient is taken of, and what decides among
            graphs of equal precision, as in :class:`~captum_robust.robust.ExplanationAttack`.
            Default: :class:`~captum_robust.robust.swaps.SwapCountObjective` of temperature 0.3.
        keep (str, optional): ``"precision"``: precision at k counts first, and an example that can
            lose no more is done. ``"objective"``: the objective alone.
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
                raise ValueError(f"{name} has no meaning where edges are flipped, 0 to 1 or back")
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
            budget (int): most edges to flip in an example, over all of its tensors.
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where an edge must stay as it is, 1
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
                raise ValueError(f"inputs must hold edges, 0 or 1, got {float(others[0])}")
        given: dict[str, Any] = {
            "target": target, "additional_forward_args": additional_forward_args, "mask": mask,
            "seed": seed, "max_examples_per_batch": max_examples_per_batch,
            "show_progress": show_progress, "return_info": return_info,
        }  # fmt: skip
        return super().perturb(inputs, 1.0, step_num=budget, **given, **kwargs)
