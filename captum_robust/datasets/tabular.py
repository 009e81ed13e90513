"""A table for a binary classifier, its split, and its distinct rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TabularDataset:
    """The rows, labels and column names of one table.

    Attributes:
        name: Short name, such as ``"adult"``.
        inputs: Features, float32, shape (N, n). Adult and Bank hold only 0 and 1.
        targets: Class of each row, int64, shape (N,), 0 or 1.
        feature_names: The n column names, in the order of ``inputs``.
        source: Origin and licence of the rows.

    Raises:
        ValueError: If the shapes of ``inputs``, ``targets`` and ``feature_names`` do not agree.

    Example:
        >>> table = TabularDataset("toy", torch.eye(2), torch.tensor([0, 1]), ("a", "b"), "by hand")
        >>> len(table), table.n_features
        (2, 2)
    """

    name: str
    inputs: Tensor
    targets: Tensor
    feature_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if self.inputs.ndim != 2:
            raise ValueError(f"inputs: got shape {tuple(self.inputs.shape)}, accepted: (N, n)")
        rows, columns = self.inputs.shape
        if self.targets.shape != (rows,):
            raise ValueError(f"targets: got shape {tuple(self.targets.shape)}, accepted: ({rows},)")
        if len(self.feature_names) != columns:
            raise ValueError(
                f"feature_names: got {len(self.feature_names)} names, accepted: {columns}, "
                "one for each column of inputs"
            )

    def __len__(self) -> int:
        return self.inputs.shape[0]

    @property
    def n_features(self) -> int:
        """Number of columns, n."""
        return self.inputs.shape[1]


class Split(NamedTuple):
    """The three parts of a dataset.

    Attributes:
        train: The first shuffled rows, 80 % by default.
        validation: The next rows, 10 % by default.
        test: The remaining rows.
    """

    train: TabularDataset
    validation: TabularDataset
    test: TabularDataset


def split(
    dataset: TabularDataset, seed: int, percent: tuple[int, int, int] = (80, 10, 10)
) -> Split:
    """Shuffle the rows and divide them into three parts, 80 / 10 / 10 by default.

    The order is ``numpy.random.default_rng(seed).permutation(N)``: it depends only on the seed and
    the number of rows, not on the global random state.

    Tables of binary features repeat rows, and equal rows are in several parts: 95 to 99 % of the
    test rows of Adult, Bank and COMPAS are also in the training part. The AUC should count every
    person, but an explanation depends only on the row. Study explanations on the :func:`distinct`
    test rows, or, for rows outside the training part, on
    ``distinct(test.inputs, other_than=train.inputs)``.

    Args:
        dataset: The table, N rows.
        seed: Seed of the shuffle, 0 or more.
        percent: Sizes of the parts, whole numbers of 1 or more with a sum of 100; boundaries are
            rounded down.

    Returns:
        The named tuple ``train``, ``validation``, ``test``.

    Raises:
        ValueError: If ``seed`` is negative, ``percent`` is not as above, or ``dataset`` has so few
            rows that a part would be empty.

    Example:
        >>> from captum_robust.datasets import load_bank
        >>> train, validation, test = split(load_bank(), seed=0)
        >>> len(train), len(validation), len(test)
        (36168, 4521, 4522)
        >>> len(distinct(test.inputs)), len(distinct(test.inputs, other_than=train.inputs))
        (482, 21)
    """
    if seed < 0:
        raise ValueError(f"seed: got {seed}, accepted: 0 or more")
    whole = all(isinstance(size, int) and size > 0 for size in percent)
    if not whole or len(percent) != 3 or sum(percent) != 100:
        raise ValueError(
            f"percent: got {percent}, accepted: three whole numbers of 1 or more, with a sum of 100"
        )
    rows = len(dataset)
    cuts = [rows * percent[0] // 100, rows * (percent[0] + percent[1]) // 100]
    order = torch.from_numpy(np.random.default_rng(seed).permutation(rows))
    parts = order.tensor_split(cuts)
    if not all(len(part) for part in parts):
        raise ValueError(
            f"dataset: got {rows} rows, accepted: enough for one in each part of {percent} %"
        )
    return Split(*(_rows(dataset, part) for part in parts))


def distinct(inputs: Tensor, other_than: Tensor | None = None) -> Tensor:
    """Return the rows without repetitions, in the order of their first occurrence.

    Args:
        inputs: Any tensor with rows on dim 0, shape (N, ...).
        other_than: Further rows to leave out, such as those of a training part, shape (K, ...),
            with the dtype and device of ``inputs``.

    Returns:
        The distinct rows, shape (M, ...), M <= N, same dtype and device.

    Raises:
        ValueError: If the rows of ``other_than`` have another shape or dtype than ``inputs``.

    Example:
        >>> rows = torch.tensor([[1, 0], [0, 1], [1, 0]])
        >>> distinct(rows)
        tensor([[1, 0],
                [0, 1]])
        >>> distinct(rows, other_than=torch.tensor([[0, 1]]))
        tensor([[1, 0]])
    """
    others = inputs[:0] if other_than is None else other_than
    if others.shape[1:] != inputs.shape[1:] or others.dtype != inputs.dtype:
        raise ValueError(
            f"other_than: got {others.dtype} rows of shape {tuple(others.shape[1:])}, "
            f"accepted: {inputs.dtype} rows of shape {tuple(inputs.shape[1:])}"
        )
    rows = torch.cat([others, inputs])
    if len(rows) == 0:
        return inputs
    values, group = torch.unique(rows, dim=0, return_inverse=True)
    positions = torch.arange(len(rows), device=inputs.device)
    first = positions.new_full((len(values),), len(rows))
    first.scatter_reduce_(0, group, positions, reduce="amin")
    return rows[first[first >= len(others)].sort().values]


def _rows(dataset: TabularDataset, index: Tensor) -> TabularDataset:
    device = dataset.inputs.device
    index = index.to(device)
    return replace(dataset, inputs=dataset.inputs[index], targets=dataset.targets[index])
