"""The ensemble of attacks on the ranking of an explanation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.captum import Inputs, Perturbation, TargetType, format_like, log_usage
from captum_robust._utils.checks import check_count
from captum_robust._utils.prediction import predicted_labels
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust.noise import Norm
from captum_robust.robust._ensemble.budget import Budget
from captum_robust.robust._ensemble.ensemble import AutoAttackInfo, Ensemble
from captum_robust.robust._ensemble.members import (
    first_members,
    members_of,
    one_start_each,
    reference_member,
)
from captum_robust.robust._search.evaluator import Predictions
from captum_robust.robust._search.lagrangian import Preserve
from captum_robust.robust._search.problem import Problem

__all__ = ["AutoERAttack"]


class AutoERAttack(Perturbation):
    r"""Run an ensemble of attacks on the ranking, and keep the worst result for each example.

    The members differ in objective, gradient and start, and have no parameters to tune:

    - Objectives: smooth counts of the top-k features that remain, the gaps that close next, and the
      sum of gaps of :class:`ERAttack`.
    - Gradients: that of the attribution itself; those of smoothed networks, because on networks of
      the ReLU family the former may be zero; finite differences over several radii; and random
      search. Attributions without a derivative are attacked through InputXGradient of their model,
      by simultaneous perturbation (SPSA) and by random search.
    - Starts: the example, random points, and the worst point found so far, which the last members
      refine. Gradient members use momentum and step halving.

    :class:`MSEAttack`, :class:`TopKAttack`, :class:`CenterOfMassAttack`, :class:`TargetMapAttack`
    and :class:`ParetoERAttack` are not members.

    Where the prediction must stay, gradient members slide along the decision boundary. All
    candidates are scored on the real model and attribution, so the precision returned for an
    example is at most that of any member. Members that cannot find anything are left out: smoothed
    networks where the network has no kinks, and all further members once an example has lost every
    feature that it can lose.

    Args:
        attribution (Attribution): any Captum attribution; its model makes the prediction.
        k (int): size of the top set, 1 <= k < n.
        lower_bound (float or Tensor, optional): smallest value of a perturbed input.
        upper_bound (float or Tensor, optional): largest value of a perturbed input.
        preserve_prediction (str, optional): as in :class:`ExplanationAttack`. Default: "reject".
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed, as in Captum.
        decision_func (Callable, optional): predicted labels (N,) from the output of the model.
        predictions (Callable, optional): all results whose prediction must stay the same, as in
            :class:`ExplanationAttack`.
        tolerance (float or Tensor, optional): for regressions, how far an output may move, as in
            :class:`ExplanationAttack`.

    Raises:
        ValueError: for arguments outside their ranges.

    Examples::

        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, attack = torch.randn(8, 9), AutoERAttack(Saliency(model), k=3)
        >>> moved, info = attack.perturb(x, radius=0.5, target=1, seed=0, return_info=True)
        >>> bool(info.precision.mean() < 0.6), bool(info.prediction_kept.all())
        (True, True)
        >>> "zero_gradient" in info.flags          # the gradient of the attribution itself is zero
        True
    """

    def __init__(
        self,
        attribution: Attribution,
        k: int,
        lower_bound: float | Tensor = float("-inf"),
        upper_bound: float | Tensor = float("inf"),
        preserve_prediction: Preserve = "reject",
        absolute: bool = False,
        feature_mask: Inputs | None = None,
        decision_func: Callable[[Tensor], Tensor] = predicted_labels,
        predictions: Predictions | None = None,
        tolerance: float | Tensor | None = None,
    ) -> None:
        check_count("k", k, 1)
        self.attribution = attribution
        self.k = k
        self.absolute = absolute
        self.feature_mask = feature_mask
        self.options: dict[str, Any] = {
            "lower_bound": lower_bound, "upper_bound": upper_bound,
            "preserve_prediction": preserve_prediction, "absolute": absolute,
            "feature_mask": feature_mask, "decision_func": decision_func,
            "predictions": predictions, "tolerance": tolerance,
        }  # fmt: skip
        self._reference = reference_member(attribution, k, self.options)

    @overload
    def perturb(
        self, inputs: Inputs, radius: float | Tensor, *args: Any,
        return_info: Literal[False] = ..., **kwargs: Any,
    ) -> Any: ...  # fmt: skip

    @overload
    def perturb(
        self, inputs: Inputs, radius: float | Tensor, *args: Any,
        return_info: Literal[True], **kwargs: Any,
    ) -> tuple[Any, AutoAttackInfo]: ...  # fmt: skip

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def perturb(
        self,
        inputs: Inputs,
        radius: float | Tensor,
        target: TargetType = None,
        additional_forward_args: Any = None,
        norm: Norm = "Linf",
        mask: Inputs | None = None,
        project: Callable[[Any], Any] | None = None,
        seed: int | None = None,
        budget: int | None = None,
        max_examples_per_batch: int | None = None,
        show_progress: bool = False,
        return_info: bool = False,
        start: Inputs | None = None,
        seconds: float | None = None,
        **kwargs: Any,
    ) -> Any:
        r"""Perturb every example to the lowest precision at k that any member finds.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            radius (float or Tensor): radius of the ball around each input tensor, in units of the
                inputs; one for all examples or one per example, shape (N,).
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            norm (str, optional): ``"Linf"`` or ``"L2"``.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where the input must not change.
            project (Callable, optional): as in :meth:`ExplanationAttack.perturb`.
            seed (int, optional): seed of all random numbers. None: fresh entropy.
            budget (int, optional): largest number of attributions per example. Three random draws
                come first, then a short search along a gradient, then the members in their usual
                order; the first that does not fit is shortened, and the others are left out. With
                the same seed a larger budget never finds less. Examples with fewer than five steps
                along a gradient have the flag ``not_attacked``. Default: no limit; with Saliency
                the members take 500 to 1,500 attributions.
                The info on a random attribution takes eight more.
            max_examples_per_batch (int, optional): examples attacked at once. Default: all.
            show_progress (bool, optional): show a progress bar over the members.
            return_info (bool, optional): also return an :class:`AutoAttackInfo`.
            start (Tensor or tuple[Tensor, ...], optional): perturbed inputs to begin with, such as
                the result of a smaller radius; moved into the ball, and never made worse.
            seconds (float, optional): time after which no further step begins, for all examples
                together; one step and the examination of the network may exceed it. Members run in
                the order of ``budget``. The result depends on the speed of the machine; examples
                that could still get worse have the flag ``time_over``. Default: no limit.
            **kwargs: passed to ``attribution.attribute``.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``, detached.
            - **info** (*AutoAttackInfo*): if ``return_info``.

        Raises:
            ValueError: for arguments outside their ranges, inputs outside the bounds, and a
                radius, bounds or mask that leave no example another point.

        Warns:
            UnmovedWarning: if some examples cannot move; their precision is NaN.
        """
        if budget is not None:
            check_count("budget", budget, 1)
        if seconds is not None and not seconds > 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        bounds = (self.options["lower_bound"], self.options["upper_bound"])
        problem = Problem.of(
            inputs, radius, bounds, norm, mask, project, start, seed, target,
            additional_forward_args, kwargs,
        )  # fmt: skip
        limits = Budget(budget, seconds)
        ensemble = Ensemble(problem, self.k, limits, max_examples_per_batch, self.feature_mask)
        with (
            left_as_found(self.attribution, self.options["predictions"]),
            seeded(problem.seed),
            torch.enable_grad(),
        ):
            first = [self._reference]
            if limits.is_limited:
                has_start = problem.start is not None
                first = first_members(self.attribution, self.k, has_start, self.options)
            ensemble.begin(first[0])
            for _ in ensemble.run(first[1:]):
                pass
            traits = ensemble.examine(self._reference.attack)
            members = members_of(self.attribution, self.k, traits, self.options)
            if limits.is_limited:
                members = one_start_each(members)
            running = ensemble.run(members)
            for _ in tqdm(running, total=len(members), disable=not show_progress, unit="member"):
                pass
            ensemble.raise_flags(members[0], traits.randomised)
            if return_info:
                ensemble.compare_seeds(self._reference)
        perturbed = format_like(inputs, ensemble.points)
        return (perturbed, ensemble.info()) if return_info else perturbed
