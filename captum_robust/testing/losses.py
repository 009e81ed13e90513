"""The conformance suite of training losses."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from captum_robust.testing import half_precision, surroundings, ties
from captum_robust.testing import loss_rules as rules
from captum_robust.testing import second_derivatives as derivatives
from captum_robust.testing.loss_case import LossCase, LossTraits
from captum_robust.testing.models import SmallModel, small_models
from captum_robust.testing.report import Rule, run_all

__all__ = ["LOSS_RULES", "check_loss", "loss_checks"]


def _has_statistics(case: LossCase) -> bool:
    return any(True for _ in case.model.build().buffers())


def _checks_derivatives(case: LossCase) -> bool:
    return case.traits.checks_derivatives


#: Every rule of a training loss, with the cases to which it applies.
LOSS_RULES: tuple[Rule[LossCase], ...] = (
    Rule(rules.check_returns_a_finite_scalar),
    Rule(rules.check_has_no_parameters),
    Rule(rules.check_gradient_reaches_every_parameter),
    Rule(rules.check_gradient_is_that_of_the_value, lambda c: not c.traits.perturbs_inputs),
    Rule(rules.check_steps_lower_the_loss),
    Rule(rules.check_same_result_again, lambda c: c.traits.repeatable),
    Rule(rules.check_order_does_not_matter, lambda c: c.traits.repeatable),
    Rule(rules.check_model_is_left_as_found),
    Rule(rules.check_model_is_left_as_found_after_an_exception),
    Rule(rules.check_statistics_see_a_batch_once, _has_statistics),
    Rule(rules.check_inputs_are_not_modified),
    Rule(rules.check_broken_rows_are_not_hidden),
    Rule(rules.check_works_without_a_graph),
    Rule(rules.check_noncontiguous_inputs),
    Rule(rules.check_dtypes),
    Rule(rules.check_errors_name_the_argument),
    Rule(
        surroundings.check_smoothing_changes_no_loss_arithmetic,
        lambda c: c.traits.repeatable and not c.model.hides_gradients,
    ),
    Rule(
        ties.check_ties_give_a_finite_gradient,
        lambda c: isinstance(c.model.inputs, Tensor),
    ),
    Rule(derivatives.check_loss_refuses_a_missing_gradient, _checks_derivatives),
    Rule(derivatives.check_loss_names_a_missing_second_derivative, _checks_derivatives),
    Rule(derivatives.check_loss_in_inference_mode_is_the_same, _checks_derivatives),
    Rule(half_precision.check_autocast_keeps_the_terms),
    Rule(half_precision.check_half_precision_keeps_the_terms, lambda c: c.traits.half_precision),
)


def loss_checks(
    models: Sequence[SmallModel] | None = None, **traits: Any
) -> Iterator[tuple[str, Callable[[Callable[[nn.Module], Any]], None]]]:
    """Yield the name of every check that applies, with a function that takes a factory of losses.

    For ``pytest.mark.parametrize("name, check", loss_checks())``.

    Args:
        models (Sequence[SmallModel], optional): models of the checks. Default: all of
            :func:`small_models`, except the one with forward arguments for a loss that takes none.
        **traits: declared properties, as in :class:`LossTraits`.

    Examples::

        >>> [name for name, _ in loss_checks()][0]
        'check_returns_a_finite_scalar[mlp_softplus]'
    """
    declared = LossTraits(**traits)
    for rule in LOSS_RULES:
        for model in small_models() if models is None else models:
            fits = declared.forward_args or not model.draw_arguments()
            if fits and rule.applies(LossCase(_nothing, declared, model)):
                yield f"{rule.name}[{model}]", partial(_run, rule, model, declared)


def check_loss(
    loss_factory: Callable[[nn.Module], Any],
    models: Sequence[SmallModel] | None = None,
    **traits: Any,
) -> list[str]:
    """Check that a training loss follows the rules of this library.

    Each check is one function whose docstring states its rule; :data:`LOSS_RULES` lists them.

    Args:
        loss_factory (Callable): ``loss_factory(model)`` returns a module called as
            ``criterion(inputs, target, additional_forward_args=…)``, like
            :class:`~captum_robust.loss.R2ETLoss`, whose value is the mean over the batch.
        models (Sequence[SmallModel], optional): models of the checks. Default: all of
            :func:`small_models`.
        **traits: declared properties, as in :class:`LossTraits`. Default: all of them.

    Returns:
        - **names** (*list[str]*): the checks that ran.

    Raises:
        AssertionError: one for all failures, with the name and the reason of each.

    Examples::

        >>> from captum_robust.loss import R2ETLoss
        >>> from captum_robust.testing import check_loss, small_models
        >>> names = check_loss(lambda model: R2ETLoss(model, k=2), models=small_models()[:1])
        >>> "check_gradient_is_that_of_the_value[mlp_softplus]" in names
        True
    """
    return run_all(loss_checks(models, **traits), loss_factory)


def _run(
    rule: Rule[LossCase],
    model: SmallModel,
    traits: LossTraits,
    loss_factory: Callable[[nn.Module], Any],
) -> None:
    rule.check(LossCase(loss_factory, traits, model))


def _nothing(model: nn.Module) -> None:
    """Stand in for a factory where only the declared properties matter."""
