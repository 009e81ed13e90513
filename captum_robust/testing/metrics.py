"""The conformance suite of metrics."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from captum_robust.testing import metric_of_maps as of_maps
from captum_robust.testing import metric_of_models as of_models
from captum_robust.testing import per_example, random_maps, surroundings, ties, unmovable
from captum_robust.testing import second_derivatives as derivatives
from captum_robust.testing.metric_case import MapsCase, MetricTraits, ModelCase
from captum_robust.testing.models import SmallModel, small_models
from captum_robust.testing.report import Rule, run_all

__all__ = ["MAPS_RULES", "MODEL_RULES", "check_metric", "metric_checks"]


def _ranks_one_input(case: ModelCase) -> bool:
    ranks = case.traits.call == "explanation" and case.traits.ranks
    return ranks and isinstance(case.model.inputs, Tensor)


#: Every rule of a metric of two maps, with the cases to which it applies.
MAPS_RULES: tuple[Rule[MapsCase], ...] = (
    Rule(of_maps.check_one_value_per_example),
    Rule(of_maps.check_values_in_range),
    Rule(of_maps.check_identical_maps_are_perfect, lambda c: c.traits.perfect is not None),
    Rule(of_maps.check_maps_are_symmetric, lambda c: c.traits.symmetric),
    Rule(of_maps.check_broken_rows_give_nan),
    Rule(of_maps.check_order_does_not_matter),
    Rule(of_maps.check_inputs_are_not_modified),
    Rule(of_maps.check_tuple_of_maps),
    Rule(of_maps.check_dtypes),
    Rule(of_maps.check_noncontiguous_inputs),
    Rule(of_maps.check_errors_name_the_argument),
    Rule(ties.check_tied_maps_are_compared),
)

#: Every rule of a metric of an explanation or a model, with the cases to which it applies.
MODEL_RULES: tuple[Rule[ModelCase], ...] = (
    Rule(of_models.check_one_value_per_example),
    Rule(of_models.check_values_in_range),
    Rule(
        of_models.check_linear_model_is_perfectly_robust,
        lambda c: c.model.constant_map and c.traits.perfect is not None,
    ),
    Rule(of_models.check_broken_rows_give_nan),
    Rule(of_models.check_chunks_and_order_do_not_matter),
    Rule(of_models.check_same_seed_same_result),
    Rule(of_models.check_random_state_is_left_as_found),
    Rule(of_models.check_model_is_left_as_found),
    Rule(of_models.check_model_is_left_as_found_after_an_exception, lambda c: c.traits.calls_model),
    Rule(of_models.check_inputs_are_not_modified),
    Rule(
        of_models.check_tuple_of_one_input,
        lambda c: c.traits.tuples and not isinstance(c.model.inputs, tuple),
    ),
    Rule(of_models.check_noncontiguous_inputs),
    Rule(of_models.check_dtypes),
    Rule(of_models.check_errors_name_the_argument),
    Rule(
        surroundings.check_smoothing_changes_no_metric_arithmetic,
        lambda c: not c.model.hides_gradients,
    ),
    Rule(surroundings.check_metrics_in_threads_are_independent),
    Rule(surroundings.check_metric_counts_are_integers),
    Rule(ties.check_constant_map_gives_nan, _ranks_one_input),
    Rule(
        unmovable.check_inputs_without_neighbours_have_no_value,
        lambda c: c.model.constant_map and c.traits.moves_inputs,
    ),
    Rule(per_example.check_radius_follows_its_example, lambda c: c.traits.radius is not None),
    Rule(derivatives.check_missing_gradient_is_not_robust, lambda c: c.traits.perfect is not None),
    Rule(derivatives.check_missing_second_derivative_is_not_flat),
    Rule(
        random_maps.check_random_map_at_radius_zero_is_perfect,
        lambda c: (
            c.traits.call == "explanation"
            and c.traits.radius is not None
            and c.traits.perfect is not None
        ),
    ),
    Rule(random_maps.check_random_map_has_no_neighbours, lambda c: c.traits.calls_model),
)


def metric_checks(
    models: Sequence[SmallModel] | None = None, **traits: Any
) -> Iterator[tuple[str, Callable[[Callable[..., Any]], None]]]:
    """Yield the name of every check that applies, with a function of the metric.

    For ``pytest.mark.parametrize("name, check", metric_checks(symmetric=True))``.

    Args:
        models (Sequence[SmallModel], optional): models of the checks of a metric of explanations
            or models. Default: all of :func:`small_models`.
        **traits: declared properties, as in :class:`MetricTraits`.

    Examples::

        >>> [name for name, _ in metric_checks()][:2]
        ['check_one_value_per_example', 'check_values_in_range']
    """
    declared = MetricTraits(**traits)
    if declared.call == "maps":
        for rule in MAPS_RULES:
            if rule.applies(MapsCase(_nothing, declared)):
                yield rule.name, partial(_run_on_maps, rule, declared)
        return
    for model_rule in MODEL_RULES:
        for model in small_models() if models is None else models:
            if model_rule.applies(ModelCase(_nothing, declared, model)):
                yield f"{model_rule.name}[{model}]", partial(_run, model_rule, model, declared)


def check_metric(
    metric: Callable[..., Any], models: Sequence[SmallModel] | None = None, **traits: Any
) -> list[str]:
    """Check that a metric follows the rules of this library.

    Each check is one function whose docstring states its rule; :data:`MAPS_RULES` and
    :data:`MODEL_RULES` list them.

    Args:
        metric (Callable): the metric in the declared call shape, with its other arguments bound.
        models (Sequence[SmallModel], optional): models of the checks of a metric of explanations
            or models. Default: all of :func:`small_models`.
        **traits: declared properties, as in :class:`MetricTraits`.

    Returns:
        - **names** (*list[str]*): the checks that ran.

    Raises:
        AssertionError: one for all failures, with the name and the reason of each.

    Examples::

        >>> from functools import partial
        >>> from captum_robust.metrics import precision_at_k
        >>> from captum_robust.testing import check_metric
        >>> names = check_metric(
        ...     partial(precision_at_k, k=2), lowest=0, highest=1, perfect=1, symmetric=True, k="k"
        ... )
        >>> len(names) > 10
        True
        >>> def cosine(maps, reference):
        ...     return (maps * reference).sum(dim=1) / (maps.norm(dim=1) * reference.norm(dim=1))
        >>> check_metric(cosine, lowest=-1, highest=1, perfect=1)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        captum_robust.testing.report.CheckFailure: ... of ... checks failed:
        ...
    """
    return run_all(metric_checks(models, **traits), metric)


def _run_on_maps(rule: Rule[MapsCase], traits: MetricTraits, metric: Callable[..., Any]) -> None:
    rule.check(MapsCase(metric, traits))


def _run(
    rule: Rule[ModelCase], model: SmallModel, traits: MetricTraits, metric: Callable[..., Any]
) -> None:
    rule.check(ModelCase(metric, traits, model))


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for a metric where only the declared properties matter."""
