"""Goal 10: a step of R2ET training, against a plain step and against a pass for every term."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from captum_robust.loss import R2ETLoss
from tests.benchmark.cases import Case, cnn_case, mlp_case, resnet_case
from tests.benchmark.memory import peak_ratio
from tests.benchmark.peers.training import separate_passes
from tests.benchmark.row import Bound, Effort, Measure, Spread, When, at_least, at_most
from tests.benchmark.timing import ratio

__all__ = ["MEASURES", "measures_of_r2et", "plain", "step_of"]

_LAMBDA, _KAPPA = 0.1, 1e-2

_Make = Callable[[int], Case]
_Loss = Callable[[nn.Module, Case], Callable[[], Tensor]]


def plain(model: nn.Module, case: Case) -> Callable[[], Tensor]:
    """The cross-entropy of a batch."""
    inputs = case.inputs.detach()
    return lambda: F.cross_entropy(model(inputs), case.target)


def _r2et(model: nn.Module, case: Case, lambda2: float = _LAMBDA) -> Callable[[], Tensor]:
    inputs = case.inputs.detach()
    criterion = R2ETLoss(model, case.k, lambda1=_LAMBDA, lambda2=lambda2, kappa=_KAPPA)
    return lambda: criterion(inputs, case.target)


def _separate(model: nn.Module, case: Case) -> Callable[[], Tensor]:
    inputs = case.inputs.detach()
    return lambda: separate_passes(model, inputs, case.target, case.k, _LAMBDA, _LAMBDA, _KAPPA)


def step_of(loss_of: _Loss, case: Case, parameters_alone: bool = False) -> Callable[[], Tensor]:
    """A step of Adam on a copy of the model; returns the gradients that it took.

    With ``parameters_alone``, no gradient is computed for the inputs, which no step needs.
    """
    model = copy.deepcopy(case.model)
    loss = loss_of(model, case)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)  # the network stays what it is

    def step() -> Tensor:
        optimizer.zero_grad()
        loss().backward(inputs=list(model.parameters()) if parameters_alone else None)
        optimizer.step()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    return step


def _time(
    above: _Loss, below: _Loss, equal: bool, make: _Make, batch: int, effort: Effort
) -> Spread:
    case = make(batch)

    def same(left: Tensor, right: Tensor) -> None:
        assert_close(left, right, rtol=0, atol=1e-3 * float(right.abs().max()))

    return ratio(step_of(above, case), step_of(below, case), effort, same if equal else None)


def _of_parameters_alone(make: _Make, batch: int, effort: Effort) -> Spread:
    case = make(batch)
    return ratio(step_of(_r2et, case, parameters_alone=True), step_of(plain, case), effort)


def _memory(make: _Make, batch: int, effort: Effort) -> Spread | None:
    case = make(batch)
    return peak_ratio(step_of(_r2et, case), step_of(_separate, case))


def measures_of_r2et(
    what: str,
    make: _Make,
    batch: int,
    to_plain: Bound,
    gaps_only: Bound,
    separate: Bound,
    when: When = "always",
    goal: int = 10,
    group: str = "training",
) -> list[Measure]:
    """A step of R2ET on a network: its time, against a plain one and separate passes; memory."""

    def measure(ratio_of: str, bound: Bound, find: Callable[..., Spread | None]) -> Measure:
        return Measure(goal, group, what, ratio_of, bound, partial(find, make, batch), when)

    gaps = partial(_r2et, lambda2=0)
    alone = "ours, gradients of parameters alone / plain step"
    return [
        measure("ours / plain step", to_plain, partial(_time, _r2et, plain, False)),
        measure(alone, to_plain, _of_parameters_alone),
        measure("ours, gaps only / plain step", gaps_only, partial(_time, gaps, plain, False)),
        measure("separate passes / ours", separate, partial(_time, _separate, _r2et, True)),
        measure("memory ours / separate", at_most(0.8), _memory),
    ]


MEASURES = [
    *measures_of_r2et("MLP, B = 1 024", mlp_case, 1024, Bound(), Bound(), at_least(3)),
    *measures_of_r2et("CNN, B = 64", cnn_case, 64, at_most(4.8), at_most(2.5), at_least(1.9)),
    *measures_of_r2et(
        "CNN, B = 1 024", cnn_case, 1024, at_most(4.8), at_most(2.5), at_least(1.9), when="gpu"
    ),
    *measures_of_r2et(
        "ResNet9, B = 8", resnet_case, 8, at_most(4.3), at_most(2.2), at_least(1.8), when="full"
    ),
]
