"""The mathematics of a ranking: top-k sets, gaps, pair sums, win counts.

Every function takes scores of shape (N, n): one row per example, one column per feature, higher is
more important. Ties go to the lowest index. Formulas: arXiv 2212.14106, sections 3 and 4.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.groups import number_groups
from captum_robust._utils.win_counts import win_counts

__all__ = [
    "Gap",
    "Pairs",
    "check_k",
    "check_k_prime",
    "flatten_attributions",
    "fraction",
    "gap_sum",
    "group_indices",
    "invalid_rows",
    "log_exp_gap_sum",
    "min_gap",
    "non_finite_rows",
    "padded_scores",
    "pair_features",
    "ranking",
    "tied_rows",
    "top_k_indices",
    "top_k_mask",
    "top_k_overlap",
    "win_counts",
]

Pairs = Literal["anchor", "mm", "all"]
Gap = Literal["linear", "exp"]

# From this many features on, two reductions are faster than torch.aminmax.
_WIDE = 256

# From this many features on, two reductions are faster than torch.aminmax.
_WIDE = 256


def flatten_attributions(
    attributions: Inputs, feature_mask: Inputs | None = None, absolute: bool = False
) -> Tensor:
    r"""Turn attributions into one row of scores per example, to be ranked jointly.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions, examples along dimension 0.
        feature_mask (Tensor or tuple[Tensor, ...], optional): integer group of every feature, as
            in Captum: one mask for all examples (first dimension 1) or one per example,
            broadcastable to the attributions. Equal ids are one group, also across tensors. Scores
            are summed within a group, and the columns are in order of the ids of the example.
            Features with a negative id belong to no group and are not ranked, such as the padding
            of a text.
        absolute (bool, optional): rank :math:`|a|`; applied before groups are summed.

    Returns:
        - **scores** (*Tensor*): shape (N, n), n features or groups. Groups of half-precision
          attributions are summed, and returned, in float32.

    Raises:
        ValueError: for attributions and masks that do not fit together, and for per-example masks
            with different numbers of groups, whose rows would have different lengths.

    Examples::

        >>> maps = torch.tensor([[[1., -2.], [3., 4.]]])             # one example, two channels
        >>> flatten_attributions(maps)
        tensor([[ 1., -2.,  3.,  4.]])
        >>> flatten_attributions(maps, feature_mask=torch.tensor([[[0, 1]]]), absolute=True)
        tensor([[4., 6.]])
    """
    maps = as_tuple(attributions, "attributions")
    scores = torch.cat([_rows(m) for m in maps], dim=1) if len(maps) > 1 else _rows(maps[0])
    if absolute:
        scores = scores.abs()
    if feature_mask is None:
        return scores
    groups, n_groups = group_indices(maps, feature_mask)
    return _group_sums(scores, groups, n_groups)


def padded_scores(
    attributions: Inputs, feature_mask: Inputs | None = None, absolute: bool = False
) -> tuple[Tensor, Tensor | None]:
    r"""As :func:`flatten_attributions`, for examples with different numbers of groups.

    Returns:
        - **scores** (*Tensor*): shape (N, n), n the largest number of groups. Columns that an
          example does not have repeat its first score; cut them off before anything is ranked.
        - **counts** (*Tensor*, optional): number of groups of every example, (N,); None where all
          have n.
    """
    maps = as_tuple(attributions, "attributions")
    if feature_mask is None:
        return flatten_attributions(maps, None, absolute), None
    groups, counts = _numbered_groups(maps, feature_mask)
    n_groups = int(counts.amax())
    scores = _group_sums(flatten_attributions(maps, None, absolute), groups, n_groups)
    if bool((counts == n_groups).all()):
        return scores, None
    counts = counts.to(scores.device)
    missing = torch.arange(n_groups, device=scores.device) >= counts[:, None]
    return torch.where(missing, scores[:, :1], scores), counts


def _group_sums(scores: Tensor, groups: Tensor, n_groups: int) -> Tensor:
    wide = _wide(scores)
    columns = groups.where(groups >= 0, n_groups)  # the last column is that of no group
    summed = wide.new_zeros(wide.shape[0], n_groups + 1)
    return summed.scatter_add(1, columns.to(wide.device).expand_as(wide), wide)[:, :n_groups]


def _rows(maps: Tensor) -> Tensor:
    return maps.reshape(maps.shape[0], math.prod(maps.shape[1:])).contiguous()


def _wide(scores: Tensor) -> Tensor:
    """Half precision has too few digits, and float16 too small a range, for sums of scores."""
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def group_indices(maps: tuple[Tensor, ...], feature_mask: Inputs) -> tuple[Tensor, int]:
    """Group of every feature, 0 … n_groups − 1, in one row or one per example; n_groups.

    The groups of an example are numbered in order of its ids. The group of features that are not
    ranked is −1.
    """
    groups, counts = _numbered_groups(maps, feature_mask)
    fewest, most = int(counts.amin()), int(counts.amax())
    if fewest != most:
        raise ValueError(
            "feature_mask must have the same number of groups for every example here, got "
            f"{fewest} to {most}; rank examples with different numbers of groups separately"
        )
    return groups, most


def _numbered_groups(maps: tuple[Tensor, ...], feature_mask: Inputs) -> tuple[Tensor, Tensor]:
    """Return the group of every feature, as :func:`group_indices`, and the number of each row."""
    masks = (feature_mask,) if isinstance(feature_mask, Tensor) else feature_mask
    if len(masks) != len(maps):
        raise ValueError(
            f"feature_mask must hold one mask per tensor ({len(maps)}), got {len(masks)}"
        )
    aligned = []
    for number, (mask, example) in enumerate(zip(masks, maps, strict=True)):
        shape = (1,) * (example.dim() - mask.dim()) + mask.shape
        if len(shape) > example.dim() or any(
            m not in (1, s) for m, s in zip(shape, example.shape, strict=True)
        ):
            raise ValueError(
                f"feature_mask[{number}] must be broadcastable to {tuple(example.shape)}, "
                f"got {tuple(mask.shape)}"
            )
        aligned.append(mask.reshape(shape))
    n_rows = max(mask.shape[0] for mask in aligned)
    flat = [
        _rows(mask.expand(n_rows, *example.shape[1:]))
        for mask, example in zip(aligned, maps, strict=True)
    ]
    return number_groups(torch.cat(flat, dim=1))


def check_k(k: int, n_features: int) -> None:
    """Raise ValueError unless 1 <= k < n_features."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k < n_features:
        raise ValueError(
            f"k must be an int with 1 <= k < {n_features}, the number of ranked features; got {k!r}"
        )


