"""The distinct rows whose explanations are attacked."""

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_robust.benchmark.study.task import Examples
from captum_robust.datasets import distinct

__all__ = ["ExplainedRows"]


@dataclass(frozen=True)
class ExplainedRows:
    """Distinct rows, with the number of examples of each class that have these features.

    Attributes:
        inputs: the first distinct rows of a data set, (N, n).
        negatives: number of examples of class 0 with these features, (N,).
        positives: number of examples of class 1 with these features, (N,).
    """

    inputs: Tensor
    negatives: Tensor
    positives: Tensor

    @classmethod
    def of(cls, data: Examples, n_rows: int) -> "ExplainedRows":
        """Take the first ``n_rows`` distinct rows, or all where there are fewer."""
        rows = distinct(data.inputs)[:n_rows]
        counts = []
        for row in rows:
            classes = data.targets[(data.inputs == row).all(dim=1)]
            counts.append(torch.bincount(classes, minlength=2))
        negatives, positives = torch.stack(counts).unbind(dim=1)
        return cls(rows, negatives, positives)

    def area_under_curve(self, logits: Tensor) -> float:
        """Return the area under the ROC curve over all examples that these rows stand for."""
        from sklearn.metrics import roc_auc_score

        classes = torch.cat([torch.zeros_like(self.negatives), torch.ones_like(self.positives)])
        weights = torch.cat([self.negatives, self.positives])
        scores = logits.reshape(-1).repeat(2)
        there = weights > 0
        if not scores.isfinite().all() or len(classes[there].unique()) < 2:
            return float("nan")
        known = (classes[there], scores[there], weights[there])
        true, score, weight = (values.cpu() for values in known)
        return float(roc_auc_score(true, score, sample_weight=weight))
