"""Two sets of attributions as rows of scores, checked once for every metric."""

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust.ranking import flatten_attributions, invalid_rows

__all__ = ["as_scores", "nan_where", "paired_scores"]


def as_scores(
    attributions: Inputs, feature_mask: Inputs | None = None, absolute: bool = False
) -> Tensor:
    """Detached rows of scores in at least single precision, integers included."""
    scores = flatten_attributions(attributions, feature_mask, absolute).detach()
    return scores if scores.dtype in (torch.float32, torch.float64) else scores.float()


def paired_scores(
    attributions: Inputs,
    reference_attributions: Inputs,
    feature_mask: Inputs | None = None,
    absolute: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, reference scores, and the rows in which one of the two holds no ranking.

    Those rows are zeroed, so that no NaN reaches a sort.
    """
    shapes = [tuple(m.shape) for m in as_tuple(attributions, "attributions")]
    expected = [tuple(m.shape) for m in as_tuple(reference_attributions, "reference_attributions")]
    if shapes != expected:
        raise ValueError(
            "attributions and reference_attributions must have the same shape, got "
            f"{shapes} and {expected}"
        )
    scores = as_scores(attributions, feature_mask, absolute)
    reference = as_scores(reference_attributions, feature_mask, absolute)
    broken = invalid_rows(scores) | invalid_rows(reference)
    if bool(broken.any()):
        keep = ~broken[:, None]
        scores, reference = scores.where(keep, 0), reference.where(keep, 0)
    return scores, reference, broken


def nan_where(broken: Tensor, values: Tensor) -> Tensor:
    """``values`` with NaN for the broken examples; further dimensions are broadcast."""
    return values.masked_fill(broken.view(-1, *(1,) * (values.dim() - 1)), float("nan"))
