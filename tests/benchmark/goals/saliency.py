"""Goal 1: Saliency on the direct way, as metrics and attacks take it, against Captum's own call."""

from collections.abc import Callable
from functools import partial

from captum.attr import Saliency
from torch import Tensor
from torch.testing import assert_close

from captum_robust.attr._direct import direct_attribution
from tests.benchmark.cases import Case, cnn_case, gcn_case, mlp_case, resnet_case
from tests.benchmark.row import Effort, Measure, Spread, When, at_least
from tests.benchmark.timing import ratio

__all__ = ["MEASURES"]


def _gain(make: Callable[[int], Case], batch: int, effort: Effort) -> Spread:
    case = make(batch)

    attribution, arguments = Saliency(case.model), {"target": case.target}

    def ours() -> Tensor:
        found = direct_attribution(attribution, (case.inputs,), arguments)
        assert found is not None
        return found.attributions[0]

    def captum() -> Tensor:
        return case.attribute(case.inputs, target=case.target)

    return ratio(captum, ours, effort, same=assert_close)


def _measure(
    what: str, goal: float, make: Callable[[int], Case], batch: int, when: When = "always"
) -> Measure:
    find = partial(_gain, make, batch)
    return Measure(1, "saliency", what, "captum / ours", at_least(goal), find, when)


MEASURES = [
    _measure("MLP, B = 1 000", 15, mlp_case, 1000),
    _measure("MLP, B = 20 000", 25, mlp_case, 20_000),
    _measure("CNN, B = 64", 0.95, cnn_case, 64),
    _measure("CNN, B = 1 024", 0.95, cnn_case, 1024, when="gpu"),
    _measure("GCN, B = 256", 0.95, gcn_case, 256, when="gpu"),
    _measure("ResNet9, B = 8", 0.95, resnet_case, 8, when="full"),
]