def check_k_prime(k_prime: int, k: int) -> None:
    """Raise ValueError unless k' is an int with 1 <= k' <= k."""
    if isinstance(k_prime, bool) or not isinstance(k_prime, int) or not 1 <= k_prime <= k:
        raise ValueError(f"k_prime must be an int in 1 … k = {k}, got {k_prime!r}")


def invalid_rows(scores: Tensor) -> Tensor:
    """Rows that define no ranking: a non-finite score, or all scores equal; (N,) bool."""
    if scores.shape[1] < _WIDE:
        low, high = scores.aminmax(dim=1)
    else:
        low, high = scores.amin(dim=1), scores.amax(dim=1)
    return ~((low < high) & (low > -math.inf) & (high < math.inf))  # false for NaN


def non_finite_rows(inputs: tuple[Tensor, ...]) -> Tensor:
    """Examples with a NaN or infinite value in any of the tensors (N, …); (N,) bool."""
    finite = [t.detach().reshape(len(t), -1).isfinite().all(dim=1) for t in inputs]
    return ~torch.stack(finite).all(dim=0)


def tied_rows(scores: Tensor, k: int) -> Tensor:
    """Rows whose k-th largest score equals the next; (N,) bool.

    Which feature is in their top k is a convention. Rows that define no ranking are not among
    them: see :func:`invalid_rows`.

        >>> tied_rows(torch.tensor([[2., 1., 1.], [2., 1., 0.], [1., 1., 1.]]), k=2)
        tensor([ True, False, False])
    """
    check_k(k, scores.shape[1])
    last, following = scores.nan_to_num().topk(k + 1, dim=1).values[:, -2:].unbind(dim=1)
    return (last == following) & ~invalid_rows(scores)


