"""Explanations of graphs: edges as features, pairs of graphs, attacks that flip edges."""

from captum_robust.graph.triangle import adjacency, upper_triangle
from captum_robust.graph.undirected import UndirectedModel

__all__ = ["UndirectedModel", "adjacency", "upper_triangle"]
