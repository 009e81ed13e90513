"""Attributions as rows of scores, and the rows that no metric can judge."""

import math

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust.ranking import flatten_attributions, invalid_rows, non_finite_rows

__all__ = ["as_scores", "broken_points", "nan_where", "paired_scores", "unranked_rows"]


def as_scores(
    attributions: Inputs, feature_mask: Inputs | None = None, absolute: bool = False
) -> Tensor:
    """Return detached rows of scores in at least single precision, integers included."""
    scores = flatten_attributions(attributions, feature_mask, absolute).detach()
    return scores if scores.dtype in (torch.float32, torch.float64) else scores.float()


def paired_scores(
    attributions: Inputs,
    reference_attributions: Inputs,
    feature_mask: Inputs | None = None,
    absolute: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, reference scores, and the rows in which one of the two defines no ranking.

    Those rows are set to zero, so that no NaN reaches a sort.
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
    broken = unranked_rows(scores) | unranked_rows(reference)
    if bool(broken.any()):
        keep = ~broken[:, None]
        scores, reference = scores.where(keep, 0), reference.where(keep, 0)
    return scores, reference, broken


def unranked_rows(scores: Tensor) -> Tensor:
    """Return which rows define no ranking, as :func:`invalid_rows` does; (N,) bool.

    On the CPU a look at two columns mostly shows that there are none.
    """
    if _all_finite(scores):
        suspect = scores[:, 0] == scores[:, -1]
        if not bool(suspect.any()):
            return suspect
    return invalid_rows(scores)


def broken_points(points: tuple[Tensor, ...]) -> Tensor:
    """Return which points have a value that is not finite, as :func:`non_finite_rows` does."""
    if all(_all_finite(t) for t in points):
        return torch.zeros(len(points[0]), dtype=torch.bool)
    return non_finite_rows(points)


def _all_finite(values: Tensor) -> bool:
    """Return whether their sum shows that all values are finite; one pass, on the CPU only."""
    if values.device.type != "cpu":
        return False
    values = values.detach()
    return math.isfinite(values.sum(dtype=torch.promote_types(values.dtype, torch.float32)))


def nan_where(broken: Tensor, values: Tensor) -> Tensor:
    """Return ``values`` with NaN for the broken examples; further dimensions are broadcast."""
    return values.masked_fill(broken.view(-1, *(1,) * (values.dim() - 1)), float("nan"))
