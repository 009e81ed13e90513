"""Goal 10: a step of every training method, against a plain step of the same network."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from captum_robust.loss import (
    AdversarialRankingLoss,
    CrossLipschitzLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
    replace_relu,
)
from tests.benchmark.cases import Case, cnn_case, mlp_case
from tests.benchmark.goals.training import plain, step_of
from tests.benchmark.row import Bound, Effort, Measure, Spread, at_most
from tests.benchmark.timing import ratio

__all__ = ["MEASURES"]

_Method = Callable[[nn.Module, Case], nn.Module]

_R2ET: dict[str, _Method] = {
    "R2ET": lambda model, case: R2ETLoss(model, case.k),
    "R2ET, compiled": lambda model, case: R2ETLoss(model, case.k, compile=True),
    "R2ET, gaps only": lambda model, case: R2ETLoss(model, case.k, lambda2=0.0),
    "R2ET, gaps only, compiled": lambda model, case: R2ETLoss(
        model, case.k, lambda2=0.0, compile=True
    ),
}
_METHODS: dict[str, _Method] = {
    **_R2ET,
    "R2ET, every=4": lambda model, case: R2ETLoss(model, case.k, every=4),
    "R2ET, every=8": lambda model, case: R2ETLoss(model, case.k, every=8),
    "R2ET, fraction=0.25": lambda model, case: R2ETLoss(model, case.k, fraction=0.25),
    "Est-H": lambda model, case: HessianNormLoss(model),
    "AT, 1 step": lambda model, case: AdversarialRankingLoss(model, case.k, 0.1),
    "AT, 10 steps": lambda model, case: AdversarialRankingLoss(model, case.k, 0.1, step_num=10),
    "SSR": lambda model, case: SSRLoss(model),
}
_OF_TABLES: dict[str, _Method] = {
    "Exact-H": lambda model, case: HessianNormLoss(model, hessian="exact"),
    "Exact-H, spectral": lambda model, case: HessianNormLoss(model, hessian="spectral"),
    "CL": lambda model, case: CrossLipschitzLoss(model, case.k),
}
_CYCLES = {"R2ET, every=4": 4, "R2ET, every=8": 8}
_GOALS = {
    "R2ET, every=4": at_most(2),
    "R2ET, every=8": at_most(2),
    "R2ET, fraction=0.25": at_most(2),
}
_GOALS_OF_MLP = {
    **_GOALS,
    "R2ET": at_most(4),
    "R2ET, compiled": at_most(4),
    "R2ET, gaps only": at_most(2.2),
    "R2ET, gaps only, compiled": at_most(2.2),
}


def _time(method: _Method, cycle: int, case_of: Callable[[], Case], effort: Effort) -> Spread:
    case = case_of()

    def loss_of(model: nn.Module, case: Case) -> Callable[[], Tensor]:
        criterion, inputs = method(model, case), case.inputs.detach()
        return lambda: criterion(inputs, case.target)  # type: ignore[no-any-return]

    one = step_of(loss_of, case)
    for _ in range(cycle + 1):  # a compiled loss compiles
        one()

    def whole_cycle() -> Any:
        for _ in range(cycle):
            gradients = one()
        return gradients

    return ratio(whole_cycle, step_of(plain, case), effort, share=cycle)


def _softplus_for_relu(case_of: Callable[[], Case], effort: Effort) -> Spread:
    case = case_of()
    layers = [nn.ReLU() if isinstance(layer, nn.Softplus) else layer for layer in case.model]
    case = replace(case, model=nn.Sequential(*layers))
    below = step_of(plain, case)
    with replace_relu(case.model, beta=5.0):
        above = step_of(plain, case)  # of a copy
    return ratio(above, below, effort)


def _measures(
    what: str, case_of: Callable[[], Case], methods: dict[str, _Method], goals: dict[str, Bound]
) -> list[Measure]:
    return [
        Measure(
            10, "losses", what, f"{name} / plain step", goals.get(name, Bound()),
            partial(_time, method, _CYCLES.get(name, 1), case_of),
        )
        for name, method in methods.items()
    ]  # fmt: skip


def _softplus(what: str, case_of: Callable[[], Case]) -> Measure:
    swap = partial(_softplus_for_relu, case_of)
    return Measure(10, "losses", what, "softplus / ReLU, plain step", Bound(), swap)


_MLP, _WIDE, _CNN = partial(mlp_case, 64), partial(mlp_case, 1024), partial(cnn_case, 64)

MEASURES = [
    *_measures("MLP, B = 64", _MLP, {**_METHODS, **_OF_TABLES}, _GOALS_OF_MLP),
    _softplus("MLP, B = 64", _MLP),
    *_measures("MLP, B = 1 024", _WIDE, _R2ET, _GOALS_OF_MLP),
    *_measures("CNN, B = 64", _CNN, _METHODS, _GOALS),
    _softplus("CNN, B = 64", _CNN),
]
