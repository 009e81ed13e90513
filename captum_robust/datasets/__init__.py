"""The tables of the papers as tensors: Adult, Bank Marketing, COMPAS and Breast Cancer.

Adult and Bank ship in the package as binarised tables, so they load offline and the same way
everywhere; COMPAS is read from a folder or downloaded. Their columns are our own mapping, with the
same number of features as the R2ET paper uses; the paper does not publish its preprocessing.
"""

from captum_robust.datasets.adult import load_adult
from captum_robust.datasets.bank import load_bank
from captum_robust.datasets.breast_cancer import load_breast_cancer
from captum_robust.datasets.compas import load_compas
from captum_robust.datasets.tabular import Split, TabularDataset, distinct, split

__all__ = [
    "Split",
    "TabularDataset",
    "distinct",
    "load_adult",
    "load_bank",
    "load_breast_cancer",
    "load_compas",
    "split",
]
