"""Explanations of graphs: edges as features, pairs of graphs, attacks that flip edges."""

from captum_robust.graph.edge_flip import EdgeFlipAttack
from captum_robust.graph.flips import FlipInfo
from captum_robust.graph.triangle import adjacency, upper_triangle
from captum_robust.graph.undirected import UndirectedModel

__all__ = ["EdgeFlipAttack", "FlipInfo", "UndirectedModel", "adjacency", "upper_triangle"]
