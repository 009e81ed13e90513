"""Explanations of graphs: edges as features, pairs of graphs, attacks that flip edges."""

from captum_robust.graph.edge_flip import EdgeFlipAttack, FlipInfo
from captum_robust.graph.pyg.black_box import AlgorithmAttribution
from captum_robust.graph.pyg.edge_weights import weighted_messages
from captum_robust.graph.pyg.explained import ExplainedGraph
from captum_robust.graph.pyg.masked import MaskedGraph
from captum_robust.graph.pyg.neighbourhood import receptive_field, undirected_edge_groups
from captum_robust.graph.pyg.padded import PaddedGraphs, padded_graphs
from captum_robust.graph.pyg.scorecard import compare_explainers, top_k_explanation
from captum_robust.graph.triangle import adjacency, upper_triangle
from captum_robust.graph.undirected import UndirectedModel

__all__ = [
    "AlgorithmAttribution",
    "EdgeFlipAttack",
    "ExplainedGraph",
    "FlipInfo",
    "MaskedGraph",
    "PaddedGraphs",
    "UndirectedModel",
    "adjacency",
    "compare_explainers",
    "padded_graphs",
    "receptive_field",
    "top_k_explanation",
    "undirected_edge_groups",
    "upper_triangle",
    "weighted_messages",
]
