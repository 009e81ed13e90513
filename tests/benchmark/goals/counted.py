"""Goal 13: what can be counted does not depend on the machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust.attr._direct import direct_attribution
from captum_robust.loss import R2ETLoss
from captum_robust.metrics import (
    attribution_mse,
    center_of_mass_shift,
    pearson_correlation,
    precision_at_k,
    ranking_gap,
    ranking_thickness,
    spearman_correlation,
)
from captum_robust.ranking import top_k_indices
from captum_robust.robust import ERAttack
from tests.benchmark.cases import Case, cnn_case, mlp_case
from tests.benchmark.operations import count_operations
from tests.benchmark.peers.gradient import bare_saliency, bare_steps
from tests.benchmark.row import Bound, Effort, Measure, Spread, at_most

__all__ = ["MEASURES"]


@contextmanager
def _calls(model: nn.Module) -> Iterator[list[int]]:
    """The number of examples of every forward."""
    seen: list[int] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append(len(arguments[0]))

    hook = model.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        hook.remove()


def _exactly(count: int) -> Bound:
    return Bound(count, count)


def _found(count: int) -> Spread:
    return Spread.of([float(count)])


def _training(effort: Effort) -> Spread:
    case = mlp_case(16)
    with _calls(case.model) as seen:
        R2ETLoss(case.model, case.k)(case.inputs.detach(), case.target).backward()
    case.model.zero_grad()
    return _found(len(seen))


def _attack(gradient: str, effort: Effort) -> Spread:
    case = mlp_case(16)
    with _calls(case.model) as seen:
        ERAttack(Saliency(case.model), case.k, gradient=gradient).perturb(
            case.inputs, radius=0.1, step_num=10, target=case.target, return_info=True, seed=0
        )
    return _found(len(seen))


def _step_operations(norm: Literal["Linf", "L2"], effort: Effort) -> Spread:
    """Of one step of an attack beyond those of a bare step, once all gradients have been found."""
    case = mlp_case(16)
    attack = ERAttack(Saliency(case.model), case.k)
    given: dict[str, Any] = {"radius": 0.1, "target": case.target, "seed": 0, "norm": norm}
    few, many = (
        count_operations(partial(attack.perturb, case.inputs, step_num=n, **given)) for n in (4, 14)
    )
    top = top_k_indices(case.attribute(case.inputs, target=case.target), case.k)
    bare = partial(bare_steps, case.model, case.inputs, case.target, top, 1)
    return _found((many - few) / 10 - count_operations(bare))


def _thickness(effort: Effort) -> Spread:
    case = mlp_case(16)
    with _calls(case.model) as seen:
        ranking_thickness(
            case.attribute, case.inputs, case.k, n_perturb_samples=5, n_steps=4, sampling="grid",
            target=case.target, seed=0,
        )  # fmt: skip
    return _found(sum(seen))


def _saliency_operations(effort: Effort) -> Spread:
    """Of an attribution on the direct way, beyond those of the bare gradient."""
    case = mlp_case(16)
    attribution, arguments = Saliency(case.model), {"target": case.target}
    ours = partial(direct_attribution, attribution, (case.inputs,), arguments)
    bare = partial(bare_saliency, case.model, case.inputs, case.target)
    return _found(count_operations(ours) - count_operations(bare))


def _thickness_operations(sampling: Literal["grid", "stratified"], effort: Effort) -> Spread:
    """Of the whole metric; each example brings its own noise, the number of points nothing."""
    case = mlp_case(16)
    return _found(
        count_operations(
            partial(
                ranking_thickness, case.attribute, case.inputs, case.k, n_perturb_samples=5,
                n_steps=4, sampling=sampling, target=case.target, seed=0,
            )
        )
    )  # fmt: skip


def _precision_operations(effort: Effort) -> Spread:
    case = cnn_case(4)
    left, right = (_maps(case, shift) for shift in (0.0, 0.1))
    return _found(count_operations(partial(precision_at_k, left, right, case.k)))


def _given_maps(effort: Effort) -> Spread:
    case = cnn_case(4)
    left, right = (_maps(case, shift) for shift in (0.0, 0.1))
    with _calls(case.model) as seen:
        precision_at_k(left, right, case.k)
        ranking_gap(left, case.k, reference_attributions=right)
        for metric in (
            attribution_mse, center_of_mass_shift, pearson_correlation, spearman_correlation,
        ):  # fmt: skip
            metric(left, right)
    return _found(len(seen))


def _maps(case: Case, shift: float) -> Tensor:
    points = (case.inputs.detach() + shift).requires_grad_()
    return case.attribute(points, target=case.target)


MEASURES = [
    Measure(13, "counted", "R2ET step", "forwards", at_most(2), _training),
    Measure(
        13, "counted", "attack, 10 steps", "forwards", at_most(13),
        partial(_attack, "autograd"),
    ),
    Measure(
        13, "counted", "attack, 10 steps, differences", "forwards", at_most(23),
        partial(_attack, "finite_difference"),
    ),
    Measure(
        13, "counted", "attack step, MLP", "operations beyond the bare step", at_most(40),
        partial(_step_operations, "Linf"),
    ),
    Measure(
        13, "counted", "attack step, MLP, L2", "operations beyond the bare step", at_most(60),
        partial(_step_operations, "L2"),
    ),
    Measure(13, "counted", "thickness, 16 × 5 × 4", "gradients", _exactly(16 * 21), _thickness),
    Measure(13, "counted", "metrics of given maps", "forwards", _exactly(0), _given_maps),
    Measure(
        13, "counted", "saliency, MLP", "operations beyond the gradient", at_most(5),
        _saliency_operations,
    ),
    Measure(
        13, "counted", "thickness, 16 × 5 × 4", "operations", at_most(310),
        partial(_thickness_operations, "grid"),
    ),
    Measure(
        13, "counted", "thickness, 16 × 20 stratified", "operations", at_most(340),
        partial(_thickness_operations, "stratified"),
    ),
    Measure(13, "counted", "P@k of two maps", "operations", at_most(45), _precision_operations),
]  # fmt: skip
