"""The conformance suite of attacks on explanations."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from captum_robust.testing import attack_behaviour as behaviour
from captum_robust.testing import attack_region as region
from captum_robust.testing import attack_strength as strength
from captum_robust.testing import (
    budgets,
    per_example,
    predictions,
    random_maps,
    surroundings,
    ties,
    unmovable,
    whole_ball,
)
from captum_robust.testing import second_derivatives as derivatives
from captum_robust.testing.attack_case import AttackCase, AttackTraits
from captum_robust.testing.models import SmallModel, small_models
from captum_robust.testing.report import Rule, run_all

__all__ = ["ATTACK_RULES", "attack_checks", "check_attack"]


def _is_measurable(case: AttackCase) -> bool:
    return case.traits.objective_of_maps


def _can_tie(model: SmallModel) -> bool:
    return isinstance(model.inputs, Tensor) and not model.constant_map


def _should_beat_noise(case: AttackCase) -> bool:
    changes = not (case.model.hides_gradients or case.model.constant_map)
    return _is_measurable(case) and case.traits.beats_noise and changes


#: Every rule of an attack, with the cases to which it applies.
ATTACK_RULES: tuple[Rule[AttackCase], ...] = (
    Rule(region.check_stays_in_ball),
    Rule(region.check_zero_radius_returns_the_input),
    Rule(region.check_radius_of_every_example, lambda c: c.traits.radius_per_example),
    Rule(region.check_bounds, lambda c: c.traits.bounds),
    Rule(region.check_mask, lambda c: c.traits.mask),
    Rule(region.check_prediction_is_kept, lambda c: c.traits.keeps_prediction),
    Rule(strength.check_never_worse_than_no_attack, _is_measurable),
    Rule(strength.check_more_steps_are_never_weaker, _is_measurable),
    Rule(
        strength.check_more_restarts_are_never_weaker,
        lambda c: _is_measurable(c) and c.traits.restarts,
    ),
    Rule(strength.check_larger_radius_is_never_weaker, _is_measurable),
    Rule(strength.check_at_least_as_strong_as_random_draws, _should_beat_noise),
    Rule(strength.check_relu_model_is_not_called_robust, lambda c: c.model.hides_gradients),
    Rule(strength.check_linear_model_is_perfectly_robust, lambda c: c.model.constant_map),
    Rule(
        strength.check_quadratic_model_reaches_the_optimum,
        lambda c: _is_measurable(c) and c.model.quadratic,
    ),
    Rule(
        strength.check_large_radius_breaks_the_ranking,
        lambda c: c.model.quadratic and c.traits.aims_at_top_k,
    ),
    Rule(
        strength.check_info_tells_the_objective,
        lambda c: _is_measurable(c) and c.traits.info is not None,
    ),
    Rule(behaviour.check_model_is_left_as_found),
    Rule(behaviour.check_model_is_left_as_found_after_an_exception),
    Rule(behaviour.check_random_state_is_left_as_found),
    Rule(behaviour.check_inputs_are_not_modified),
    Rule(behaviour.check_broken_rows_stay_broken),
    Rule(behaviour.check_same_seed_same_result),
    Rule(behaviour.check_chunks_and_order_do_not_matter),
    Rule(behaviour.check_tuple_in_tuple_out),
    Rule(behaviour.check_dtypes),
    Rule(behaviour.check_noncontiguous_inputs),
    Rule(behaviour.check_target_in_every_form, lambda c: c.model.n_outputs > 1),
    Rule(behaviour.check_errors_name_the_argument),
    Rule(
        predictions.check_dense_prediction_is_that_of_the_target,
        lambda c: c.traits.keeps_prediction and c.model.n_outputs > 1,
    ),
    Rule(
        predictions.check_outputs_stay_within_the_tolerance,
        lambda c: c.traits.keeps_prediction and c.traits.tolerance,
    ),
    Rule(predictions.check_training_mode_is_seen, lambda c: c.traits.info is not None),
    Rule(
        surroundings.check_smoothing_changes_no_attack_arithmetic,
        lambda c: not c.model.hides_gradients,
    ),
    Rule(surroundings.check_attacks_in_threads_are_independent),
    Rule(surroundings.check_attack_refuses_nan),
    Rule(surroundings.check_attack_counts_are_integers),
    Rule(
        ties.check_ties_are_flagged,
        lambda c: _can_tie(c.model) and c.traits.info is not None and c.traits.aims_at_top_k,
    ),
    Rule(
        ties.check_constant_map_has_no_objective,
        lambda c: _can_tie(c.model) and c.traits.info is not None,
    ),
    Rule(budgets.check_budget_is_kept, lambda c: c.traits.budget),
    Rule(
        budgets.check_larger_budget_is_never_weaker,
        lambda c: _is_measurable(c) and c.traits.budget,
    ),
    Rule(
        budgets.check_small_budget_is_no_proof,
        lambda c: c.traits.budget and c.traits.info is not None and not c.model.constant_map,
    ),
    Rule(
        unmovable.check_rows_that_cannot_move_are_not_robust,
        lambda c: c.traits.mask and c.traits.info is not None,
    ),
    Rule(
        per_example.check_bounds_follow_their_examples,
        lambda c: c.traits.bounds and not isinstance(c.model.inputs, tuple),
    ),
    Rule(whole_ball.check_rounding_stays_in_ball, lambda c: c.model.quadratic and c.traits.bounds),
    Rule(derivatives.check_attack_names_a_missing_second_derivative),
    Rule(
        random_maps.check_random_map_is_scored_as_by_captum,
        lambda c: _is_measurable(c) and c.traits.info is not None,
    ),
    Rule(random_maps.check_random_map_is_the_same_in_every_batch),
)


def attack_checks(
    models: Sequence[SmallModel] | None = None, every_norm: bool = False, **traits: Any
) -> Iterator[tuple[str, Callable[[Callable[..., Any]], None]]]:
    """Yield the name of every check that applies, with a function that takes a factory of attacks.

    For ``pytest.mark.parametrize("name, check", attack_checks())``.

    Args:
        models (Sequence[SmallModel], optional): models of the checks. Default: all of
            :func:`small_models`.
        every_norm (bool, optional): run every check on every model in every norm. Default:
            alternate the norms, so that each check and each model is run with each norm.
        **traits: declared properties, as in :class:`AttackTraits`.

    Examples::

        >>> names = [name for name, _ in attack_checks(norms=("L2",), bounds=False)]
        >>> names[0]
        'check_stays_in_ball[mlp_softplus-L2]'
        >>> any("check_bounds" in name for name in names)
        False
    """
    declared = AttackTraits(**traits)
    for i, rule in enumerate(ATTACK_RULES):
        for j, model in enumerate(small_models() if models is None else models):
            turn = (i + j) % len(declared.norms)
            for norm in declared.norms if every_norm else (declared.norms[turn],):
                if rule.applies(AttackCase(_nothing, model, norm, declared)):
                    yield f"{rule.name}[{model}-{norm}]", partial(_run, rule, model, norm, declared)


def check_attack(
    attack_factory: Callable[..., Any],
    models: Sequence[SmallModel] | None = None,
    every_norm: bool = False,
    **traits: Any,
) -> list[str]:
    """Check that an attack on explanations follows the rules of this library.

    Each check is one function whose docstring states its rule; :data:`ATTACK_RULES` lists them.

    Args:
        attack_factory (Callable): ``attack_factory(attribution, k)`` returns an attack with a
            method ``perturb(inputs, radius, …)`` like
            :class:`~captum_robust.robust.ExplanationAttack`; unless declared otherwise, the
            factory also takes ``lower_bound`` and ``upper_bound``. It may be a class.
        models (Sequence[SmallModel], optional): models of the checks. Default: all of
            :func:`small_models`.
        every_norm (bool, optional): run every check on every model in every norm. Default:
            alternate the norms.
        **traits: declared properties, as in :class:`AttackTraits`. Default: all of them.

    Returns:
        - **names** (*list[str]*): the checks that ran.

    Raises:
        AssertionError: one for all failures, with the name and the reason of each.

    Examples::

        >>> from captum_robust.robust import ERAttack
        >>> from captum_robust.testing import check_attack, small_models
        >>> len(check_attack(ERAttack, models=small_models()[:1], norms=("Linf",))) > 20
        True
        >>> class Idle:
        ...     def __init__(self, attribution, k): ...
        ...     def perturb(self, inputs, radius, **arguments):
        ...         return inputs
        >>> check_attack(Idle, models=small_models()[:1])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        captum_robust.testing.report.CheckFailure: ... checks failed:
        ...
    """
    return run_all(attack_checks(models, every_norm, **traits), attack_factory)


def _run(
    rule: Rule[AttackCase],
    model: SmallModel,
    norm: str,
    traits: AttackTraits,
    attack_factory: Callable[..., Any],
) -> None:
    rule.check(AttackCase(attack_factory, model, norm, traits))


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for a factory where only the declared properties matter."""
