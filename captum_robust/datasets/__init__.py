"""The data of the papers as tensors: tables, pairs of digits, brain and citation networks.

The package contains Adult and Bank as tables of binary features, which load without a network.
COMPAS is read from a folder or downloaded. The columns are our own mapping with the same number of
features as in the R2ET paper, which does not publish its preprocessing.

MNIST is downloaded. Brain networks are read from a folder; :func:`load_connectomes` reads your own.
The package contains none of these.
"""

from captum_robust.datasets.adult import load_adult
from captum_robust.datasets.bank import load_bank
from captum_robust.datasets.brain import load_adhd200, load_adhd200_site
from captum_robust.datasets.breast_cancer import load_breast_cancer
from captum_robust.datasets.citation import load_cora, synthetic_citation_graph
from captum_robust.datasets.compas import load_compas
from captum_robust.datasets.connectomes import load_connectomes
from captum_robust.datasets.graphs import BrainGraphs
from captum_robust.datasets.mnist import ImageDataset, load_mnist, load_mnist_pairs
from captum_robust.datasets.pairs import Pairs, PairSplit, pair_graphs
from captum_robust.datasets.synthetic import synthetic_connectomes
from captum_robust.datasets.tabular import Split, TabularDataset, distinct, split
from captum_robust.datasets.tu_brain import load_tu_brain

__all__ = [
    "BrainGraphs",
    "ImageDataset",
    "PairSplit",
    "Pairs",
    "Split",
    "TabularDataset",
    "distinct",
    "load_adhd200",
    "load_adhd200_site",
    "load_adult",
    "load_bank",
    "load_breast_cancer",
    "load_compas",
    "load_connectomes",
    "load_cora",
    "load_mnist",
    "load_mnist_pairs",
    "load_tu_brain",
    "pair_graphs",
    "split",
    "synthetic_citation_graph",
    "synthetic_connectomes",
]
