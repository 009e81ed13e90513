"""Membership in the top k, and the features that two top sets share.

On the CPU they are found by NumPy, whose sort of values alone takes a fraction of the time of
``torch.topk``, which carries indices along.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.ranking import check_k, top_k_indices, top_k_mask

__all__ = ["common_top_k", "in_top_k", "top_k_of"]

_BLOCK_BYTES = 500_000  # of scores, whose masks then stay in the caches
_WIDE = 2048  # from this many features on, few of them are worth sorting
_STRIDE = 64


def top_k_of(reference: Tensor, k: int) -> Tensor:
    """Return the indices of the top k of every row in ascending order, for a valid k; (N, k)."""
    check_k(k, reference.shape[1])
    return top_k_indices(reference, k)


def in_top_k(scores: Tensor, k: int) -> Tensor:
    """Return which features belong to the k largest of each row, lowest index first at ties.

    Scores (N, n) are float32 or float64 without NaN; the result is bool, of the same shape.
    """
    if scores.device.type != "cpu":
        return top_k_mask(scores, k)
    return torch.from_numpy(_in_top(scores.detach().numpy(), k))


def common_top_k(left: Tensor, right: Tensor, k: int) -> Tensor:
    """Count the features that belong to the k largest of both rows; (N,) int64."""
    if left.device.type != "cpu":
        return (in_top_k(left, k) & in_top_k(right, k)).sum(dim=1)
    n_rows, n_features = left.shape
    counts = torch.zeros(n_rows, dtype=torch.int64)
    step = max(1, _BLOCK_BYTES // (n_features * left.element_size()))
    for start in range(0, n_rows, step):
        some = slice(start, start + step)
        both = _in_top(left[some].detach().numpy(), k) & _in_top(right[some].detach().numpy(), k)
        # Most entries are False: to find the others is faster than to sum booleans by row.
        rows = np.flatnonzero(both) // n_features
        counts[some] = torch.from_numpy(np.bincount(rows, minlength=len(both)))
    return counts


def _in_top(scores: NDArray[Any], k: int) -> NDArray[Any]:
    if scores.shape[1] < _WIDE:
        threshold = np.sort(scores, axis=1)[:, -k, None]
    else:
        threshold = np.array([_kth_largest(row, k) for row in scores], scores.dtype)[:, None]
    inside = scores >= threshold
    if np.count_nonzero(inside) > k * len(scores):
        tied = np.flatnonzero(np.count_nonzero(inside, axis=1) > k)
        scores, threshold = scores[tied], threshold[tied]
        above, level = scores > threshold, scores == threshold
        room = k - np.count_nonzero(above, axis=1)[:, None]
        inside[tied] = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))
    return inside


def _kth_largest(row: NDArray[Any], k: int) -> Any:
    """Return the k-th largest score of a wide row.

    The k-th largest of the maxima of disjoint parts is not larger, so that only the scores from
    there on are sorted.
    """
    n_parts = row.size // _STRIDE
    if k <= n_parts:
        maxima = row[: _STRIDE * n_parts].reshape(_STRIDE, n_parts).max(axis=0)
        maxima.sort()
        row = row[row >= maxima[-k]]
    return np.sort(row)[-k]
