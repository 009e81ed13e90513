"""Every check of attacks catches an attack that breaks its rule, and passes others."""

import dataclasses
import random
import secrets
import warnings

import numpy as np
import pytest
import torch

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.robust import ERAttack, UniformNoise
from captum_robust.testing import ATTACK_RULES, attack_checks, small_models
from captum_robust.testing.random_maps import NoisyModel
from tests.testing.subjects import failing, first_of_each

# A smooth model, and those that some rules are about.
MODELS = [m for m in small_models() if m.name in ("mlp_tanh", "mlp_relu", "linear", "quadratic")]
# Every rule on the first of them that it applies to.
CHECKS = first_of_each(attack_checks(models=MODELS))
SOUND = {"smooth_relu": 5.0}


def mapped(function, *results):
    """A function of each tensor of the results."""
    return format_like(results[0], tuple(map(function, *map(as_tuple, results))))


def attack_that(perturb):
    """A factory of ERAttack whose ``perturb`` is another: perturb(attack, inputs, radius, …)."""

    class Broken(ERAttack):
        def __init__(self, attribution, k, **options):
            super().__init__(attribution, k, **{**SOUND, **options})

        def perturb(self, inputs, radius, **arguments):
            return perturb(super().perturb, self, inputs, radius, **arguments)

    return Broken


def model_of(attack):
    return attack.attribution.forward_func


BROKEN = {}


def breaks(*names):
    """Register an attack that breaks the first rule, and inevitably the others."""

    def register(perturb):
        BROKEN[f"{perturb.__name__}"] = (attack_that(perturb), set(names))
        return perturb

    return register


# --- the region ----------------------------------------------------------------------------------


@breaks("check_stays_in_ball", "check_dtypes")
def goes_too_far(sound, attack, inputs, radius, **arguments):
    return sound(inputs, 1.01 * radius if isinstance(radius, float) else radius, **arguments)


@breaks("check_zero_radius_returns_the_input")
def trembles(sound, attack, inputs, radius, **arguments):
    moved = sound(inputs, radius, **arguments)
    none = isinstance(radius, float) and radius == 0
    return mapped(lambda t: t + 1e-12, moved) if none else moved


@breaks("check_radius_of_every_example")
def takes_the_largest_radius(sound, attack, inputs, radius, **arguments):
    return sound(inputs, torch.as_tensor(radius).max(), **arguments)


@breaks("check_bounds")
def forgets_the_bounds(sound, attack, inputs, radius, **arguments):
    attack.lower_bound, attack.upper_bound = -float("inf"), float("inf")
    return sound(inputs, radius, **arguments)


@breaks("check_mask")
def forgets_the_mask(sound, attack, inputs, radius, mask=None, **arguments):
    return sound(inputs, radius, **arguments)


@breaks("check_prediction_is_kept")
def forgets_the_prediction(sound, attack, inputs, radius, **arguments):
    attack.preserve_prediction = "none"
    return sound(inputs, radius, **arguments)


# --- strength ------------------------------------------------------------------------------------


@breaks(
    "check_never_worse_than_no_attack",
    "check_info_tells_the_objective",
    "check_prediction_is_kept",
)
def goes_the_other_way(sound, attack, inputs, radius, **arguments):
    """With few steps only, which is what most rules look at."""
    found = sound(inputs, radius, **arguments)
    if arguments.get("step_num") != 4 or "start" in arguments or "n_restarts" in arguments:
        return found
    moved = found[0] if isinstance(found, tuple) and arguments.get("return_info") else found
    back = mapped(lambda x, y: x + 0.5 * (x - y), inputs, moved)
    return (back, found[1]) if arguments.get("return_info") else back


@breaks("check_more_steps_are_never_weaker")
def steps_back(sound, attack, inputs, radius, **arguments):
    moved = sound(inputs, radius, **arguments)
    if arguments["step_num"] != 8:
        return moved
    return mapped(lambda x, y: x + 0.1 * (y - x), inputs, moved)


@breaks("check_more_restarts_are_never_weaker")
def keeps_the_last_restart(sound, attack, inputs, radius, n_restarts=1, seed=0, **arguments):
    first = n_restarts == 1
    if first or n_restarts == 0:
        return sound(inputs, radius, n_restarts=n_restarts, seed=seed, **arguments)
    return sound(inputs, radius, seed=seed + n_restarts, random_start=True, **arguments)


