"""The tabular data sets of the study, with the length of training on each."""

from collections.abc import Callable

from captum_robust.benchmark.study.task import Data, Parts, Root, Task
from captum_robust.datasets import (
    TabularDataset,
    load_adult,
    load_bank,
    load_breast_cancer,
    load_compas,
    split,
)

__all__ = ["TABULAR_DATA"]


def _tabular(load: Callable[[Root], TabularDataset], n_epochs: int, batch_size: int) -> Task:
    def read(root: Root) -> Data:
        table = load(root)
        return Data(table.n_features, lambda seed: Parts(*split(table, seed)))

    return Task(read, n_epochs, batch_size)


TABULAR_DATA = {
    "adult": _tabular(load_adult, 12, 512),
    "bank": _tabular(load_bank, 12, 512),
    "compas": _tabular(load_compas, 24, 128),
    "compas-recid": _tabular(lambda root: load_compas(root, "two_year_recid"), 24, 128),
    "breast-cancer": _tabular(lambda root: load_breast_cancer(), 60, 32),
}
