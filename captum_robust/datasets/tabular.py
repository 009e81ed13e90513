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
        source: Where the rows come from and under which licence.

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
    """The three parts of a dataset, disjoint and together the whole of it.

    Attributes:
        train: The first 80 % of the shuffled rows.
        validation: The next 10 %.
        test: The rest.
    """

    train: TabularDataset
    validation: TabularDataset
    test: TabularDataset


def split(dataset: TabularDataset, seed: int) -> Split:
    """Shuffles the rows and cuts them 80 / 10 / 10.

    The order is ``numpy.random.default_rng(seed).permutation(N)``: it depends on the seed and the
    number of rows alone, not on the global random state. Tables of bits repeat rows, so the same
    row may fall into two parts: study explanations on :func:`distinct` test rows.

    Args:
        dataset: The table, N rows.
        seed: Seed of the shuffle, 0 or more.

    Returns:
        ``train``, ``validation`` and ``test``, which unpack in this order.

    Raises:
        ValueError: If ``seed`` is negative, or ``dataset`` has fewer than 10 rows (a part would be
            empty).

    Example:
        >>> from captum_robust.datasets import load_bank
        >>> train, validation, test = split(load_bank(), seed=0)
        >>> len(train), len(validation), len(test)
        (36168, 4521, 4522)
    """
    rows = len(dataset)
    if seed < 0:
        raise ValueError(f"seed: got {seed}, accepted: 0 or more")
    if rows < 10:
        raise ValueError(f"dataset: got {rows} rows, accepted: 10 or more")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(rows))
    train, validation, test = order.tensor_split([rows * 8 // 10, rows * 9 // 10])
    return Split(_rows(dataset, train), _rows(dataset, validation), _rows(dataset, test))


def distinct(inputs: Tensor) -> Tensor:
    """Drops repeated rows, keeping the first of each in the order given.

    Args:
        inputs: Any tensor with rows on dim 0, shape (N, ...).

    Returns:
        The distinct rows, shape (M, ...), M <= N, same dtype and device.

    Example:
        >>> distinct(torch.tensor([[1, 0], [0, 1], [1, 0]]))
        tensor([[1, 0],
                [0, 1]])
    """
    if inputs.shape[0] == 0:
        return inputs
    values, group = torch.unique(inputs, dim=0, return_inverse=True)
    positions = torch.arange(inputs.shape[0], device=inputs.device)
    first = positions.new_full((values.shape[0],), inputs.shape[0])
    first.scatter_reduce_(0, group, positions, reduce="amin")
    return inputs[first.sort().values]


def _rows(dataset: TabularDataset, index: Tensor) -> TabularDataset:
    device = dataset.inputs.device
    index = index.to(device)
    return replace(dataset, inputs=dataset.inputs[index], targets=dataset.targets[index])
