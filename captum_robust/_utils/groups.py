"""Groups of features, whose number may differ from example to example."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs

__all__ = ["by_count", "counts_of_examples", "number_groups", "rows_by_count"]


def number_groups(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Number the groups of every row by its ids, from 0; −1 for negative ids.

    Args:
        ids: group ids, (R, n).

    Returns:
        The numbers, (R, n), and how many groups each row has, (R,).

    >>> number_groups(torch.tensor([[7, 3, 7, -1], [0, 1, 2, 5]]))
    (tensor([[ 1,  0,  1, -1],
            [ 0,  1,  2,  3]]), tensor([2, 4]))
    """
    ordered, order = ids.sort(dim=1)
    is_first = torch.ones_like(ordered, dtype=torch.bool)  # of the features of its group
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    numbers = (is_first & (ordered >= 0)).cumsum(dim=1)
    groups = torch.empty_like(numbers).scatter_(1, order, numbers - 1)
    return groups.where(ids >= 0, -1), numbers[:, -1]


def counts_of_examples(
    feature_mask: Inputs | None, n_examples: int, n_dims: Sequence[int] | None = None
) -> Tensor | None:
    """Return the number of groups of every example, (N,); None where no two differ.

    Args:
        feature_mask: one mask per tensor of attributions, or None.
        n_examples: number of examples.
        n_dims: number of dimensions of each tensor of attributions. A mask has one row per example
            if it has as many; None: if it has as many rows as there are examples.
    """
    masks = (feature_mask,) if isinstance(feature_mask, Tensor) else feature_mask
    if masks is None or n_examples < 2 or (n_dims is not None and len(n_dims) != len(masks)):
        return None
    own = [
        len(mask) == n_examples and (mask.dim() > 1 if n_dims is None else mask.dim() == n_dims[i])
        if mask.dim()
        else False
        for i, mask in enumerate(masks)
    ]
    if not any(own):
        return None
    rows = [
        mask.flatten(1) if is_own else mask.reshape(1, -1).expand(n_examples, -1)
        for mask, is_own in zip(masks, own, strict=True)
    ]
    counts = number_groups(torch.cat(rows, dim=1))[1]
    return None if bool((counts == counts[0]).all()) else counts


def rows_by_count(counts: Tensor | None, rows: Tensor) -> list[Tensor]:
    """Split rows of a batch into those with equal numbers of groups, by the counts (N,) of all."""
    if counts is None or len(rows) == 0:
        return [rows]
    own = counts.cpu()[rows.cpu()]
    return [rows[(own == count).to(rows.device)] for count in own.unique()]


def by_count(judge: Callable[[Tensor, Tensor], Tensor], scores: Tensor, counts: Tensor) -> Tensor:
    """Judge padded scores (P, n) separately for each number of groups (P,), without the padding.

    Args:
        judge: from scores of some points, and the indices of these points, to one row per point.
        scores: scores of all points, filled up.
        counts: number of groups of every point.
    """
    found: Tensor | None = None
    for points in rows_by_count(counts, torch.arange(len(scores), device=scores.device)):
        n_groups = int(counts[points[0]])
        values = judge(scores[points, :n_groups], points)
        if found is None:
            found = values.new_zeros(len(scores), *values.shape[1:])
        found[points] = values
    assert found is not None
    return found
