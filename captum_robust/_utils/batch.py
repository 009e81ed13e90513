"""Select examples from tensors, lists and tuples whose first dimension is the batch."""

from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import (
    DeepLiftShap,
    GradientShap,
    LayerGradientShap,
    NeuronDeepLiftShap,
    NeuronGradientShap,
)
from torch import Tensor

from captum_robust._utils.captum import Inputs

__all__ = ["feature_mask_of_examples", "kwargs_of_examples", "of_examples"]

# These average over baselines that belong to no single example.
# LayerDeepLiftShap is a subclass of DeepLiftShap.
_BASELINE_DISTRIBUTION = (
    DeepLiftShap,
    GradientShap,
    LayerGradientShap,
    NeuronDeepLiftShap,
    NeuronGradientShap,
)


def of_examples(value: Any, rows: Tensor, n_examples: int) -> Any:
    """Return the part of ``value`` that belongs to the examples ``rows``.

    Tensors and lists with one entry per example are indexed, and so are the items of tuples.
    Everything else, such as an ``edge_index`` or one class index for all examples, is returned
    unchanged.

    Args:
        value: an argument of a model or of an attribution.
        rows: indices of examples, on the CPU; an index may occur more than once.
        n_examples: number of examples of the batch.
    """
    if isinstance(value, Tensor):
        return value[rows] if value.dim() > 0 and value.shape[0] == n_examples else value
    if isinstance(value, tuple):
        return tuple(of_examples(item, rows, n_examples) for item in value)
    if isinstance(value, list) and len(value) == n_examples:
        return [value[row] for row in rows.tolist()]
    return value


def kwargs_of_examples(
    kwargs: dict[str, Any], rows: Tensor, n_examples: int, attribution: Any = None
) -> dict[str, Any]:
    """Return the keyword arguments of an attribution for the examples ``rows``.

    Nothing is indexed where ``rows`` is the whole batch, so that no argument is mistaken for one
    with an example dimension (graphs of PyTorch Geometric are batches of one).
    """
    if len(rows) == n_examples and bool((rows == torch.arange(n_examples)).all()):
        return kwargs
    shared = {"baselines"} if _takes_baseline_distribution(attribution) else set()
    return {
        name: value if name in shared else of_examples(value, rows, n_examples)
        for name, value in kwargs.items()
    }


def feature_mask_of_examples(
    feature_mask: Inputs | None, rows: Tensor, n_examples: int, n_dims: Sequence[int]
) -> Inputs | None:
    """Return the feature mask of the examples ``rows`` of a batch.

    A mask for all examples, with fewer dimensions than its attributions or with a single row, is
    returned as it is; one with a row per example is indexed.

    Args:
        feature_mask: one mask per tensor of attributions, or None.
        rows: indices of examples, on the CPU.
        n_examples: number of examples of the batch.
        n_dims: number of dimensions of each tensor of attributions.

    Raises:
        ValueError: if a mask has neither one row nor one row per example.
    """
    masks = (feature_mask,) if isinstance(feature_mask, Tensor) else feature_mask
    if masks is None or len(masks) != len(n_dims):
        return feature_mask  # the grouping raises the error for a wrong number of masks
    for number, (mask, n) in enumerate(zip(masks, n_dims, strict=True)):
        if mask.dim() == n and len(mask) not in (1, n_examples):
            raise ValueError(
                f"feature_mask[{number}] must have one row for all examples or one row per "
                f"example ({n_examples}), got {len(mask)} rows"
            )
    return tuple(
        mask[rows] if mask.dim() == n and len(mask) > 1 else mask
        for mask, n in zip(masks, n_dims, strict=True)
    )


def _takes_baseline_distribution(attribution: Any) -> bool:
    attribution = getattr(attribution, "__self__", attribution)
    attribution = getattr(attribution, "attribution_method", attribution)
    return isinstance(attribution, _BASELINE_DISTRIBUTION)
