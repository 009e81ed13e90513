"""An attack that replaces a few positions: words, categories, bits or edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, TargetType
from captum_robust._utils.checks import check_choice, check_count
from captum_robust.robust._search.candidates import Candidates, candidate_values, rows_of
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.search import Search
from captum_robust.robust._search.settings import Keep
from captum_robust.robust._search.substitutions import SubstitutionSearch
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.info import AttackInfo
from captum_robust.robust.objectives import Objective
from captum_robust.robust.swaps import SwapCountObjective

__all__ = ["SubstitutionAttack", "SubstitutionInfo"]


@dataclass(frozen=True)
class SubstitutionInfo(AttackInfo):
    """Results of a :class:`SubstitutionAttack`, in addition to those of every attack.

    A step is a substitution: ``trace`` is the objective after 0, 1, … substitutions, and
    ``first_change_step`` the number of them after which a feature has left the top k.

    Attributes:
        n_substitutions (Tensor): number of positions that differ from the example; (N,) int64.
        choices (Tensor): candidate at every position, −1 where nothing was replaced; (N, P) int64.
    """

    n_substitutions: Tensor
    choices: Tensor

    @classmethod
    def of(cls, searches: Sequence[Search], n_restarts: int, step_num: int) -> SubstitutionInfo:
        """Join the results of the searches of the chunks; there is none for an empty batch."""
        choices = [
            search.candidates.choices(rows_of(search.best.points), rows_of(search.batch.centre))
            for search in searches
            if isinstance(search, SubstitutionSearch)
        ]
        chosen = torch.cat(choices) if choices else torch.zeros(0, 0, dtype=torch.long)
        common = vars(AttackInfo.of(searches, n_restarts, step_num))
        return cls(**common, n_substitutions=(chosen >= 0).sum(dim=1), choices=chosen)


class SubstitutionAttack(ExplanationAttack):
    r"""Replace the values of a few positions so that the most features leave the top k.

    .. math:: \min_{x'} \; precision@k(x') \quad \text{s.t.} \quad x'_p \in C_p \cup \{x_p\},
        \quad |\{p : x'_p \ne x_p\}| \le budget

    while the prediction is kept. Positions are the tokens of a text, the categories of a table, the
    bits of a vector or the edges of a graph. No norm measures such changes: each position may take
    one of a few values, and the budget is the number of positions.

    The search replaces one position per step. Those substitutions are evaluated on the real model
    that have the smallest first-order change of the objective, :math:`\partial_p \cdot (c - x_p)`;
    where the gradient is zero, and with ``at_random``, they are drawn at random. The best
    ``beam_width`` results are the starts of the next step, even if they are worse than those
    before. No position is replaced twice. The result is the best one of the whole search, so that a
    larger budget never gives a weaker attack, and its precision at k is an upper bound of the
    smallest one. With ``budget=1`` and as many ``n_candidates`` as there are substitutions it is
    the smallest one.

    Inputs are floating point. For token ids, explain the embeddings: the candidates are then rows
    of the embedding table, and ``info.choices`` are ids.

    Cost of a budget of b: at most b w (n_candidates + 1) + w attributions, w the width of the beam,
    and b w gradients of them.

    Args:
        attribution (Attribution): any Captum attribution; the prediction is that of its model.
        k (int): size of the top set, 1 <= k < n.
        candidates (Tensor, tuple[Tensor, ...], list[Tensor] or Callable): allowed values. A tensor
            (C,) holds those of any single feature. For inputs (N, P, …) with positions along
            dimension 1: a tensor (C, …) of the values of any position, (P, C, …) of those of each
            position, or (N, P, C, …) of those of each position of each example, filled up with NaN;
            for several input tensors, one for all or one each. With ``positions``: one tensor (C,
            W) per position, W the number of its features; None for one-hot groups, each of which
            may take any category. A function of examples, in the form of the inputs, returns any of
            these.
        budget (int, optional): largest number of positions to replace per example, over all input
            tensors. Default: 1.
        n_candidates (int, optional): number of substitutions that are evaluated per step and beam.
            Default: 16.
        beam_width (int, optional): number of results from which each step goes on. 1 is a greedy
            search. Default: 1.
        at_random (bool, optional): draw the substitutions that are evaluated at random, for models
            without any gradient. Default: False.
        max_queries (int, optional): largest number of attributions per example. The last steps
            evaluate fewer substitutions. Default: no limit.
        positions (Tensor or tuple[Tensor, ...], optional): number of the position of each feature,
            0, 1, … and −1 for features that stay; integers in the shape of one example. Default:
            the entries along dimension 1 are the positions.
        objective (Callable, optional): function whose gradient orders the substitutions, and which
            decides between results of equal precision, as in
            :class:`~captum_robust.robust.ExplanationAttack`. Default:
            :class:`~captum_robust.robust.swaps.SwapCountObjective` with temperature 0.3.
        keep (str, optional): ``"precision"``: precision at k decides first, and an example with a
            precision of 0 is finished. ``"objective"``: only the objective decides.
        **options: as in :class:`~captum_robust.robust.ExplanationAttack`, without bounds, step rule
            and soft constraints: ``gradient``, ``smooth_relu``, ``surrogate``, ``predictions``, …
            and ``preserve_prediction``, which is ``"reject"`` or ``"none"``.

    Raises:
        NotDifferentiableError: for ``gradient="autograd"`` on an attribution without a gradient.
        ValueError: for arguments outside their ranges.

    Examples:
        Swap up to two of five words, given by their embeddings:

        >>> import torch
        >>> from captum.attr import InputXGradient
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> class Bag(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.hidden, self.out = nn.Linear(8, 16), nn.Linear(16, 2)
        ...     def forward(self, embeddings):
        ...         return self.out(self.hidden(embeddings).tanh().mean(dim=1))
        >>> table = torch.randn(30, 8)
        >>> ids = torch.randint(0, 30, (4, 5))
        >>> words = torch.arange(5)[:, None].expand(5, 8)  # sums over the embedding
        >>> attack = SubstitutionAttack(
        ...     InputXGradient(Bag()), k=2, candidates=table, budget=2,
        ...     absolute=True, feature_mask=words,
        ... )
        >>> swapped, info = attack.perturb(table[ids], target=1, return_info=True)
        >>> new_ids = torch.where(info.choices >= 0, info.choices, ids)
        >>> torch.equal(table[new_ids], swapped), int(info.n_substitutions.max())
        (True, 2)
        >>> bool((info.precision < 1).any()), bool(info.prediction_kept.all())
        (True, True)

        Change one of three one-hot columns of 3, 2 and 4 categories:

        >>> model = nn.Sequential(nn.Linear(9, 8), nn.Softplus(), nn.Linear(8, 2))
        >>> columns = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
        >>> rows = torch.tensor([[1, 0, 0, 0, 1, 0, 0, 1, 0.0]])
        >>> attack = SubstitutionAttack(InputXGradient(model), 2, None, positions=columns)
        >>> changed, info = attack.perturb(rows, target=1, return_info=True)
        >>> changed.sum(dim=1), int(info.n_substitutions)
        (tensor([3.]), 1)
    """

    searcher = SubstitutionSearch
    reports: type[SubstitutionInfo] = SubstitutionInfo

    def __init__(
        self,
        attribution: Attribution,
        k: int,
        candidates: Candidates | None,
        budget: int = 1,
        n_candidates: int = 16,
        beam_width: int = 1,
        at_random: bool = False,
        max_queries: int | None = None,
        positions: Inputs | None = None,
        objective: Objective | None = None,
        keep: Keep = "precision",
        **options: Any,
    ) -> None:
        for name in ("lower_bound", "upper_bound", "step_rule"):
            if name in options:
                raise ValueError(
                    f"{name} must not be given: candidates say which values are allowed"
                )
        if at_random:  # any method that asks for no derivative; it is not called
            options = {**options, "gradient": "spsa"}
        super().__init__(attribution, objective or SwapCountObjective(k, 0.3), keep=keep, **options)
        check_choice("preserve_prediction", self.preserve_prediction, ("reject", "none"))
        check_count("budget", budget, 0)
        check_count("n_candidates", n_candidates, 1)
        check_count("beam_width", beam_width, 1)
        if max_queries is not None:
            check_count("max_queries", max_queries, 1)
        self.candidates = candidates
        self.budget = budget
        self.n_candidates = n_candidates
        self.beam_width = beam_width
        self.at_random = at_random
        self.max_queries = max_queries
        self.positions = positions

    def _search_options(self, region: Region) -> dict[str, Any]:
        examples = region.centre[0] if isinstance(region.given, Tensor) else region.centre
        return {
            "candidates": candidate_values(self.candidates, self.positions, examples),
            "n_candidates": self.n_candidates,
            "beam_width": self.beam_width,
            "at_random": self.at_random,
            "max_queries": self.max_queries,
        }

    def perturb(  # type: ignore[override]  # a budget is no radius, and has no norm
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
        r"""Replace up to ``budget`` positions of every example.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            budget (int, optional): largest number of positions to replace per example. Default:
                that of the attack.
            target: the explained output, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where a feature must not change, with
                its whole position, and 1 elsewhere; broadcastable to the inputs.
            n_restarts (int, optional): number of searches; the first substitution of all but the
                first search is drawn at random. The best result is chosen for each example.
            seed (int, optional): seed of what is drawn at random, and of the attribution's own
                randomness. None: fresh entropy.
            max_examples_per_batch (int, optional): examples attacked at once. Default: all.
            show_progress (bool, optional): show a progress bar over the steps. Default: False.
            return_info (bool, optional): also return a :class:`SubstitutionInfo`. Default: False.
            **kwargs: passed to ``attribution.attribute``.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``, detached.
            - **info** (*SubstitutionInfo*): if ``return_info``.

        Raises:
            ValueError: for arguments outside their ranges, or candidates that do not fit.

        Warns:
            ZeroGradientWarning: if the gradient is exactly zero for every example at every step.
        """
        budget = self.budget if budget is None else budget
        check_count("budget", budget, 0)
        given: dict[str, Any] = {
            "target": target, "additional_forward_args": additional_forward_args, "mask": mask,
            "seed": seed, "max_examples_per_batch": max_examples_per_batch,
            "n_restarts": n_restarts, "show_progress": show_progress, "return_info": return_info,
        }  # fmt: skip
        return super().perturb(inputs, 1.0, step_num=budget, **given, **kwargs)
