"""Citation networks for node classification: Cora, and synthetic networks of its size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = ["load_cora", "synthetic_citation_graph"]

#: Number of papers on each of Cora's seven topics.
_CORA_TOPICS = (351, 217, 418, 818, 426, 298, 180)
_WITHIN = 0.81  # fraction of Cora's edges that join two papers on one topic
_N_WORDS = 18  # mean number of words of a paper in Cora
_TOPICAL = 0.2  # fraction of words that depend on the topic: a GCN has 80 % accuracy, as on Cora
_N_TRAIN, _N_VAL, _N_TEST = 20, 500, 1000  # the split by Yang et al. 2016; training per topic


def synthetic_citation_graph(
    topic_sizes: tuple[int, ...] = _CORA_TOPICS,
    n_edges: int = 5278,
    n_features: int = 1433,
    seed: int = 0,
) -> Data:
    r"""Return a synthetic citation network of the size of Cora: a block model with words.

    Citations follow the degree-corrected stochastic block model: 81 % of the edges join two papers
    on the same topic, as in Cora, and a paper is chosen with probability proportional to
    :math:`u^{-1/2}`, u uniform, so that a few papers are cited often. A paper has 18 words of the
    vocabulary on average; a fifth of them are from the words of its topic, and each topic has an
    equal part of the vocabulary. A two-layer GCN has an accuracy of about 80 %, as on Cora. None of
    the data are from a real network.

    Args:
        topic_sizes (tuple[int, ...], optional): papers on each topic. Default: those of Cora, 2,708
            in all.
        n_edges (int, optional): undirected edges, without self-loops and repetitions.
        n_features (int, optional): size of the vocabulary.
        seed (int, optional): seed of all random numbers.

    Returns:
        - **data** (*torch_geometric.data.Data*): ``x`` (V, F) of 0 and 1, ``edge_index``
          (2, 2 n_edges), both directions, ``y`` (V,), and the masks of the usual split: 20 papers
          per topic for training, 500 for validation and 1,000 for testing, fewer in smaller graphs.

    Raises:
        ValueError: for too many edges, and for topics or features out of range.

    Examples::

        >>> data = synthetic_citation_graph()
        >>> data.num_nodes, data.num_edges // 2, data.num_features, int(data.y.max()) + 1
        (2708, 5278, 1433, 7)
    """
    from torch_geometric.data import Data

    generator = torch.Generator().manual_seed(seed)
    n_nodes, n_topics = sum(topic_sizes), len(topic_sizes)
    if n_topics < 2 or min(topic_sizes) < 2 or n_features < n_topics:
        raise ValueError(
            "topic_sizes must be two topics or more of at least 2 papers, and n_features at least "
            f"one per topic, got {topic_sizes} and {n_features}"
        )
    # At most half of the possible pairs, so that repeated drawing finds enough new pairs.
    if not 0 < n_edges <= sum(size * (size - 1) for size in topic_sizes) // 4:
        raise ValueError(
            f"n_edges must be positive and at most half of the pairs on one topic, got {n_edges}"
        )
    topics = torch.repeat_interleave(torch.arange(n_topics), torch.tensor(topic_sizes))
    topics = topics[torch.randperm(n_nodes, generator=generator)]
    edges = _edges(topics, n_topics, n_edges, generator)
    masks = _split(topics, n_topics, generator)
    return Data(
        x=_words(topics, n_topics, n_features, generator),
        edge_index=torch.cat([edges, edges.flip(0)], dim=1),
        y=topics,
        train_mask=masks[0],
        val_mask=masks[1],
        test_mask=masks[2],
    )


def load_cora(root: str | os.PathLike[str]) -> Data:
    """Return Cora with the split of Yang et al., by ``torch_geometric.datasets.Planetoid``.

    Args:
        root (str or PathLike): folder of the data, into which they are downloaded if necessary.

    Returns:
        - **data** (*torch_geometric.data.Data*): 2,708 papers, 1,433 words, 7 topics, as
          :func:`synthetic_citation_graph`.

    Source:
        Sen et al. 2008, in the version of Yang, Cohen and Salakhutdinov 2016 (arXiv 1603.08861).
    """
    from torch_geometric.datasets import Planetoid

    return Planetoid(os.fspath(root), "Cora")[0]


def _edges(topics: Tensor, n_topics: int, n_edges: int, generator: torch.Generator) -> Tensor:
    """Draw distinct undirected edges; (2, n_edges)."""
    fame = torch.rand(len(topics), generator=generator).clamp_min(1e-3) ** -0.5
    by_topic = torch.zeros(n_topics, len(topics)).scatter(0, topics[None], fame[None])
    found = torch.zeros(2, 0, dtype=torch.long)
    while found.shape[1] < n_edges:
        n_drawn = 2 * (n_edges - found.shape[1]) + 8
        first = fame.multinomial(n_drawn, replacement=True, generator=generator)
        within = torch.rand(n_drawn, generator=generator) < _WITHIN
        second = torch.where(
            within,
            _partners(topics[first], by_topic, generator),
            _partners(topics[first], fame - by_topic, generator),
        )
        pairs = torch.stack([first, second]).sort(dim=0).values
        pairs = torch.cat([found, pairs[:, first != second]], dim=1)
        # Kept in the order in which they were drawn, so that no edge is preferred.
        _, place = torch.unique(pairs, dim=1, return_inverse=True)
        new = torch.full((int(place.max()) + 1,), pairs.shape[1]).scatter_reduce(
            0, place, torch.arange(pairs.shape[1]), "amin"
        )
        found = pairs[:, new.sort().values][:, :n_edges]
    return found


def _partners(topics: Tensor, fame: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one partner per paper in proportion to the row of ``fame`` of the topic."""
    partners = torch.empty_like(topics)
    for topic, weights in enumerate(fame):
        own = topics == topic
        n_own = max(1, int(own.sum()))
        partners[own] = weights.multinomial(n_own, replacement=True, generator=generator)[
            : int(own.sum())
        ]
    return partners


def _words(topics: Tensor, n_topics: int, n_features: int, generator: torch.Generator) -> Tensor:
    """Draw bags of words; (V, F) of 0 and 1."""
    n_words = min(_N_WORDS, n_features / 4)
    own = torch.arange(n_features) * n_topics // n_features == topics[:, None]
    chance = torch.full(own.shape, (1 - _TOPICAL) * n_words / n_features)
    chance = chance + own * (_TOPICAL * n_words / own.sum(dim=1, keepdim=True))
    return (torch.rand(own.shape, generator=generator) < chance).float()


def _split(topics: Tensor, n_topics: int, generator: torch.Generator) -> Tensor:
    """Draw masks of training, validation and test; (3, V) bool."""
    order = torch.randperm(len(topics), generator=generator)
    masks = torch.zeros(3, len(topics), dtype=torch.bool)
    for topic in range(n_topics):
        own = order[topics[order] == topic]
        masks[0, own[: min(_N_TRAIN, len(own) // 2)]] = True
    rest = order[~masks[0, order]]
    n_val = min(_N_VAL, len(rest) // 3)
    masks[1, rest[:n_val]] = True
    masks[2, rest[n_val : n_val + _N_TEST]] = True
    return masks
