"""The ensemble of attacks that a claim of robustness must survive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from captum.attr import Attribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.captum import Inputs, Perturbation, TargetType, like, log_usage
from captum_robust._utils.checks import check_count
from captum_robust._utils.prediction import predicted_labels
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust.noise import Norm
from captum_robust.robust._ensemble.ensemble import AutoAttackInfo, Ensemble
from captum_robust.robust._ensemble.members import members_of, reference_member
from captum_robust.robust._search.evaluator import Predictions
from captum_robust.robust._search.problem import Problem
from captum_robust.robust._search.search import Preserve

__all__ = ["AutoERAttack"]


class AutoERAttack(Perturbation):
    r"""Run every attack there is on the ranking of an explanation, and keep the worst an example.

    There is nothing to tune: the members are the gradient of the attribution itself, those of
    smoothed stand-ins for networks of the ReLU family, whose own may be zero, finite differences
    over several radii, and random search; with objectives that count the features to be swapped
    next, and the sum of gaps of :class:`ERAttack`; with momentum and steps that halve, from the
    example and from random points; the last members refine the best point of all. Attributions
    without a derivative are attacked through the saliency of their model, by simultaneous
    perturbation and random search.

    Where the prediction must be kept, the members slide along the decision boundary. All candidates
    are scored on the real model and attribution. The result is never weaker than
    that of any member. Members that cannot add anything are left out: smoothed stand-ins of a
    network without kinks, and all that remain once an example has lost every feature that it can.

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
        predictions (Callable, optional): all results that must be predicted as before, as in
            :class:`ExplanationAttack`: those of a Siamese network, say.

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
        >>> "zero_gradient" in info.flags          # a naive attack would have called it robust
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
            "predictions": predictions,
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
        **kwargs: Any,
    ) -> Any:
        r"""Perturb every example to the lowest precision at k that any member finds.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
            radius (float or Tensor): radius of the ball around each input tensor, in units of the
                inputs; one for all or one an example, shape (N,).
            target: output that is explained, in any of Captum's forms.
            additional_forward_args: further arguments of the model, as in Captum.
            norm (str, optional): ``"Linf"`` or ``"L2"``.
            mask (Tensor or tuple[Tensor, ...], optional): 0 where the input must not change.
            project (Callable, optional): as in :meth:`ExplanationAttack.perturb`.
            seed (int, optional): seed of everything random. None: fresh entropy.
            budget (int, optional): most attributions to compute for an example; a member that might
                exceed it is not run. Up to five are needed before the first. Default: no limit,
                which makes 500 to 1,500 with Saliency.
            max_examples_per_batch (int, optional): examples attacked at once. Default: all.
            show_progress (bool, optional): show a progress bar over the members.
            return_info (bool, optional): also return an :class:`AutoAttackInfo`.
            start (Tensor or tuple[Tensor, ...], optional): perturbed inputs to begin with, such as
                the result of a smaller radius; moved into the ball, and never made worse.
            **kwargs: passed to ``attribution.attribute``.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``, detached.
            - **info** (*AutoAttackInfo*): if ``return_info``.

        Raises:
            ValueError: for arguments outside their ranges, or inputs outside the bounds.
        """
        if budget is not None:
            check_count("budget", budget, 1)
        bounds = (self.options["lower_bound"], self.options["upper_bound"])
        problem = Problem.of(
            inputs, radius, bounds, norm, mask, project, start, seed, target,
            additional_forward_args, kwargs,
        )  # fmt: skip
        ensemble = Ensemble(problem, self.k, budget, max_examples_per_batch)
        with (
            left_as_found(self.attribution, self.options["predictions"]),
            seeded(problem.seed),
            torch.enable_grad(),
        ):
            nature = ensemble.look(self._reference)
            members = members_of(self.attribution, self.k, nature, self.options)
            running = ensemble.run(members)
            for _ in tqdm(running, total=len(members), disable=not show_progress, unit="member"):
                pass
            ensemble.doubt(members[0], nature.randomised)
        perturbed = like(inputs, ensemble.points)
        return (perturbed, ensemble.info()) if return_info else perturbed