def top_k_indices(scores: Tensor, k: int) -> Tensor:
    r"""Indices of the k largest scores of each row, in ascending order of the index; (N, k).

    Rows must not hold NaN. Ties at the boundary go to the lowest index: ``torch.topk`` alone
    breaks them arbitrarily.

        >>> top_k_indices(torch.tensor([[0., 2., 0., 0., 1.]]), k=3)
        tensor([[0, 1, 4]])
    """
    n_examples, n_features = scores.shape
    if k == n_features:
        return torch.arange(k, device=scores.device).expand(n_examples, k)
    values, indices = scores.topk(k + 1, dim=1)  # the extra one shows a tie across the boundary
    top = indices[:, :k].sort(dim=1).values
    tied = values[:, k - 1] == values[:, k]
    if bool(tied.any()):
        rows, threshold = scores[tied], values[tied, k - 1 : k]
        above, level = rows > threshold, rows == threshold
        room = k - above.sum(dim=1, keepdim=True)
        top[tied] = (above | (level & (level.cumsum(dim=1) <= room))).nonzero()[:, 1].view(-1, k)
    return top


def top_k_overlap(scores: Tensor, is_top: Tensor, k: int) -> Tensor:
    """Number of features that are true in ``is_top`` and among the k largest scores; (N,) int64.

    Rows with a NaN get any number. Ties as in :func:`top_k_indices`.

    >>> top_k_overlap(torch.tensor([[0., 2., 1.]]), torch.tensor([[True, True, False]]), k=2)
    tensor([1])
    """
    if k == scores.shape[1]:
        return is_top.sum(dim=1)
    values, indices = scores.topk(k + 1, dim=1)  # the extra one shows a tie across the boundary
    overlap = is_top.gather(1, indices[:, :k]).sum(dim=1)
    tied = values[:, k - 1] == values[:, k]
    if bool(tied.any()):
        top = top_k_indices(scores[tied], k)
        overlap[tied] = is_top[tied].gather(1, top).sum(dim=1)
    return overlap


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """Boolean mask of the k largest scores of each row, lowest index first at ties; (N, n).

    >>> top_k_mask(torch.tensor([[0., 2., 0., 1.]]), k=3)
    tensor([[ True,  True, False,  True]])
    """
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter(1, top_k_indices(scores, k), True)


def ranking(scores: Tensor, n_first: int) -> Tensor:
    """Indices of the first ``n_first`` features by decreasing score, stable; (N, n_first).

    >>> ranking(torch.tensor([[0., 2., 0., 1.]]), 3)
    tensor([[1, 3, 0]])
    """
    if 4 * n_first > scores.shape[1]:  # cheaper than to select first
        return scores.argsort(dim=1, descending=True, stable=True)[:, :n_first]
    top = top_k_indices(scores, n_first)
    order = scores.gather(1, top).argsort(dim=1, descending=True, stable=True)
    return top.gather(1, order)


def fraction(count: Tensor, total: float) -> Tensor:
    """Fraction that the count is of the total, rounded once, so that a full count is exactly 1.

    On a GPU torch would multiply by the reciprocal of a plain number: 49 of 49 would be 0.99999994.

        >>> fraction(torch.tensor([49, 7]), 49)
        tensor([1.0000, 0.1429])
    """
    return count / torch.full_like(count, total)


def min_gap(scores: Tensor, top: Tensor) -> Tensor:
    r"""Smallest gap :math:`\min_{i \in top} I_i - \max_{j \notin top} I_j` of each row; (N,).

    >>> min_gap(torch.tensor([[5., 1., 3.]]), torch.tensor([[0, 2]]))
    tensor([2.])
    """
    rest = scores.scatter(1, top, float("-inf"))
    return scores.gather(1, top).amin(dim=1) - rest.amax(dim=1)


