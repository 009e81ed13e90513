"""Every check of metrics catches a metric that breaks its rule, and passes others."""

import random
from functools import partial

import pytest
import torch

from captum_robust._utils.captum import as_tuple
from captum_robust.attr import NotDifferentiableError
from captum_robust.metrics import precision_at_k, ranking_thickness, spearman_correlation
from captum_robust.testing import MAPS_RULES, MODEL_RULES, metric_checks, small_models
from captum_robust.testing.random_maps import NoisyModel
from tests.testing.subjects import FEW, SHARE, failing, first_of_each

# --- of maps -------------------------------------------------------------------------------------

OF_MAPS = {"lowest": -1, "highest": 1, "perfect": 1, "symmetric": True, "k": "k"}
MAPS_CHECKS = first_of_each(metric_checks(**OF_MAPS))


def sound(maps, reference, k=2):
    """Spearman, and the errors of a metric with k."""
    precision_at_k(maps, reference, k)
    return spearman_correlation(maps, reference)


def loses_rows(maps, reference, k=2):
    return sound(maps, reference, k).mean()


def in_per_cent(maps, reference, k=2):
    value = sound(maps, reference, k)
    return value - 1.0 * (value < -0.5)


def never_perfect(maps, reference, k=2):
    value = sound(maps, reference, k)
    return value - 0.01 * (value > 0.999)


def prefers_one_side(maps, reference, k=2):
    left, right = (m[0] if isinstance(m, tuple) else m for m in (maps, reference))
    ahead = left[:, 0].double() > right[:, 0].double()
    return (sound(maps, reference, k) - 0.01 * ahead).clamp(-1)


def fills_broken_rows(maps, reference, k=2):
    return sound(maps, reference, k).nan_to_num(1.0)


def counts_examples(maps, reference, k=2):
    value = sound(maps, reference, k)
    return (value - 0.001 * torch.arange(len(value)).to(value) * (value < 0.9)).clamp(-1)


def sorts_in_place(maps, reference, k=2):
    value = sound(maps, reference, k)
    as_tuple(maps)[0].detach().mul_(1)
    return value


def draws_numbers(maps, reference, k=2):
    random.random()
    return sound(maps, reference, k)


def sees_the_first_map_only(maps, reference, k=2):
    if isinstance(maps, tuple) and len(maps) > 1:
        return torch.stack([sound(m, r, 1) for m, r in zip(maps, reference, strict=True)], dim=1)
    return sound(maps, reference, k)


def keeps_half_precision(maps, reference, k=2):
    value = sound(maps, reference, k)
    return value.to(as_tuple(maps)[0].dtype)


def reads_memory(maps, reference, k=2):
    def packed(m):
        return torch.as_strided(m, m.shape, torch.empty(m.shape).stride())

    if isinstance(maps, tuple):
        return sound(maps, reference, k)
    return sound(packed(maps), reference, k)


def takes_any_k(maps, reference, k=2):
    return sound(maps, reference)


def refuses_ties(maps, reference, k=2):
    value = sound(maps, reference, k)
    rows = torch.cat([m.double().flatten(1) for m in as_tuple(maps)], dim=1).sort(dim=1).values
    return value.masked_fill((rows[:, 1:] == rows[:, :-1]).any(dim=1), float("nan"))


BROKEN_OF_MAPS = {
    loses_rows: {"check_one_value_per_example"},
    in_per_cent: {"check_values_in_range"},
    never_perfect: {"check_identical_maps_are_perfect", "check_tied_maps_are_compared"},
    prefers_one_side: {"check_maps_are_symmetric"},
    fills_broken_rows: {"check_broken_rows_give_nan"},
    counts_examples: {"check_order_does_not_matter"},
    sorts_in_place: {"check_inputs_are_not_modified"},
    draws_numbers: {"check_inputs_are_not_modified"},
    sees_the_first_map_only: {"check_tuple_of_maps"},
    keeps_half_precision: {"check_dtypes"},
    reads_memory: {"check_noncontiguous_inputs"},
    takes_any_k: {"check_errors_name_the_argument"},
    refuses_ties: {"check_tied_maps_are_compared"},
}
# Most rules cannot be checked for a metric without one value per example.
SAYS_LITTLE = {loses_rows}


@pytest.mark.parametrize("metric", BROKEN_OF_MAPS, ids=lambda m: m.__name__)
def test_a_broken_metric_of_maps_is_caught(metric):
    found = failing(MAPS_CHECKS, metric)
    assert BROKEN_OF_MAPS[metric] == found or metric in SAYS_LITTLE
    assert BROKEN_OF_MAPS[metric] <= found


def test_the_sound_metric_of_maps_passes():
    assert failing(MAPS_CHECKS, sound) == set()


