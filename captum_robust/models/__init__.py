"""The networks of the papers, small enough to train on a laptop."""

from captum_robust.models.gcn import DenseGCN, SparseGCN, normalized_adjacency
from captum_robust.models.mlp import TabularMLP
from captum_robust.models.mnist import MNISTEmbedding
from captum_robust.models.siamese import PairPredictions, SiameseNetwork, cosine_similarity

__all__ = [
    "DenseGCN",
    "MNISTEmbedding",
    "PairPredictions",
    "SiameseNetwork",
    "SparseGCN",
    "TabularMLP",
    "cosine_similarity",
    "normalized_adjacency",
]
