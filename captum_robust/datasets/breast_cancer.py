"""Breast Cancer Wisconsin (Diagnostic), from scikit-learn."""

from __future__ import annotations

import torch

from captum_robust.datasets.tabular import TabularDataset


def load_breast_cancer() -> TabularDataset:
    """Breast Cancer Wisconsin with 30 standardised features; the target is a benign tumour.

    Each column is standardised by its mean and standard deviation (divisor N) over all 569 rows in
    float64, and then rounded to float32.

    Returns:
        The table: ``inputs`` (569, 30), ``targets`` (569,), 1 for benign and 0 for malignant.

    Raises:
        ImportError: If scikit-learn (extra ``captum-robust[benchmark]``) is not installed.

    Source:
        Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning Repository,
        https://doi.org/10.24432/C5DW2B (CC BY 4.0), from ``sklearn.datasets.load_breast_cancer``.

    Example:
        >>> cancer = load_breast_cancer()
        >>> tuple(cancer.inputs.shape), int(cancer.targets.sum())
        ((569, 30), 357)
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError(
            "load_breast_cancer needs scikit-learn: pip install 'captum-robust[benchmark]'"
        ) from error
    table = datasets.load_breast_cancer()
    rows = torch.from_numpy(table.data)
    inputs = (rows - rows.mean(dim=0)) / rows.std(dim=0, correction=0)
    return TabularDataset(
        name="breast-cancer",
        inputs=inputs.float(),
        targets=torch.from_numpy(table.target).long(),
        feature_names=tuple(str(name) for name in table.feature_names),
        source=(
            "Breast Cancer Wisconsin (Diagnostic), UCI Machine Learning Repository, "
            "https://doi.org/10.24432/C5DW2B, CC BY 4.0; from scikit-learn, standardised"
        ),
    )
