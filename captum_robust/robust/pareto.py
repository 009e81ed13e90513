"""The multi-objective attack: it closes the gaps of several pairs without widening any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.checks import check_choice
from captum_robust.robust._search.lagrangian import PREDICTION_MODES
from captum_robust.robust._search.pareto_descent import ParetoDescent
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.search import Search
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.info import AttackInfo
from captum_robust.robust.objectives import RankingObjective

__all__ = ["ParetoERAttack", "ParetoInfo"]


@dataclass(frozen=True)
class ParetoInfo(AttackInfo):
    r"""Results of a :class:`ParetoERAttack`, besides those of every attack.

    ``trace`` is NaN for an example whose search has ended.

    Attributes:
        critical (Tensor): whether the search of a restart ended at a Pareto-critical point; bool,
            shape (n_restarts, N). Other searches used up their steps, or found no step that
            Armijo's rule accepts.
        direction_lengths (Tensor): :math:`\|d\|` of every iteration, shape (n_restarts, step_num,
            N); NaN after the end.
        n_iterations (Tensor): directions computed, shape (n_restarts, N), int64.
    """

    critical: Tensor
    direction_lengths: Tensor
    n_iterations: Tensor

    @classmethod
    def of(cls, searches: Sequence[Search], n_restarts: int, step_num: int) -> ParetoInfo:
        """Join what the searches of the chunks found; none for an empty batch."""
        base = AttackInfo.of(searches, n_restarts, step_num)
        own = [s for s in searches if isinstance(s, ParetoDescent)]
        lengths = torch.full((n_restarts, step_num, 0), float("nan"))
        critical = torch.zeros(n_restarts, 0, dtype=torch.bool)
        if own:
            for search in own:
                for restart in set(range(n_restarts)) - set(search.lengths):
                    search.start_records(restart)  # all examples were done before
            each = range(n_restarts)
            lengths = torch.cat([torch.stack([s.lengths[r] for r in each]) for s in own], dim=2)
            critical = torch.cat([torch.stack([s.critical[r] for r in each]) for s in own], dim=1)
        counts = torch.isfinite(lengths).sum(dim=1)
        return cls(**vars(base), critical=critical, direction_lengths=lengths, n_iterations=counts)


class ParetoERAttack(ExplanationAttack):
    r"""Close the gaps of the pairs nearest to flipping, all at once (the multi-objective attack).

    :class:`ERAttack` minimises the sum of the gaps, and may widen some of them. This attack takes
    no step that widens a gap. Each step goes along the steepest common descent d of the m gaps
    :math:`f_q = I_i - I_j`, the solution of

    .. math::
        \min_{d, \tau} \tau + \tfrac12 \|d\|^2 \quad
        \text{s.t.} \quad \nabla f_q^\top d \le \tau, \; q = 1 \ldots m,

    with a step length that satisfies Armijo's rule for all gaps,
    :math:`f_q(x + \eta d) - f_q(x) \le \beta \eta \nabla f_q^\top d`. Each example has its own
    :math:`\eta`, which is halved until the rule is satisfied. A search ends where no gap can be
    closed without widening another (a Pareto-critical point, :math:`d = 0`). For gaps whose
    gradients are L-Lipschitz, the smallest :math:`\|d\|` of t steps is at most
    :math:`\sqrt{(f^{max} - f^{min}) / (\beta \eta_{min} t)}`, :math:`\eta_{min} = \min((1 - \beta)
    / L, \eta_0)` with the first trial :math:`\eta_0`, so rankings with large gaps take longest.
    Source: arXiv 2212.14106, equations (6) to (10) and (15) and appendix A.2; merit functions
    replace the constrained problems of equations (11) to (14). Fliege and Svaiter 2000.

    At the boundary of the ball, of the bounds and of the mask, d is the solution among the
    directions that stay in the region; steps are projected to the region, and Armijo's rule is
    applied to the projected step. The caller's ``project`` is only applied to the steps.
    Constraints are merit functions of the line search: a change of the predicted label
    (``preserve_prediction="reject"``), and the excess over ``output_tolerance``. No step may raise
    them, and an output that has used most of its tolerance is one more objective of the next d.
    With ``smooth_relu`` or ``surrogate``, the gaps that fall are those of the smoothed network or
    of the surrogate; the point that is returned is the one whose gaps have the smallest sum on the
    real model.

    A step costs one saliency with its graph, m backward passes (m saliencies for
    ``"finite_difference"``) and about two saliencies for the line search: keep m small.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int): size of the top set, 1 <= k < n.
        k_prime (int, optional): number m of attacked pairs, the q-th feature above the boundary
            against the q-th below, 1 <= k_prime <= k. Default: 4, or k if that is less.
        armijo (float, optional): :math:`\beta`, between 0 and 1.
        tolerance (float, optional): a point is Pareto-critical if :math:`\|d\|` is at most this
            times the longest gradient. Other attacks have a ``tolerance`` for regressions; here
            pass ``decision_func``.
        output_tolerance (float, optional): largest change :math:`\|p(x + \delta) - p(x)\|_2` of the
            predicted probabilities; the outputs are logits. Default: any.
        **options: as in :class:`ExplanationAttack`, without ``step_rule``; ``preserve_prediction``
            is ``"reject"``, ``"early_stop"`` or ``"none"``. A ``step_size`` is the length of the
            first trial, by default twice the radius.

    Examples::

        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(9, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> attack = ParetoERAttack(Saliency(model), k=3)
        >>> x = torch.randn(4, 9)
        >>> moved, info = attack.perturb(x, radius=0.5, target=1, return_info=True)
        >>> bool((info.trace[0].diff(dim=0).nan_to_num() <= 0).all()), info.critical.shape
        (True, torch.Size([1, 4]))
    """

    searcher = ParetoDescent
    reports = ParetoInfo

    def __init__(
        self,
        attribution: Attribution,
        k: int,
        k_prime: int | None = None,
        armijo: float = 1e-4,
        tolerance: float = 1e-6,
        output_tolerance: float | None = None,
        **options: Any,
    ) -> None:
        objective = RankingObjective(k, "mm", "linear", min(k, 4) if k_prime is None else k_prime)
        super().__init__(attribution, objective, step_rule="halving", **options)
        accepted = tuple(n for n, mode in PREDICTION_MODES.items() if mode.weights is None)
        check_choice("preserve_prediction", self.preserve_prediction, accepted)
        if not 0 < armijo < 1:
            raise ValueError(f"armijo must lie between 0 and 1, got {armijo}")
        if not 0 <= tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {tolerance}")
        if output_tolerance is not None and not 0 < output_tolerance < float("inf"):
            raise ValueError(
                f"output_tolerance must be positive, finite, or None, got {output_tolerance}"
            )
        self.armijo = armijo
        self.tolerance = tolerance
        self.output_tolerance = output_tolerance

    def _search_options(self, region: Region) -> dict[str, Any]:
        return {
            "armijo": self.armijo,
            "tolerance": self.tolerance,
            "output_tolerance": self.output_tolerance,
        }
