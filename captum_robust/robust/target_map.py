"""The targeted attack of Dombrowski and others: make the map similar to a given map."""

from __future__ import annotations

from typing import Any

from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.checks import check_radius
from captum_robust._utils.tensors import Points, unflatten
from captum_robust.robust._search.descent import Descent
from captum_robust.robust._search.lagrangian import PREDICTION_MODES
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.search import Evaluation
from captum_robust.robust._search.slopes import as_rows
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import TargetMapObjective

__all__ = ["TargetMapAttack", "TargetMapDescent"]


class TargetMapDescent(Descent):
    """Descent of the objective and of the change of the model's output together."""

    def __init__(self, *common: Any, prediction_weight: float) -> None:
        super().__init__(*common)
        self.prediction_weight = prediction_weight
        self._before: Tensor | None = None

    def _term(self, points: Points) -> Tensor | None:
        return self._change(self.scored.outputs(points)) if self.prediction_weight > 0 else None

    def _violations(self, points: Points, graph: bool) -> tuple[list[Tensor], list[Tensor]]:
        if self.prediction_weight == 0:
            return super()._violations(points, graph)
        outputs = self.scored.outputs(points, graph)
        return [outputs], [self._change(outputs)]

    def _gradient(self, leaves: Points, here: Evaluation) -> Points:
        if self.prediction_weight == 0:
            return super()._gradient(leaves, here)
        found = self.settings.gradient.measure(self._here(leaves, here))
        rows = as_rows([*found.slopes, *found.slopes_of_results]).sum(dim=1)
        # Only directions count.
        rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-300)
        together = unflatten(rows.to(self.region.radius), leaves)
        self._note_gradient(together)
        return together

    def _change(self, outputs: Tensor) -> Tensor:
        """Return the weighted squared change of the output; (m,)."""
        if self._before is None:  # the first point that is evaluated is the example
            self._before = outputs.detach()
        change = (outputs - self._mine(self._before)).reshape(len(outputs), -1)
        return self.prediction_weight * change.square().sum(dim=1).to(self.region.radius)


class TargetMapAttack(ExplanationAttack):
    r"""Make the map similar to a target map, and keep the output of the model unchanged.

    .. math::
        \min_\delta \frac{\|\bar I(x + \delta) - \bar I^t\|_2^2}{\|\bar I(x) - \bar I^t\|_2^2}
        + \gamma \, \|g(x + \delta) - g(x)\|_2^2, \qquad \bar I = I / \sum_j |I_j|

    where g is the output of the model, logits or probabilities, I the attribution map and
    :math:`I^t` the target map. The first term is 1 at the example, and 0 where the map is the
    target up to a factor. Source: Dombrowski, Alber, Anders, Ackermann, Müller, Kessel 2019,
    "Explanations can be manipulated and geometry is to blame" (arXiv 1906.07983), section 2, on
    maps normalised as in its experiments; the paper does not divide by the distance at the example.
    For ReLU networks the paper raises :math:`\beta` of a softplus from 10 to 100:
    ``smooth_relu=(10.0, 100.0)``.

    Args:
        attribution (Attribution): any Captum attribution.
        target_map (Tensor or tuple[Tensor, ...]): the target map, in the form of the attributions:
            one row for all examples (first dimension 1), or one row per example of the inputs.
            ``absolute`` and ``feature_mask`` apply to the target as to the attributions.
        prediction_weight (float, optional): :math:`\gamma`, not negative. Default: 1.0, of the
            order of the paper's.
        k (int, optional): size of the top set whose first change is reported in the info.
        **options: as in :class:`ExplanationAttack`; soft constraints in ``preserve_prediction``
            need ``prediction_weight=0``.

    Raises:
        ValueError: for target maps of another shape, when the inputs are perturbed.

    Examples::

        >>> import torch
        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> x, target_map = torch.randn(3, 6), torch.tensor([[1., 1., 1., 0., 0., 0.]])
        >>> attack = TargetMapAttack(Saliency(model), target_map)
        >>> _, info = attack.perturb(x, radius=1.0, target=1, return_info=True)
        >>> bool((info.objective < 0.9).all())
        True
    """

    searcher = TargetMapDescent

    def __init__(
        self,
        attribution: Attribution,
        target_map: Inputs,
        prediction_weight: float = 1.0,
        k: int | None = None,
        **options: Any,
    ) -> None:
        check_radius(prediction_weight, "prediction_weight")
        super().__init__(attribution, TargetMapObjective(target_map, k), **options)
        soft = PREDICTION_MODES[self.preserve_prediction].weights is not None
        if soft and prediction_weight > 0:
            raise ValueError(
                f"prediction_weight must be 0 with preserve_prediction="
                f"{self.preserve_prediction!r}, got {prediction_weight}"
            )
        self.prediction_weight = prediction_weight

    def _search_options(self, region: Region) -> dict[str, Any]:
        return {"prediction_weight": self.prediction_weight}
