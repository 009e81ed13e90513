"""The explanations that are attacked, of the logit of a network with a single logit."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from captum.attr import Attribution
from torch import Tensor, nn

from captum_robust._utils.captum import as_tuple
from captum_robust.auditing.explanations import ATTRIBUTIONS
from captum_robust.robust.evaluation.scoring import Scorer

__all__ = ["EXPLANATIONS", "Explanation"]


class Explanation(NamedTuple):
    """An explanation of the study.

    Attributes:
        attribution: makes Captum's attribution of a model.
        arguments: arguments of its ``attribute``, except the target.
        is_costly: whether a map takes many gradients, so that fewer rows are attacked.
    """

    attribution: Callable[[nn.Module], Attribution]
    arguments: Mapping[str, Any]
    is_costly: bool

    def magnitudes(self, model: nn.Module, inputs: Tensor, seed: int = 0) -> Tensor:
        """Return the magnitude of each feature, (N, n); noise is the same for every row."""
        scorer = Scorer(self.attribution(model), {"target": 0, **self.arguments}, seed)
        (maps,) = as_tuple(scorer.maps(inputs))
        return maps.abs()


#: Variance of SmoothGrad's noise on standardised tables (C.4.3 of the paper).
_VARIANCE = 0.5

#: The paper integrates gradients over 100 points; the 50 here are Captum's, by Gauss and Legendre.
EXPLANATIONS = {
    name: Explanation(named.make, named.arguments_with(_VARIANCE**0.5), named.is_costly)
    for name, named in ATTRIBUTIONS.items()
    if name in ("saliency", "smoothgrad", "ig")
}
