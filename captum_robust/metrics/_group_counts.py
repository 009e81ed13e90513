"""Metrics of attributions whose examples have different numbers of groups."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from captum_robust._utils.batch import feature_mask_of_examples
from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust._utils.groups import counts_of_examples, rows_by_count

__all__ = ["for_each_count"]

Metric = TypeVar("Metric", bound=Callable[..., Tensor])

_MAPS = ("attributions", "reference_attributions")


def for_each_count(metric: Metric) -> Metric:
    """Evaluate a metric of attributions separately for each number of groups of an example.

    Every example then has its own number of groups, and k has to be below it.
    """
    signature = inspect.signature(metric)

    @functools.wraps(metric)
    def evaluate(*args: Any, **kwargs: Any) -> Tensor:
        if kwargs.get("feature_mask") is None and len(args) < len(signature.parameters):
            return metric(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        mask = given.get("feature_mask")
        if mask is None:
            return metric(**given)
        maps = as_tuple(given["attributions"], "attributions")
        n_dims, n_examples = [m.dim() for m in maps], len(maps[0])
        counts = counts_of_examples(mask, n_examples, n_dims)
        if counts is None:
            return metric(**given)
        value: Tensor | None = None
        for rows in rows_by_count(counts, torch.arange(n_examples)):
            own = {name: _rows(given[name], rows) for name in _MAPS if given.get(name) is not None}
            own_mask = feature_mask_of_examples(mask, rows, n_examples, n_dims)
            part = metric(**{**given, **own, "feature_mask": own_mask})
            if value is None:
                value = part.new_zeros(n_examples)
            value[rows] = part
        assert value is not None
        return value

    return cast(Metric, evaluate)


def _rows(maps: Inputs, rows: Tensor) -> Inputs:
    return cast(Inputs, format_like(maps, tuple(m[rows] for m in as_tuple(maps))))