def pair_features(
    reference: Tensor, k: int, pairs: Pairs = "all", k_prime: int | None = None
) -> Tensor:
    """Indices of the features that :func:`gap_sum` needs; the same for all scores of an example.

    The top k in ascending order for ``pairs="all"``, else the first k + k' of the ranking.

        >>> pair_features(torch.tensor([[1., 5., 3., 2.]]), k=2, pairs="mm", k_prime=1)
        tensor([[1, 2, 3]])
    """
    if pairs == "all":
        return top_k_indices(reference, k)
    if pairs not in get_args(Pairs):
        raise ValueError(f"pairs must be one of {get_args(Pairs)}, got {pairs!r}")
    k_prime = k if k_prime is None else k_prime
    check_k_prime(k_prime, k)
    return ranking(reference, min(k + k_prime, reference.shape[1]))


def gap_sum(
    scores: Tensor,
    reference: Tensor,
    k: int,
    pairs: Pairs = "all",
    k_prime: int | None = None,
    features: Tensor | None = None,
) -> Tensor:
    r"""Sum of the gaps :math:`I_i - I_j` over pairs of a top-k and a lower feature; (N,).

    The pairs are chosen by the ranking of ``reference`` and the gaps taken from ``scores``. Sums of
    half-precision scores are float32.

    Args:
        scores (Tensor): the scores :math:`I` whose gaps are summed, shape (N, n).
        reference (Tensor): the scores that define the ranking, same shape.
        k (int): size of the top set, 1 <= k < n.
        pairs (str, optional): ``"all"``: the k(n−k) pairs of a top and a lower feature, by
            :math:`(n-k)\sum_{top} I - k \sum_{rest} I`. ``"anchor"``: the k'−1 top features above
            the k-th against it, and it against the k' features below. ``"mm"``: the k' pairs with
            the smallest gaps, the q-th feature above the boundary against the q-th below.
        k_prime (int, optional): k' of ``"anchor"`` and ``"mm"``, 1 <= k' <= k. Default: k. Where
            fewer than k' features lie below the boundary, all of them are used.
        features (Tensor, optional): :func:`pair_features` of the reference, where known already.

    Examples::

        >>> I = torch.tensor([[5., 3., 2., 1.]])
        >>> gap_sum(I, I, k=2), gap_sum(I, I, k=2, pairs="anchor"), gap_sum(I, I, k=2, pairs="mm")
        (tensor([10.]), tensor([5.]), tensor([5.]))
    """
    scores = _wide(scores)
    if features is None:
        features = pair_features(reference, k, pairs, k_prime)
    if pairs == "all":
        top = scores.gather(1, features).sum(dim=1)
        return scores.shape[1] * top - k * scores.sum(dim=1)
    return _boundary_gaps(scores, features, k, pairs, k_prime).sum(dim=1)


def log_exp_gap_sum(
    scores: Tensor,
    reference: Tensor,
    k: int,
    pairs: Pairs = "all",
    k_prime: int | None = None,
    features: Tensor | None = None,
) -> Tensor:
    r"""Logarithm of :math:`\sum e^{-(I_i - I_j)}` over the pairs of :func:`gap_sum`; (N,).

    The sum over all pairs factors into :math:`\sum_{top} e^{-I_i} \cdot \sum_{rest} e^{I_j}`; its
    logarithm cannot overflow. The smaller, the wider the gaps.

        >>> I = torch.tensor([[2., 1., 0.]])
        >>> log_exp_gap_sum(I, I, k=1).exp()                              # e^-1 + e^-2
        tensor([0.5032])
    """
    scores = _wide(scores)
    if features is None:
        features = pair_features(reference, k, pairs, k_prime)
    if pairs == "all":
        rest = scores.scatter(1, features, float("-inf"))
        return (-scores.gather(1, features)).logsumexp(dim=1) + rest.logsumexp(dim=1)
    return (-_boundary_gaps(scores, features, k, pairs, k_prime)).logsumexp(dim=1)


def _boundary_gaps(
    scores: Tensor, features: Tensor, k: int, pairs: Pairs, k_prime: int | None
) -> Tensor:
    """Return the gaps of the ``"anchor"`` or ``"mm"`` pairs, one column per pair."""
    ranked = scores.gather(1, features)
    above, below = ranked[:, k - (k if k_prime is None else k_prime) : k], ranked[:, k:]
    if pairs == "mm":
        return above.flip(1)[:, : below.shape[1]] - below
    anchor = above[:, -1:]
    return torch.cat([above[:, :-1] - anchor, anchor - below], dim=1)
