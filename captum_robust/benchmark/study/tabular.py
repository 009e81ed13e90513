"""The tables of the study: how long a network is trained on them, which rows are explained."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_robust.benchmark.study.task import Data, Examples, Parts, Root, Task
from captum_robust.datasets import (
    TabularDataset,
    distinct,
    load_adult,
    load_bank,
    load_breast_cancer,
    load_compas,
    split,
)

__all__ = ["TABLES", "ExplainedRows"]


def _table(load: Callable[[Root], TabularDataset], n_epochs: int, batch_size: int) -> Task:
    def read(root: Root) -> Data:
        table = load(root)
        return Data(table.n_features, lambda seed: Parts(*split(table, seed)))

    return Task(read, n_epochs, batch_size)


TABLES = {
    "adult": _table(load_adult, 12, 512),
    "bank": _table(load_bank, 12, 512),
    "compas": _table(load_compas, 24, 128),
    "compas-recid": _table(lambda root: load_compas(root, "two_year_recid"), 24, 128),
    "breast-cancer": _table(lambda root: load_breast_cancer(), 60, 32),
}


@dataclass(frozen=True)
class ExplainedRows:
    """Distinct rows, and how many people of each class stand behind each of them.

    Attributes:
        inputs: the first distinct rows of a table, (N, n).
        negatives: people of class 0 with these features, (N,).
        positives: people of class 1, (N,).
    """

    inputs: Tensor
    negatives: Tensor
    positives: Tensor

    @classmethod
    def of(cls, data: Examples, n_rows: int) -> "ExplainedRows":
        """The first ``n_rows`` distinct rows, or all where there are fewer."""
        rows = distinct(data.inputs)[:n_rows]
        counts = []
        for row in rows:
            classes = data.targets[(data.inputs == row).all(dim=1)]
            counts.append(torch.bincount(classes, minlength=2))
        negatives, positives = torch.stack(counts).unbind(dim=1)
        return cls(rows, negatives, positives)

    def area_under_curve(self, logits: Tensor) -> float:
        """Area under the ROC curve of these people, of whom equal rows have equal logits."""
        from sklearn.metrics import roc_auc_score

        classes = torch.cat([torch.zeros_like(self.negatives), torch.ones_like(self.positives)])
        weights = torch.cat([self.negatives, self.positives])
        scores = logits.reshape(-1).repeat(2)
        there = weights > 0
        if not scores.isfinite().all() or len(classes[there].unique()) < 2:
            return float("nan")
        people = (classes[there], scores[there], weights[there])
        true, score, weight = (values.cpu() for values in people)
        return float(roc_auc_score(true, score, sample_weight=weight))
