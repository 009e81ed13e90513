"""Every check of attacks catches an attack that breaks its rule, and passes others."""

import dataclasses
import random
import secrets
import warnings

import numpy as np
import pytest
import torch

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust._utils.prediction import Decision
from captum_robust._utils.state import models_of
from captum_robust.attr import NotDifferentiableError
from captum_robust.robust import ERAttack, UniformNoise
from captum_robust.testing import ATTACK_RULES, attack_checks, small_models
from captum_robust.testing.random_maps import NoisyModel
from tests.testing.subjects import failing, first_of_each

# A smooth model, and those that some rules are about.
MODELS = [m for m in small_models() if m.name in ("mlp_tanh", "mlp_relu", "linear", "quadratic")]
# Every rule on the first of them that it applies to.
CHECKS = first_of_each(attack_checks(models=MODELS, budget=True))
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
            return perturb(self.sound, self, inputs, radius, **arguments)

        def sound(self, inputs, radius, budget=None, **arguments):
            """As many steps of one size as the budget allows."""
            if budget is None:
                return super().perturb(inputs, radius, **arguments)
            n_steps = (budget - 1) // self.step_cost
            arguments |= {"step_num": n_steps, "step_size": 0.7 * radius}
            found = super().perturb(inputs, radius, **arguments)
            if arguments.get("return_info") and n_steps < 5:
                found[1].flags["not_attacked"] = len(as_tuple(inputs)[0])
            return found

    return Broken


def model_of(attack):
    return models_of(attack.attribution)[0]


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
    others = {"start", "n_restarts", "budget"} & arguments.keys()
    if arguments.get("step_num") != 4 or others:
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


