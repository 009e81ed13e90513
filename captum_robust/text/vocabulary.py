"""Embeddings and the rows of the embedding table: the nearest tokens, and their neighbours."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from captum_robust._utils.checks import check_count

__all__ = ["nearest_tokens", "neighbour_embeddings"]

_ROWS_AT_ONCE = 64  # positions; with 30,000 tokens their distances take 15 MB
_SAME = 1e-10  # squared distance of equal embeddings, in squares of their lengths


def nearest_tokens(embeddings: Tensor, weight: Tensor, excluded: Iterable[int] = ()) -> Tensor:
    """Ids of the tokens whose embeddings are nearest, by Euclidean distance.

    An attack on embeddings returns points that need not be those of tokens; this names the
    nearest ones. The nearest token of an unperturbed embedding is the token itself, or another one
    of equal embedding.

    Args:
        embeddings (Tensor): shape (N, L, D).
        weight (Tensor): the embedding table, shape (V, D), such as ``embedded.embedding.weight``.
        excluded (Iterable[int], optional): ids that are never returned.

    Returns:
        - **ids** (*Tensor*): int64, shape (N, L).

    Raises:
        ValueError: for tensors whose shapes do not fit, and if all ids are excluded.

    Examples::

        >>> weight = torch.tensor([[0., 0.], [1., 0.], [0., 1.]])
        >>> nearest_tokens(torch.tensor([[[0.9, 0.2], [0.1, 0.1]]]), weight)
        tensor([[1, 0]])
    """
    ids, distances = _nearest(embeddings, weight, 1, excluded, without_self=False)
    if bool(distances.isinf().any()):
        raise ValueError(f"excluded must leave a token of {len(weight)}")
    return ids[..., 0]


def neighbour_embeddings(
    embeddings: Tensor, weight: Tensor, n: int, excluded: Iterable[int] = ()
) -> Tensor:
    """Embeddings of the ``n`` tokens nearest to every position, without the token itself.

    The form of the ``candidates`` of an attack that substitutes tokens.

    Args:
        embeddings (Tensor): embeddings of tokens, shape (N, L, D).
        weight (Tensor): the embedding table, shape (V, D).
        n (int): number of neighbours, 1 <= n <= V.
        excluded (Iterable[int], optional): ids that are no candidates, such as
            ``tokenizer.all_special_ids``.

    Returns:
        - **candidates** (*Tensor*): rows of the table, nearest first, shape (N, L, n, D); NaN where
          fewer than n tokens are left.

    Raises:
        ValueError: for tensors whose shapes do not fit, and for n outside its range.

    Examples::

        >>> weight = torch.tensor([[0., 0.], [1., 0.], [0., 2.]])
        >>> neighbour_embeddings(weight[None, :1], weight, n=2)
        tensor([[[[1., 0.],
                  [0., 2.]]]])
    """
    check_count("n", n, 1)
    ids, distances = _nearest(embeddings, weight, n, excluded, without_self=True)
    return weight.detach()[ids].masked_fill(distances.isinf()[..., None], math.nan)


@torch.no_grad()
def _nearest(
    embeddings: Tensor, weight: Tensor, n: int, excluded: Iterable[int], without_self: bool
) -> tuple[Tensor, Tensor]:
    """Return the ids of the n nearest tokens, and their squared distances; (..., n) each."""
    if weight.dim() != 2 or embeddings.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"weight must have shape (V, {embeddings.shape[-1]}) for embeddings of shape "
            f"{tuple(embeddings.shape)}, got {tuple(weight.shape)}"
        )
    if n > len(weight):
        raise ValueError(f"n must be at most the number of tokens, {len(weight)}, got {n}")
    table = weight.detach().double()  # differences of squares lose half of the digits
    squares = table.square().sum(dim=1)
    rows = embeddings.detach().reshape(-1, weight.shape[1]).to(table)
    closed = list(excluded)
    ids, distances = [], []
    for part in rows.split(_ROWS_AT_ONCE):
        scale = part.square().sum(dim=1, keepdim=True) + squares
        distance = (scale - 2 * part @ table.mT).clamp_min(0)
        distance[:, closed] = math.inf
        if without_self:
            distance[distance <= _SAME * scale] = math.inf
        nearest = distance.topk(n, dim=1, largest=False)
        ids.append(nearest.indices)
        distances.append(nearest.values)
    shape = (*embeddings.shape[:-1], n)
    return torch.cat(ids).reshape(shape), torch.cat(distances).reshape(shape)
