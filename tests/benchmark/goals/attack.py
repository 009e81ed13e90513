"""Goal 8: ERAttack on the whole batch, against one example at a time and bare saliencies."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from captum.attr import Saliency
from torch import Tensor
from torch.testing import assert_close

from captum_robust.ranking import top_k_indices
from captum_robust.robust import ERAttack
from tests.benchmark.cases import Case, cnn_case, gcn_case, mlp_case, resnet_case
from tests.benchmark.device import on_gpu
from tests.benchmark.memory import peak_ratio
from tests.benchmark.peers.attack import attack_one_by_one
from tests.benchmark.peers.gradient import bare_saliency, bare_steps
from tests.benchmark.row import Effort, Measure, Spread, When, at_least, at_most
from tests.benchmark.timing import difference_ratio, ratio

__all__ = ["MEASURES", "Setting", "attack_of", "gain_over_one_by_one"]

Gradient = Literal["autograd", "finite_difference"]

_STEP = 0.05


class Setting(NamedTuple):
    """An attack of some steps on a batch, scored at every step; ``n_alone`` of it one by one."""

    make: Callable[[int], Case]
    batch: int
    n_steps: int
    n_alone: int = 0


def attack_of(
    case: Case, n_steps: int, gradient: Gradient = "autograd", with_info: bool = True
) -> Callable[[], Tensor]:
    """Ours; the ball is out of reach, so that both sides take the same plain steps."""
    attack = ERAttack(Saliency(case.model), case.k, pairs="anchor", gradient=gradient)
    options: dict[str, Any] = {
        "radius": 2 * _STEP * n_steps, "step_size": _STEP, "step_num": n_steps, "norm": "L2",
        "target": case.target, "seed": 0, "return_info": with_info,
    }  # fmt: skip

    def run() -> Tensor:
        found = attack.perturb(case.inputs, **options)
        moved: Tensor = found[0] if with_info else found
        return moved

    return run


def _one_by_one(case: Case, n_steps: int) -> Callable[[], Tensor]:
    return partial(attack_one_by_one, case.model, case.inputs, case.target, case.k, _STEP, n_steps)


def gain_over_one_by_one(setting: Setting, effort: Effort) -> Spread:
    case = setting.make(setting.batch)
    n_alone = 1 if effort.quick else setting.n_alone
    alone = case.some(n_alone)
    exact = alone.double()
    ours, peers = (make(exact, setting.n_steps)() for make in (attack_of, _one_by_one))
    assert not torch.equal(ours, exact.inputs)
    # A GPU adds in any order, and what is rounded differently grows with the steps.
    assert_close(ours, peers, **({"rtol": 0, "atol": 1e-4 * _STEP} if on_gpu() else {}))
    share = n_alone / setting.batch
    return ratio(
        _one_by_one(alone, setting.n_steps), attack_of(case, setting.n_steps), effort, share=share
    )


def _cost(setting: Setting, gradient: Gradient, effort: Effort) -> Spread:
    """Time of a step over that of the bare gradient of the batch.

    The last point is evaluated too; over ten steps that adds a tenth of a saliency.
    """
    case, n_steps = setting.make(setting.batch), max(10, setting.n_steps)
    saliency = partial(bare_saliency, case.model, case.inputs, case.target)
    return ratio(attack_of(case, n_steps, gradient), saliency, effort, share=n_steps)


def _over_bare(setting: Setting, options: dict[str, Any], effort: Effort) -> Spread:
    """Time of the steps of an attack over that of the bare steps; start and end aside.

    What an attack does once, before and after its steps, is taken off by a shorter attack. A
    compiled attack has compiled before.
    """
    case, n_steps = setting.make(setting.batch), setting.n_steps
    top = top_k_indices(case.attribute(case.inputs, target=case.target).flatten(1), case.k)
    attack = ERAttack(Saliency(case.model), case.k, **options)
    given: dict[str, Any] = {"radius": 0.1, "target": case.target, "seed": 0}
    long, short = (
        partial(attack.perturb, case.inputs, step_num=n, **given) for n in (n_steps + 2, 2)
    )
    bare = partial(bare_steps, case.model, case.inputs, case.target, top, n_steps)
    return difference_ratio(long, short, bare, effort)


def _growth(effort: Effort) -> Spread | None:
    """Peak memory of 1 000 steps (200 where time is short) over that of 50."""
    case, n_long = mlp_case(1024), 200 if effort.quick else 1000
    long, short = (attack_of(case, n, with_info=False) for n in (n_long, 50))
    return peak_ratio(long, short)


def _measures(what: str, setting: Setting, gain: float, when: When = "always") -> list[Measure]:
    one_by_one = partial(gain_over_one_by_one, setting)
    own = partial(_cost, setting, "autograd")
    differences = partial(_cost, setting, "finite_difference")
    step = "step / saliency"
    return [
        Measure(8, "attack", what, "one by one / ours", at_least(gain), one_by_one, when),
        Measure(8, "attack", what, step, at_most(4), own, when),
        Measure(8, "attack", f"{what}, differences", step, at_most(2.4), differences, when),
    ]


def _over(
    what: str, setting: Setting, goal: float, when: When = "always", **options: Any
) -> Measure:
    find = partial(_over_bare, setting, options)
    return Measure(8, "attack", what, "step / bare step", at_most(goal), find, when)


MEASURES = [
    _over("MLP, B = 64", Setting(mlp_case, 64, 200), 1.5),
    _over("MLP, B = 1 024", Setting(mlp_case, 1024, 100), 1.4),
    _over("MLP, B = 64, compiled", Setting(mlp_case, 64, 200), 1.1, compile=True),
    _over("MLP, B = 1 024, compiled", Setting(mlp_case, 1024, 100), 1.1, compile=True),
    _over("GCN, B = 16", Setting(gcn_case, 16, 10), 1.2),
    _over("CNN, B = 64", Setting(cnn_case, 64, 5), 1.15),
    _over("ResNet9, B = 4", Setting(resnet_case, 4, 2), 1.15, "full"),
    *_measures("MLP, B = 64", Setting(mlp_case, 64, 20, 16), 80),
    *_measures("MLP, B = 1 024", Setting(mlp_case, 1024, 20, 16), 400),
    *_measures("CNN, B = 64", Setting(cnn_case, 64, 10, 8), 2.5),
    *_measures("GCN, B = 16", Setting(gcn_case, 16, 10, 8), 3.5),
    *_measures("CNN, B = 1 024", Setting(cnn_case, 1024, 10, 2), 2.5, when="gpu"),
    *_measures("GCN, B = 256", Setting(gcn_case, 256, 10, 2), 3.5, when="gpu"),
    *_measures("ResNet9, B = 4", Setting(resnet_case, 4, 2, 2), 1.7, when="full"),
    Measure(8, "attack", "MLP, 50 → 1 000 steps", "growth of memory", at_most(1.3), _growth),
]