def test_every_rule_of_maps_is_broken_by_someone():
    assert {rule.name for rule in MAPS_RULES} == set().union(*BROKEN_OF_MAPS.values())


# --- of explanations -----------------------------------------------------------------------------

OF_EXPLANATIONS = {
    **SHARE, "call": "explanation", "perfect": 1, "k": "k", "radius": "perturb_radius"
}  # fmt: skip
MODELS = [m for m in small_models() if m.name in ("mlp_tanh", "linear")]
CHECKS = first_of_each(metric_checks(models=MODELS, **OF_EXPLANATIONS))

thickness = partial(ranking_thickness, k=2, **FEW)


def model_of(explanation_func):
    return explanation_func.__self__.forward_func


def means_over_examples(explain, inputs, **kwargs):
    return thickness(explain, inputs, **kwargs).mean()


def in_hundredths(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value + (value < 1) * 1.0


def below_one_where_constant(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value - 0.1 * (value == 1)


def fills_nan(explain, inputs, **kwargs):
    return thickness(explain, inputs, **kwargs).nan_to_num(1.0)


def numbers_examples(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value - 0.001 * torch.arange(len(value)) * (value < 1)


def knows_its_chunks(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value - 0.01 * (kwargs.get("max_examples_per_batch") == 3)


def forgets_its_seed(explain, inputs, seed=None, **kwargs):
    return thickness(explain, inputs, **kwargs) * (1 - 1e-3 * FORGOTTEN.random())


FORGOTTEN = random.Random(0)


def moves_the_generator(explain, inputs, **kwargs):
    torch.rand(1)
    return thickness(explain, inputs, **kwargs)


def switches_to_evaluation(explain, inputs, **kwargs):
    model_of(explain).eval()
    return thickness(explain, inputs, **kwargs)


def clears_gradients(explain, inputs, **kwargs):
    model_of(explain).zero_grad()
    return thickness(explain, inputs, **kwargs)


def returns_to_training_only_after_success(explain, inputs, **kwargs):
    model, training = model_of(explain), model_of(explain).training
    model.eval()
    value = thickness(explain, inputs, **kwargs)
    model.train(training)
    return value


def asks_for_gradients(explain, inputs, **kwargs):
    for t in as_tuple(inputs) if isinstance(inputs, torch.Tensor | tuple) else ():
        with torch.no_grad():
            t.mul_(1)
    return thickness(explain, inputs, **kwargs)


def takes_tensors_only(explain, inputs, **kwargs):
    if isinstance(inputs, tuple):
        raise TypeError
    return thickness(explain, inputs, **kwargs)


def reads_rows_of_memory(explain, inputs, **kwargs):
    if isinstance(inputs, torch.Tensor):
        inputs = torch.as_strided(inputs, inputs.shape, torch.empty(inputs.shape).stride())
    return thickness(explain, inputs, **kwargs)


def returns_half_precision(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value.half() if as_tuple(inputs)[0].dtype == torch.float16 else value


def takes_any_radius(explain, inputs, perturb_radius=0.3, **kwargs):
    return thickness(explain, inputs, perturb_radius=abs(perturb_radius), **kwargs)


def rectifies_in_its_own_package(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value + 0.01 * torch.relu(torch.zeros_like(value))


LAST_SEED = [0]


def shares_its_seed(explain, inputs, seed=0, **kwargs):
    """The seed is kept where the last call of any thread has put it."""
    LAST_SEED[0] = seed
    thickness(explain, inputs, seed=0, **kwargs)
    return thickness(explain, inputs, seed=LAST_SEED[0], **kwargs)


def rounds_k(explain, inputs, k=2, **kwargs):
    return ranking_thickness(explain, inputs, **{**FEW, "k": int(k), **kwargs})


def scores_what_cannot_move(explain, inputs, **kwargs):
    try:
        return thickness(explain, inputs, **kwargs)
    except ValueError as error:
        if "spacing" not in str(error):
            raise
        return torch.ones(len(as_tuple(inputs)[0]))


def mixes_up_radii(explain, inputs, perturb_radius=0.3, **kwargs):
    if isinstance(perturb_radius, torch.Tensor):
        perturb_radius = perturb_radius.flip(0)
    return thickness(explain, inputs, perturb_radius=perturb_radius, **kwargs)


def forgives_a_missing_gradient(explanation, inputs, **arguments):
    """Nothing that can be seen has changed."""
    try:
        return thickness(explanation, inputs, **arguments)
    except NotDifferentiableError:
        return torch.ones(len(as_tuple(inputs)[0]))


def trusts_autograd(explanation, inputs, **arguments):
    """Lower where the saliency has a derivative by autograd, which may be missing."""
    value = thickness(explanation, inputs, **arguments)
    model, points = explanation.__self__.forward_func, as_tuple(inputs)
    leaves = [p.detach().requires_grad_() for p in points]
    output = model(*leaves).flatten(1).sum() if points[0].dtype == torch.float64 else None
    if output is None or not output.requires_grad:
        return value
    first = torch.autograd.grad(output, leaves, create_graph=True, allow_unused=True)
    total = sum(g.sum() for g in first if g is not None)
    second = torch.autograd.grad(total, leaves, allow_unused=True)
    bent = sum(g.flatten(1).abs().sum(dim=1) for g in second if g is not None)
    return value / (1 + 0.1 * bent)


def sees_noise_at_radius_zero(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    return value - 1e-6 * (kwargs.get("perturb_radius") == 0)


def draws_for_a_chunk(explain, inputs, **kwargs):
    value = thickness(explain, inputs, **kwargs)
    noisy = isinstance(model_of(explain), NoisyModel)
    return value - 0.01 * (noisy and kwargs.get("max_examples_per_batch") == 3)


BROKEN = {
    means_over_examples: {"check_one_value_per_example"},
    in_hundredths: {"check_values_in_range"},
    below_one_where_constant: {"check_linear_model_is_perfectly_robust"},
    fills_nan: {"check_broken_rows_give_nan", "check_constant_map_gives_nan"},
    numbers_examples: {"check_chunks_and_order_do_not_matter"},
    knows_its_chunks: {"check_chunks_and_order_do_not_matter"},
    forgets_its_seed: {"check_same_seed_same_result"},
    moves_the_generator: {"check_random_state_is_left_as_found"},
    switches_to_evaluation: {"check_model_is_left_as_found"},
    clears_gradients: {"check_model_is_left_as_found"},
    returns_to_training_only_after_success: {"check_model_is_left_as_found_after_an_exception"},
    asks_for_gradients: {"check_inputs_are_not_modified"},
    takes_tensors_only: {"check_tuple_of_one_input"},
    reads_rows_of_memory: {"check_noncontiguous_inputs"},
    returns_half_precision: {"check_dtypes"},
    takes_any_radius: {"check_errors_name_the_argument"},
    rectifies_in_its_own_package: {"check_smoothing_changes_no_metric_arithmetic"},
    shares_its_seed: {"check_metrics_in_threads_are_independent"},
    rounds_k: {"check_metric_counts_are_integers"},
    scores_what_cannot_move: {"check_inputs_without_neighbours_have_no_value"},
    mixes_up_radii: {"check_radius_follows_its_example"},
    forgives_a_missing_gradient: {"check_missing_gradient_is_not_robust"},
    trusts_autograd: {"check_missing_second_derivative_is_not_flat"},
    sees_noise_at_radius_zero: {"check_random_map_at_radius_zero_is_perfect"},
    draws_for_a_chunk: {"check_random_map_has_no_neighbours"},
}


@pytest.mark.parametrize("metric", BROKEN, ids=lambda m: m.__name__)
def test_a_broken_metric_is_caught(metric):
    rules = BROKEN[metric]
    assert failing({rule: CHECKS[rule] for rule in rules}, metric) == rules


# What follows from the fault itself.
FOLLOWS = {
    "means_over_examples": {
        "check_broken_rows_give_nan", "check_chunks_and_order_do_not_matter",
        "check_random_map_has_no_neighbours",
    },
    "numbers_examples": {"check_random_map_has_no_neighbours"},
    "knows_its_chunks": {"check_random_map_has_no_neighbours"},
    "forgets_its_seed": {
        "check_linear_model_is_perfectly_robust",
        "check_broken_rows_give_nan", "check_chunks_and_order_do_not_matter",
        "check_tuple_of_one_input", "check_noncontiguous_inputs", "check_errors_name_the_argument",
        "check_smoothing_changes_no_metric_arithmetic", "check_metrics_in_threads_are_independent",
    },
    "shares_its_seed": {"check_errors_name_the_argument"},
    "moves_the_generator": {
        "check_model_is_left_as_found_after_an_exception",
        "check_metrics_in_threads_are_independent",
        "check_random_map_at_radius_zero_is_perfect", "check_random_map_has_no_neighbours",
    },
    "switches_to_evaluation": {"check_model_is_left_as_found_after_an_exception"},
    "clears_gradients": {"check_model_is_left_as_found_after_an_exception"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("metric", BROKEN, ids=lambda m: m.__name__)
def test_a_broken_metric_is_caught_by_no_other_check(metric):
    others = failing(CHECKS, metric) - BROKEN[metric]
    assert others <= FOLLOWS.get(metric.__name__, set())


def test_the_sound_metric_passes():
    assert failing(CHECKS, thickness) == set()


def test_every_rule_is_broken_by_someone():
    assert {rule.name for rule in MODEL_RULES} == set().union(*BROKEN.values())