@breaks("check_broken_rows_stay_broken", "check_constant_map_has_no_objective")
def scores_broken_rows(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if not arguments.get("return_info"):
        return found
    return found[0], dataclasses.replace(found[1], objective=found[1].objective.nan_to_num())


@breaks("check_same_seed_same_result")
def forgets_the_seed(sound, attack, inputs, radius, seed=None, **arguments):
    seed = secrets.randbits(32) if seed == 5 else seed
    return sound(inputs, radius, seed=seed, random_start="budget" not in arguments, **arguments)


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


@breaks("check_rows_that_cannot_move_are_not_robust")
def scores_rows_that_cannot_move(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if not arguments.get("return_info") or "mask" not in arguments:
        return found
    return found[0], dataclasses.replace(found[1], objective=found[1].objective.nan_to_num())


@breaks("check_bounds_follow_their_examples")
def takes_the_bounds_of_others(sound, attack, inputs, radius, **arguments):
    if isinstance(attack.lower_bound, torch.Tensor):
        move = inputs - attack.lower_bound
        attack.lower_bound, attack.upper_bound = inputs - move.flip(0), inputs + move.flip(0)
    return sound(inputs, radius, **arguments)


@breaks("check_rounding_stays_in_ball")
def rounds_to_nearest(sound, attack, inputs, radius, **arguments):
    moved = sound(inputs, radius, **arguments)
    if as_tuple(inputs)[0].min() < 2.0**51:
        return moved
    return mapped(lambda t: t + radius, inputs)


@breaks("check_errors_name_the_argument")
def takes_any_radius(sound, attack, inputs, radius, **arguments):
    radius = radius if isinstance(radius, torch.Tensor) else abs(radius)
    return sound(inputs, radius, **arguments)


# --- the prediction ------------------------------------------------------------------------------


@breaks("check_dense_prediction_is_that_of_the_target")
def keeps_the_class_of_every_position(sound, attack, inputs, radius, **arguments):
    if isinstance(arguments.get("target"), tuple):
        attack.decision = Decision(lambda outputs: outputs.argmax(dim=1))
    return sound(inputs, radius, **arguments)


@breaks("check_outputs_stay_within_the_tolerance")
def takes_the_sign_for_the_prediction(sound, attack, inputs, radius, **arguments):
    attack.decision = Decision()
    return sound(inputs, radius, **arguments)


@breaks("check_training_mode_is_seen")
def reads_flags_only(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if not arguments.get("return_info"):
        return found
    flags = {name: count for name, count in found[1].flags.items() if name != "training_mode"}
    return found[0], dataclasses.replace(found[1], flags=flags)


# --- the surroundings ----------------------------------------------------------------------------


@breaks("check_smoothing_changes_no_attack_arithmetic")
def clamps_in_its_own_package(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if arguments.get("return_info"):
        return found
    return mapped(lambda t: t + torch.relu(torch.zeros_like(t)), found)


LAST_SEED = [0]


@breaks("check_attacks_in_threads_are_independent")
def shares_its_seed(sound, attack, inputs, radius, seed=0, **arguments):
    """The seed is kept where the last call of any thread has put it."""
    LAST_SEED[0] = seed
    sound(inputs, radius, seed=0, **arguments)
    return sound(inputs, radius, seed=LAST_SEED[0], random_start=True, **arguments)


@breaks("check_attack_refuses_nan")
def takes_nan_for_free(sound, attack, inputs, radius, mask=None, **arguments):
    mask = None if mask is None else mapped(torch.nan_to_num, mask)
    return sound(inputs, radius, mask=mask, **arguments)


@breaks("check_attack_counts_are_integers")
def rounds_counts(sound, attack, inputs, radius, **arguments):
    arguments["step_num"] = int(arguments["step_num"])
    return sound(inputs, radius, **arguments)


# --- ties and budgets ----------------------------------------------------------------------------


@breaks("check_ties_are_flagged")
def forgets_the_ties(sound, attack, inputs, radius, **arguments):
    found = sound(inputs, radius, **arguments)
    if arguments.get("return_info"):
        found[1].flags.pop("tied_reference", None)
    return found


@breaks("check_budget_is_kept")
def takes_a_step_too_many(sound, attack, inputs, radius, budget=None, **arguments):
    more = None if budget is None else budget + attack.step_cost
    return sound(inputs, radius, budget=more, **arguments)


@breaks("check_larger_budget_is_never_weaker")
def fits_its_steps_to_the_budget(sound, attack, inputs, radius, budget=None, **arguments):
    moved = sound(inputs, radius, budget=budget, **arguments)
    if budget != 90 or arguments.get("return_info"):
        return moved
    return mapped(lambda x, y: x + 0.1 * (y - x), inputs, moved)


@breaks("check_small_budget_is_no_proof")
def calls_an_example_stable_that_it_did_not_attack(
    sound, attack, inputs, radius, budget=None, **arguments
):
    found = sound(inputs, radius, budget=budget, **arguments)
    if budget is not None and arguments.get("return_info"):
        found[1].flags.pop("not_attacked", None)
    return found


@breaks("check_attack_names_a_missing_second_derivative")
def ends_in_the_error_of_torch(sound, attack, inputs, radius, **arguments):
    try:
        return sound(inputs, radius, **arguments)
    except NotDifferentiableError as error:
        raise RuntimeError("derivative not implemented") from error


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


# What follows from the fault itself.
FOLLOWS = {
    "forgets_the_bounds": {"check_attack_refuses_nan"},
    "forgets_the_mask": {"check_attack_refuses_nan"},
    "forgets_the_start": {"check_attack_refuses_nan"},
    "forgets_the_prediction": {
        "check_dense_prediction_is_that_of_the_target", "check_outputs_stay_within_the_tolerance",
    },
    "keeps_the_last_restart": {"check_attack_counts_are_integers"},
    **{name: {"check_attacks_in_threads_are_independent"} for name in DRAWS},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_attack_is_caught_by_no_other_check(name):
    factory, rules = BROKEN[name]
    found = failing(CHECKS, factory)
    assert rules <= found <= rules | FOLLOWS.get(name, set())


def test_the_sound_attack_passes():
    sound = attack_that(lambda sound, attack, *args, **kwargs: sound(*args, **kwargs))
    assert failing(CHECKS, sound) == set()


def test_every_rule_is_broken_by_someone():
    assert {rule.name for rule in ATTACK_RULES} == set().union(*(r for _, r in BROKEN.values()))