@breaks("check_larger_radius_is_never_weaker")
def forgets_the_start(sound, attack, inputs, radius, start=None, **arguments):
    if start is not None:
        arguments["step_num"] = 0
    return sound(inputs, radius, **arguments)


@breaks(
    "check_at_least_as_strong_as_random_draws",
    "check_relu_model_is_not_called_robust",
    "check_quadratic_model_reaches_the_optimum",
    "check_large_radius_breaks_the_ranking",
)
def draws_one_point(sound, attack, inputs, radius, **arguments):
    if arguments["step_num"] < 10:
        return sound(inputs, radius, **arguments)
    return UniformNoise().perturb(inputs, radius, seed=0)


@breaks("check_relu_model_is_not_called_robust")
def hides_its_blindness(sound, attack, inputs, radius, **arguments):
    attack.smooth_relu = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sound(inputs, radius, **arguments)


@breaks("check_linear_model_is_perfectly_robust")
def divides_by_the_gradient(sound, attack, inputs, radius, **arguments):
    """0 / 0 where the gradient is zero."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        moved = sound(inputs, radius, **arguments)
    plain = arguments.keys() <= {"norm", "seed", "step_num", "step_size", "target"}
    if caught and plain and arguments["step_num"] == 4 and radius > 0:
        return mapped(lambda t: t * float("nan"), moved)
    return moved


@breaks("check_quadratic_model_reaches_the_optimum")
def gives_up_early(sound, attack, inputs, radius, **arguments):
    return sound(inputs, 0.8 * radius if arguments["step_num"] == 30 else radius, **arguments)


@breaks("check_large_radius_breaks_the_ranking")
def stays_near(sound, attack, inputs, radius, **arguments):
    return sound(
        inputs, 0.01 if isinstance(radius, float) and radius == 3.0 else radius, **arguments
    )


@breaks("check_info_tells_the_objective")
def boasts(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if not arguments.get("return_info"):
        return found
    return found[0], dataclasses.replace(found[1], objective=found[1].objective - 0.1)


# --- behaviour -----------------------------------------------------------------------------------


def sabotage(change):
    def perturb(sound, attack, inputs, radius, **arguments):
        moved = sound(inputs, radius, **arguments)
        change(model_of(attack))
        return moved

    return perturb


SABOTAGE = {
    "switches the mode": lambda m: m.train(not m.training),
    "thaws a parameter": lambda m: [p.requires_grad_() for p in m.parameters()],
    "clears gradients": lambda m: m.zero_grad(),
    "adds to gradients": lambda m: [p.grad.add_(1) for p in m.parameters() if p.grad is not None],
    "leaves a hook": lambda m: m.register_forward_pre_hook(lambda module, args: None),
    "changes a parameter": lambda m: next(m.parameters()).data.mul_(1.01),
    "leaves a buffer": lambda m: m.register_buffer("left", torch.zeros(1)),
}
for name, change in SABOTAGE.items():
    BROKEN[name] = (attack_that(sabotage(change)), {"check_model_is_left_as_found"})


@breaks("check_model_is_left_as_found_after_an_exception")
def freezes_without_finally(sound, attack, inputs, radius, **arguments):
    parameters = [p for p in model_of(attack).parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    moved = sound(inputs, radius, **arguments)
    for p in parameters:
        p.requires_grad_()
    return moved


@breaks("check_model_is_left_as_found_after_an_exception")
def swallows_exceptions(sound, attack, inputs, radius, **arguments):
    try:
        return sound(inputs, radius, **arguments)
    except ValueError:
        raise
    except Exception:
        return inputs


DRAWS = {
    "draws from torch": lambda: torch.rand(1),
    "draws from numpy": lambda: np.random.rand(),  # noqa: NPY002
    "draws from random": random.random,
}


def drawing(draw):
    def perturb(sound, attack, inputs, radius, **arguments):
        draw()
        return sound(inputs, radius, **arguments)

    return perturb


for name, draw in DRAWS.items():
    BROKEN[name] = (
        attack_that(drawing(draw)),
        {"check_random_state_is_left_as_found", "check_model_is_left_as_found_after_an_exception"},
    )


@breaks("check_inputs_are_not_modified")
def works_in_place(sound, attack, inputs, radius, **arguments):
    with torch.no_grad():
        mapped(lambda t: t.mul_(1), inputs)
    return sound(inputs, radius, **arguments)


@breaks("check_inputs_are_not_modified")
def returns_a_view(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    leaf = as_tuple(inputs)[0].requires_grad
    return mapped(lambda t: t.detach(), inputs) if leaf else found


@breaks("check_broken_rows_stay_broken")
def repairs_rows(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if arguments.get("return_info"):
        return found
    return mapped(torch.nan_to_num, found)


@breaks("check_broken_rows_stay_broken")
def scores_broken_rows(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if not arguments.get("return_info"):
        return found
    return found[0], dataclasses.replace(found[1], objective=found[1].objective.nan_to_num())


@breaks("check_same_seed_same_result")
def forgets_the_seed(sound, attack, inputs, radius, seed=None, **arguments):
    seed = secrets.randbits(32) if seed == 5 else seed
    return sound(inputs, radius, seed=seed, random_start=True, **arguments)


@breaks("check_chunks_and_order_do_not_matter")
def depends_on_chunks(sound, attack, inputs, radius, **arguments):
    scale = 0.9 if arguments.get("max_examples_per_batch") == 2 else 1.0
    return sound(inputs, scale * radius, **arguments)


@breaks("check_chunks_and_order_do_not_matter")
def depends_on_the_batch(sound, attack, inputs, radius, **arguments):
    scale = 1.0 if len(as_tuple(inputs)[0]) == 5 else 0.9
    return sound(inputs, scale * radius, **arguments)


@breaks("check_tuple_in_tuple_out")
def unpacks_tuples(sound, attack, inputs, radius, **arguments):
    moved = sound(inputs, radius, **arguments)
    return moved[0] if isinstance(inputs, tuple) else moved


@breaks("check_dtypes")
def widens_half_precision(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    half = as_tuple(inputs)[0].dtype == torch.float16
    return mapped(torch.Tensor.float, found) if half else found


@breaks("check_noncontiguous_inputs")
def reads_memory(sound, attack, inputs, radius, **arguments):
    flat = mapped(lambda t: torch.as_strided(t, t.shape, torch.empty(t.shape).stride()), inputs)
    return sound(flat, radius, **arguments)


@breaks("check_target_in_every_form")
def misreads_lists(sound, attack, inputs, radius, target=None, **arguments):
    return sound(inputs, radius, target=0 if isinstance(target, list) else target, **arguments)


@breaks("check_errors_name_the_argument")
def takes_any_radius(sound, attack, inputs, radius, **arguments):
    radius = radius if isinstance(radius, torch.Tensor) else abs(radius)
    return sound(inputs, radius, **arguments)


# --- random maps ---------------------------------------------------------------------------------


@breaks("check_random_map_is_scored_as_by_captum")
def scores_with_another_seed(sound, attack, inputs, radius, seed=None, **arguments):
    noisy = isinstance(model_of(attack), NoisyModel)
    return sound(inputs, radius, seed=seed + 1 if noisy else seed, **arguments)


@breaks("check_random_map_is_the_same_in_every_batch")
def draws_for_the_batch(sound, attack, inputs, radius, seed=None, **arguments):
    noisy = isinstance(model_of(attack), NoisyModel)
    alone = len(as_tuple(inputs)[0]) == 1
    return sound(inputs, radius, seed=seed + 1 if noisy and alone else seed, **arguments)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_attack_is_caught(name):
    factory, rules = BROKEN[name]
    assert failing({rule: CHECKS[rule] for rule in rules}, factory) == rules


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_attack_is_caught_by_no_other_check(name):
    factory, rules = BROKEN[name]
    assert failing(CHECKS, factory) == rules


def test_the_sound_attack_passes():
    sound = attack_that(lambda sound, attack, *args, **kwargs: sound(*args, **kwargs))
    assert failing(CHECKS, sound) == set()


def test_every_rule_is_broken_by_someone():
    assert {rule.name for rule in ATTACK_RULES} == set().union(*(r for _, r in BROKEN.values()))
