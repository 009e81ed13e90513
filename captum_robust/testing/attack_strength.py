"""Rules on the strength of an attack, by its objective on the real model with stock Captum."""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust.metrics import precision_at_k
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.report import require, require_close

__all__ = [
    "check_at_least_as_strong_as_random_draws",
    "check_info_tells_the_objective",
    "check_large_radius_breaks_the_ranking",
    "check_larger_radius_is_never_weaker",
    "check_linear_model_is_perfectly_robust",
    "check_more_restarts_are_never_weaker",
    "check_more_steps_are_never_weaker",
    "check_never_worse_than_no_attack",
    "check_quadratic_model_reaches_the_optimum",
    "check_relu_model_is_not_called_robust",
]

_ROUNDING = 1e-9


def check_never_worse_than_no_attack(case: AttackCase) -> None:
    """No example is returned with a larger objective than before."""
    _require_no_weaker(case.objective(case.perturb()), _unattacked(case), "weaker than no attack")


def check_more_steps_are_never_weaker(case: AttackCase) -> None:
    """The best point is kept: more steps are never weaker for any example."""
    few, more, many = (
        case.objective(case.perturb(**case.effort(n_steps))) for n_steps in (1, 3, 8)
    )
    if not case.traits.keeps_best:
        few, more, many = few.mean(), more.mean(), many.mean()
    _require_no_weaker(more, few, "3 steps are weaker than 1")
    _require_no_weaker(many, more, "8 steps are weaker than 3")


def check_more_restarts_are_never_weaker(case: AttackCase) -> None:
    """``n_restarts`` keeps the best restart of each example, not of the batch or the last one."""
    one, two, four = (case.objective(case.perturb(n_restarts=n)) for n in (1, 2, 4))
    _require_no_weaker(two, one, "2 restarts are weaker than 1")
    _require_no_weaker(four, two, "4 restarts are weaker than 2")


def check_larger_radius_is_never_weaker(case: AttackCase) -> None:
    """An attack in a larger ball that starts from the result in a smaller one is never weaker.

    Without a warm start, the mean over the examples must not be weaker.
    """
    small, larger = case.perturb(), 1.5 * case.model.radius
    found = case.objective(small)
    if case.traits.warm_start:
        large = case.objective(case.perturb(radius=larger, start=small))
        _require_no_weaker(large, found, "weaker in a larger ball than its start")
    else:
        large = case.objective(case.perturb(radius=larger))
        _require_no_weaker(large.mean(), found.mean(), "weaker in a larger ball, in the mean")


def check_at_least_as_strong_as_random_draws(case: AttackCase) -> None:
    """10 steps are not weaker, in the mean over the examples, than the best of 10 random draws.

    The gradient of an attack that is weaker than noise is masked.
    """
    _require_no_weaker(
        case.objective(case.perturb(**case.effort(10))).mean(),
        case.best_of_noise(10).mean(),
        "weaker than random draws",
    )


def check_relu_model_is_not_called_robust(case: AttackCase) -> None:
    """On a ReLU network, be not weaker than noise, or warn.

    The gradient of a saliency is zero on such networks, so that a plain attack does not move and
    reports robustness. (An attack without ``beats_noise`` must find any change, or warn.)
    """
    attack = case.attack()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = {
            "radius": case.model.radius, "norm": case.norm, "seed": 0,
            **case.effort(10), **case.model.arguments,
        }  # fmt: skip
        found = case.objective(attack.perturb(case.model.inputs, **given)).mean()
    if any(issubclass(w.category, UserWarning) for w in caught):
        return
    if case.traits.beats_noise:
        _require_no_weaker(
            found, case.best_of_noise(10).mean(), "weaker than random draws, without a warning"
        )
    else:
        require(found < _unattacked(case).mean() - _ROUNDING, "found no change, and did not warn")


def check_linear_model_is_perfectly_robust(case: AttackCase) -> None:
    """On a linear model, whose saliency is constant, inputs stay finite and the objective equal.

    Normalised steps divide by zero where the gradient is exactly zero.
    """
    moved = case.perturb()
    require(
        all(bool(t.isfinite().all()) for t in as_tuple(moved)),
        "a gradient of zero made the inputs infinite or NaN",
    )
    unattacked = _unattacked(case)
    require_close(case.objective(moved), unattacked, "changed the objective of a constant map")


def check_quadratic_model_reaches_the_optimum(case: AttackCase) -> None:
    """On a model with affine saliencies, reach 95 % of the best of 50 boundary points.

    Linear and concave objectives have their optimum on the boundary of the ball.
    """
    start = _unattacked(case)
    found = case.objective(case.perturb(**case.effort(30)))
    points = case.random_points(50, on_boundary=True)
    best = torch.stack([case.objective(p) for p in points]).amin(dim=0)
    gained, possible = (start - found).mean(), (start - best).mean()
    require(
        gained >= 0.95 * possible,
        f"lowered the objective by {float(gained):.6g} in the mean, {float(possible):.6g} is "
        "possible",
    )


def check_large_radius_breaks_the_ranking(case: AttackCase) -> None:
    """In a large ball around examples of a curved model, the attack changes the top k."""
    far = replace(case, model=replace(case.model, radius=3 * case.model.radius))
    moved = far.perturb(**far.effort(10))
    kept = precision_at_k(case.maps(moved), case.maps(case.model.inputs), case.model.k)
    require(
        float(kept.mean()) <= 0.5,
        f"{float(kept.mean()):.0%} of the top k remain within a radius of {far.model.radius}",
    )


def check_info_tells_the_objective(case: AttackCase) -> None:
    """The reported objective is that of the returned inputs on the real model."""
    moved, info = case.perturb(return_info=True)
    value, reported = case.objective(moved), getattr(info, case.traits.info or "")
    require(
        reported.shape == value.shape
        and torch.allclose(reported.to(value), value, rtol=1e-6, atol=_ROUNDING),
        f"reports {reported.tolist()}, the returned inputs have {value.tolist()}",
    )


def _unattacked(case: AttackCase) -> Tensor:
    return case.objective(case.model.inputs)


def _require_no_weaker(found: Tensor, than: Tensor, how: str) -> None:
    worse = found > than + _ROUNDING
    require(
        not bool(worse.any()),
        f"{how}: {found.tolist()} > {than.tolist()}",
    )
