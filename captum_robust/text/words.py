"""Words as the features of a text: groups of tokens whose attributions are summed."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["word_groups", "word_ids_of_offsets"]

#: Id of the tokens that belong to no word.
NO_WORD = -1

WordIds = Sequence[int | None]


def word_groups(word_ids: Sequence[WordIds]) -> Tensor:
    """Feature mask that sums the attributions of embeddings into words.

    To be given as the ``feature_mask`` of a metric, an attack or a loss. Attributions are summed
    over the embedding of each token and over the tokens of each word.

    Args:
        word_ids (Sequence): for every example, the word of each token, None for a token that
            belongs to no word: special tokens and padding. ``encoding.word_ids(i)`` of a fast
            tokenizer of ``transformers``, or :func:`word_ids_of_offsets`. Neighbouring tokens of
            equal id are one word, so that the ids may start again in a second sentence.

    Returns:
        - **feature_mask** (*Tensor*): int64, shape (N, L, 1), which broadcasts over the embedding:
          0, 1, … for the words of each example from left to right, −1 for no word.

    Raises:
        ValueError: for examples of different lengths.

    Examples::

        >>> word_groups([[None, 0, 1, 1, None]]).flatten()               # [CLS] play ##ing [SEP]
        tensor([-1,  0,  1,  1, -1])
    """
    lengths = [len(row) for row in word_ids]
    if len(set(lengths)) != 1:
        raise ValueError(f"word_ids must have one entry per token, padded, got lengths {lengths}")
    return torch.tensor([_numbered(row) for row in word_ids]).unsqueeze(-1)


def word_ids_of_offsets(
    offsets: Sequence[tuple[int, int]], text: str, words: str = r"\S+"
) -> list[int | None]:
    r"""Word of each token, from the places of the tokens in the text.

    For tokenizers that return offsets but no word ids.

    Args:
        offsets (Sequence[tuple[int, int]]): start and end of every token in the text; an empty
            token, (0, 0) for instance, belongs to no word.
        text (str): the text.
        words (str, optional): regular expression of a word. Default: a run of characters that are
            no white space. ``r"\w+|[^\w\s]"`` separates punctuation.

    Returns:
        - **word_ids** (*list[int | None]*): as :func:`word_groups` takes them.

    Examples::

        >>> word_ids_of_offsets([(0, 0), (0, 4), (4, 7), (7, 13), (0, 0)], "playing again")
        [None, 0, 0, 1, None]
    """
    spans = [match.span() for match in re.finditer(words, text)]
    found: list[int | None] = []
    for start, end in offsets:
        inside = (n for n, (first, last) in enumerate(spans) if start < last and first < end)
        found.append(next(inside, None))
    return found


def _numbered(row: WordIds) -> list[int]:
    """Number the runs of equal ids."""
    numbers, n_words = [], 0
    previous: int | None = None
    for word in row:
        if word is not None and word != previous:
            n_words += 1
        numbers.append(NO_WORD if word is None else n_words - 1)
        previous = word
    return numbers
