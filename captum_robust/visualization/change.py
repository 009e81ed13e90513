"""The change of the top-k set of one example under attack: features kept, lost, gained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.metrics._scores import as_scores
from captum_robust.ranking import check_k, group_indices, invalid_rows, top_k_mask
from captum_robust.visualization.canvas import Array

__all__ = ["RankingChange", "as_map", "ranking_change"]


@dataclass(frozen=True)
class RankingChange:
    """The ranked features, or groups of features, of one example before and after.

    Attributes:
        before: scores before the attack, (n,).
        after: scores after the attack, (n,).
        top_before: features in the top k before the attack, (n,) bool.
        top_after: features in the top k after the attack, (n,) bool.
        group: index of the group of each feature of the flattened map.
        k: size of the top sets.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    top_before: NDArray[np.bool_]
    top_after: NDArray[np.bool_]
    group: NDArray[np.int64]
    k: int

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Features in the top k before and after."""
        return self.top_before & self.top_after

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Features in the top k only before."""
        return self.top_before & ~self.top_after

    @property
    def gained(self) -> NDArray[np.bool_]:
        """Features in the top k only after."""
        return self.top_after & ~self.top_before

    @property
    def heading(self) -> str:
        """P@k, for a title."""
        return f"P@{self.k} = {self.kept.sum() / self.k:.3g}"


def as_map(values: Array, name: str) -> Tensor:
    """Return the map of one example as a tensor on the CPU."""
    tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.tensor(np.array(values))
    if tensor.dim() == 0:
        raise ValueError(f"{name} must be the map of one example, got a number")
    return tensor


def ranking_change(
    attribution: Tensor,
    reference_attribution: Tensor,
    k: int,
    absolute: bool = False,
    feature_mask: Tensor | None = None,
) -> RankingChange:
    """Rank the maps of one example as :func:`~captum_robust.metrics.precision_at_k` does."""
    if attribution.shape != reference_attribution.shape:
        raise ValueError(
            "attribution and reference_attribution must have the same shape, got "
            f"{tuple(attribution.shape)} and {tuple(reference_attribution.shape)}"
        )
    mask = None if feature_mask is None else feature_mask[None]
    maps = {"attribution": attribution[None], "reference_attribution": reference_attribution[None]}
    scores = {name: as_scores(map_, mask, absolute) for name, map_ in maps.items()}
    for name, row in scores.items():
        check_k(k, row.shape[1])
        if bool(invalid_rows(row)):
            raise ValueError(f"{name} must be finite and not constant to have a top {k}")
    after, before = (row.double() for row in scores.values())
    if mask is None:
        group = torch.arange(attribution.numel())
    else:
        group = group_indices((maps["attribution"],), mask)[0][0]
    return RankingChange(
        before[0].numpy(),
        after[0].numpy(),
        top_k_mask(before, k)[0].numpy(),
        top_k_mask(after, k)[0].numpy(),
        group.numpy(),
        k,
    )
